"""SparseVLM: raters rank, layers share as published, dropped tokens are recycled; each against a slow derivation."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from dense import Chunk, best, dense, even_budgets, evicted
from tiny_models import Sample, decoder

from harness.compress.allocation import allocate
from harness.compress.method import build_method
from harness.compress.methods.sparsevlm import clusters_of, density_peaks, pruning_layers, recycled_count
from harness.errors import UserError

CONTEXT = 40


def logits(answer) -> torch.Tensor:
    return answer.trace.recording.logits[0]


def raters_of(model, sample: Sample, video: slice) -> list[int]:
    words = model.get_input_embeddings()(sample.input_ids[sample.video.stop :]).detach()
    share = [0.0] * len(words)
    for feature in sample.features[video]:
        products = [float(feature @ word) for word in words]
        largest = max(products)
        total = sum(math.exp(p - largest) for p in products)
        for i, product in enumerate(products):
            share[i] += math.exp(product - largest) / total
    return [i for i, s in enumerate(share) if s > sum(share) / len(share)]


def test_pruning_layers_are_those_of_the_paper_at_its_depth() -> None:
    assert pruning_layers([2, 6, 15], 32, 32) == [2, 6, 15]
    assert pruning_layers([2, 6, 15], 32, 28) == [2, 5, 13]
    method = build_method("sparsevlm")
    assert method.judges(28) == [2] * 6 + [5] * 8 + [13] * 14


@pytest.mark.parametrize("raters", ["video", "chunk"])
@pytest.mark.parametrize("rule_of_counts", ["list", "rank"])
def test_it_is_what_a_dense_pass_behind_masks_gives(model, run, raters: str, rule_of_counts: str) -> None:
    """Three layers: tokens are dropped behind layer 0 and behind layer 1."""
    sample = Sample()
    budgets = even_budgets(sample, CONTEXT, 2)
    ranks_differ = []

    def rule(chunk: Chunk):
        start = 12 * chunk.number
        found = raters_of(model, sample, slice(0, 60) if raters == "video" else slice(start, start + 12))
        rows = [chunk.layers[j].weights.mean(0)[chunk.guide[found]][:, chunk.video] for j in range(2)]
        weights = [576.0, 200.0, 110.0]
        if rule_of_counts == "rank":
            ranks = [int(torch.linalg.matrix_rank(of_layer)) for of_layer in rows]
            left = [min(2.5 * r, 12) * 48 for r in ranks]
            weights = [576.0, left[0], min(left)]
            ranks_differ.append(left)
        counts = allocate(weights, 3 * budgets[chunk.number], [12] * 3)
        kept, alive = [], torch.arange(12)
        for layer, judge in enumerate((0, 0, 1)):
            scores = rows[judge].mean(0)
            alive = alive[best(scores[alive], counts[layer])]
            kept.append(alive)
        return kept

    expected, last = evicted(model, sample, 2, rule)
    options = {"layers": [0, 1], "of_layers": 3, "keep": [200, 110], "scale": 2.5, "bias": 0.0, "recycle": False}
    got = run(sample, CONTEXT, name="sparsevlm", raters=raters, rule=rule_of_counts, **options)
    assert sum(got.trace.cache_length) == 3 * CONTEXT
    for of_chunk, theirs in zip(got.trace.recording.kept_indices, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(of_chunk, theirs, strict=True))
    assert torch.allclose(logits(got), last, atol=1e-4)


def peaks_by_loops(points: torch.Tensor, count: int, neighbours: int = 5) -> tuple[list[int], list[int]]:
    n, dim = points.shape
    d = [[math.dist(points[i].tolist(), points[j].tolist()) / math.sqrt(dim) for j in range(n)] for i in range(n)]
    density = [math.exp(-sum(x * x for x in sorted(row)[:neighbours]) / min(neighbours, n)) for row in d]
    largest = max(map(max, d))
    isolation = [min([d[i][j] for j in range(n) if density[j] > density[i]], default=largest) for i in range(n)]
    centres = sorted(sorted(range(n), key=lambda i: (-isolation[i] * density[i], i))[:count])
    members = [min(range(count), key=lambda c: d[i][centres[c]]) for i in range(n)]
    return centres, members


@pytest.mark.parametrize(("n", "count"), [(1, 1), (4, 4), (12, 3), (30, 7)])
def test_density_peaks(n: int, count: int) -> None:
    points = torch.randn(n, 6, generator=torch.Generator().manual_seed(n))
    centres, member_of = density_peaks(points, count)
    assert (centres.tolist(), member_of.tolist()) == peaks_by_loops(points, count)


def test_how_many_are_recycled() -> None:
    assert [clusters_of(n, 0.3, 0.1) for n in (0, 1, 10, 100, 2000)] == [0, 1, 1, 4, 61]
    assert recycled_count(499, 2304, 0.3, 0.1, 0.5) == clusters_of(2304 - 499 + 56, 0.3, 0.1) == 56
    assert recycled_count(31, 2304, 0.3, 0.1, 0.5) == 15  # no more than half of the budget
    assert [recycled_count(b, 12, 0.3, 0.1, 0.5) for b in (0, 1, 2, 12)] == [0, 0, 1, 0]


def test_recycled_tokens_are_means_before_rotation_at_the_place_of_their_centre(model, run) -> None:
    """One chunk, so that the cache holds what is computed here token by token."""
    sample, length = Sample(grids=6), 36
    got = run(sample, 30, name="sparsevlm", chunk_frames=12, clusters=0.5, layers=[0], keep=[300], recycled=0.6)
    budget, made = 18, 6  # 24 are dropped, 14 of them recycled, int(7) + 1 clusters, but no more than fit
    counts = allocate([576, 300, 300], 3 * budget, [length] * 3)
    embeds = model.get_input_embeddings()(sample.input_ids).detach().clone()
    embeds[sample.video] = sample.features
    positions, n = sample.positions(), sample.n_prompt
    layers, _ = dense(model, embeds, positions, torch.ones(n, n, dtype=torch.bool).tril().repeat(3, 4, 1, 1))
    found = torch.tensor(raters_of(model, sample, slice(0, length))) + sample.video.stop
    scores = layers[0].weights.mean(0)[found][:, sample.video].mean(0)
    cache, language = got.trace.recording.cache, decoder(model)
    for number, (layer, count) in enumerate(zip(layers, counts, strict=True)):
        made = recycled_count(count, length, 0.6, 0.5, 0.5)
        kept = best(scores, count - made).tolist()
        rest = [i for i in range(length) if i not in kept]
        rest = sorted(sorted(rest, key=lambda i: -float(scores[i]))[: int(0.6 * len(rest))])
        ids = positions[:, sample.video]
        content = language.unrotate(layer.key[:, sample.video], ids)
        centres, member_of = peaks_by_loops(content[:, rest].transpose(0, 1).flatten(1), made)
        keys, values = {}, {}
        for c, centre in enumerate(centres):
            members = [rest[i] for i, m in enumerate(member_of) if m == c]
            at = rest[centre]
            keys[at] = language.rotate(content[:, members].mean(1, keepdim=True), ids[:, [at]])[:, 0]
            values[at] = layer.value[:, sample.video][:, members].mean(1)
        order = sorted([*kept, *keys])
        assert len(order) == count and made > 0 and got.trace.recording.kept_indices[0][number].tolist() == order
        expected = [keys.get(i, layer.key[:, sample.video.start + i]) for i in order]
        assert torch.allclose(cache.keys(number)[:, 5 : 5 + count], torch.stack(expected, 1), atol=1e-5)
        expected = [values.get(i, layer.value[:, sample.video.start + i]) for i in order]
        assert torch.allclose(cache.values(number)[:, 5 : 5 + count], torch.stack(expected, 1), atol=1e-5)


@pytest.mark.parametrize("recycle", [True, False])
def test_natively_states_are_dropped_behind_a_layer_and_recycled(model, run, recycle: bool) -> None:
    sample = Sample()
    options = {"layers": [0], "of_layers": 3, "keep": [288], "recycle": recycle}
    method = build_method("sparsevlm", form="native", **options).for_family("qwen2_5_vl")
    got = run(sample, None, method=method)
    embeds = model.get_input_embeddings()(sample.input_ids).detach().clone()
    embeds[sample.video] = sample.features
    n, positions = sample.n_prompt, sample.positions()
    layers, _ = dense(model, embeds, positions, torch.ones(n, n, dtype=torch.bool).tril().repeat(3, 4, 1, 1))
    found = torch.tensor(raters_of(model, sample, slice(0, 60))) + sample.video.stop
    scores = layers[0].weights.mean(0)[found][:, sample.video].mean(0)
    kept = best(scores, 30).tolist()
    with torch.inference_mode():
        states = model.model.language_model(
            inputs_embeds=embeds[None], position_ids=positions[:, None], output_hidden_states=True
        ).hidden_states[1][0]
    states = states.clone()
    if recycle:  # 30 are dropped: the best 9 of them become 0 + 1 token
        rest = [i for i in range(60) if i not in kept]
        rest = sorted(sorted(rest, key=lambda i: -float(scores[i]))[:9])
        (centre,), _ = peaks_by_loops(states[sample.video][rest], 1)
        states[sample.video.start + rest[centre]] = states[sample.video][rest].mean(0)
        kept = sorted([*kept, rest[centre]])
    alive = torch.tensor([*range(5), *(5 + i for i in kept), *range(65, n)])
    text = model.model.language_model
    above = SimpleNamespace(layers=text.layers[1:], norm=text.norm, rotary_emb=text.rotary_emb, config=text.config)
    above.get_input_embeddings = text.get_input_embeddings
    upper = SimpleNamespace(model=SimpleNamespace(language_model=above), lm_head=model.lm_head)
    visible = torch.ones(len(alive), len(alive), dtype=torch.bool).tril().repeat(2, 4, 1, 1)
    _, expected = dense(upper, states[alive], positions[:, alive], visible)
    assert got.trace.cache_length == [n, len(alive), len(alive)]
    assert torch.allclose(logits(got), expected[-1], atol=1e-4)


def test_natively_nothing_dropped_is_the_identity_and_ranks_bound_what_stays(run) -> None:
    sample = Sample()
    whole = build_method("sparsevlm", form="native", keep=[576] * 3).for_family("qwen2_5_vl")
    assert torch.allclose(logits(run(sample, None, method=whole)), logits(run(sample, None, name="none")), atol=1e-4)
    ranked = build_method("sparsevlm", form="native", rule="rank", scale=1.0, bias=0.0, recycle=False, layers=[0],
                          keep=[1]).for_family("qwen2_5_vl")  # fmt: skip
    kept = run(sample, None, method=ranked).trace.kept[0]
    assert kept[0] == 60 and 1 <= kept[1] == kept[2] <= 7  # no more than there are words


def test_lists_that_do_not_belong_together_are_named() -> None:
    for wrong in ({"keep": [300, 200]}, {"keep": [300, 200, 210]}, {"layers": [6, 2, 15]}, {"layers": []}):
        with pytest.raises(UserError, match="do not belong together"):
            build_method("sparsevlm", **wrong)
