"""LOOK-M: accumulated attention ranks, evicted tokens are merged; each against loops over single tokens."""

from __future__ import annotations

import pytest
import torch
from dense import Chunk, best, dense, even_budgets, evicted
from tiny_models import Sample, decoder

from harness.compress.method import build_method
from harness.compress.methods.look_m import merged
from harness.errors import UserError

CONTEXT = 40


def logits(answer) -> torch.Tensor:
    return answer.trace.recording.logits[0]


@pytest.mark.parametrize("window", ["last", "every"])
def test_without_merging_it_is_what_a_dense_pass_behind_masks_gives(model, run, window: str) -> None:
    sample = Sample()
    budgets = even_budgets(sample, CONTEXT, 2)

    def rule(chunk: Chunk):
        count, length = budgets[chunk.number], len(chunk.video)
        newest = int(0.4 * count) if chunk.last or window == "every" else 0
        rows = torch.cat((chunk.video, chunk.guide))
        kept = []
        for layer in chunk.layers:
            scores = [layer.weights[head, rows][:, chunk.video].sum(0) for head in range(4)]
            pairs = [best((scores[h] + scores[h + 1])[: length - newest], count - newest) for h in (0, 2)]
            both = [torch.cat((older, torch.arange(length - newest, length))) for older in pairs]
            kept.append([both[0], both[0], both[1], both[1]])
        return kept

    _, last = evicted(model, sample, 2, rule)
    got = run(sample, CONTEXT, name="look_m", merge="none", recent=0.4, window=window)
    assert got.trace.cache_length == [CONTEXT] * 3 and got.trace.head_lengths is None
    assert torch.allclose(logits(got), last, atol=1e-4)


def merged_by_loops(keys, values, kept, rule: str, unlike: bool):
    """One head, token by token [c, d]."""
    stays = kept.tolist()
    gone = [i for i in range(len(keys)) if i not in stays]
    cosine = {e: [float(torch.cosine_similarity(keys[e], keys[c], dim=0)) for c in stays] for e in gone}
    found = []
    for states in (keys, values):
        new = []
        for place, c in enumerate(stays):
            mine = [e for e in gone if cosine[e].index(max(cosine[e])) == place and unlike[e]]
            total = states[c].clone()
            for e in mine:
                total += {
                    "average": states[e],
                    "pivotal": (states[e] + states[c]) / 2,
                    "weighted": cosine[e][place] * states[e],
                }[rule]
            new.append(total / (len(mine) + 1))
        found.append(torch.stack(new))
    return found


@pytest.mark.parametrize("unlike", [True, False])
@pytest.mark.parametrize("rule", ["pivotal", "average", "weighted"])
def test_the_three_rules_of_merging(rule: str, unlike: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 2, 9, 6, generator=generator)
    kept = torch.tensor([[0, 4, 5], [2, 3, 8]])
    best_cosine = torch.full((2, 9), torch.nan)
    for head in range(2):
        for e in set(range(9)) - set(kept[head].tolist()):
            best_cosine[head, e] = torch.cosine_similarity(keys[head, e][None], keys[head, kept[head]]).max()
    mean = best_cosine.nanmean()
    got = merged(keys, values, kept, rule, unlike=unlike)
    for head in range(2):
        alike = [unlike or bool(c >= mean) for c in best_cosine[head]]
        expected = merged_by_loops(keys[head], values[head], kept[head], rule, alike)
        assert torch.allclose(got[0][head], expected[0], atol=1e-6)
        assert torch.allclose(got[1][head], expected[1], atol=1e-6)


@pytest.mark.parametrize("content", [False, True])
def test_merged_tokens_stand_where_the_kept_ones_were_cached(model, run, content: bool) -> None:
    """One chunk, so that the cache holds what is computed here from a dense pass."""
    sample, count = Sample(grids=4), 9
    got = run(sample, 12 + count, name="look_m", chunk_frames=8, content=content, recent=0.0)
    embeds = model.get_input_embeddings()(sample.input_ids).detach().clone()
    embeds[sample.video] = sample.features
    n, positions, language = sample.n_prompt, sample.positions(), decoder(model)
    layers, _ = dense(model, embeds, positions, torch.ones(n, n, dtype=torch.bool).tril().repeat(3, 4, 1, 1))
    video, ids, cache = sample.video, positions[:, sample.video], got.trace.recording.cache
    for number, layer in enumerate(layers):
        for head in range(2):
            scores = layer.weights[2 * head : 2 * head + 2, video.start :, video].sum((0, 1))
            kept = best(scores, count)
            keys, values = layer.key[head, video], layer.value[head, video]
            if content:
                keys = language.unrotate(keys[None], ids)[0]
            keys, values = merged_by_loops(keys, values, kept, "pivotal", [True] * 24)
            if content:
                keys = language.rotate(keys[None], ids[:, kept])[0]
            assert torch.allclose(cache.head_keys(number, head)[5 : 5 + count], keys, atol=1e-4)
            assert torch.allclose(cache.head_values(number, head)[5 : 5 + count], values, atol=1e-4)


def test_rules_differ_and_one_that_is_none_is_named(run) -> None:
    rules = ("pivotal", "average", "weighted", "none")
    answers = [logits(run(Sample(), CONTEXT, name="look_m", merge=rule)) for rule in rules]
    assert not any(torch.allclose(a, b, atol=1e-3) for i, a in enumerate(answers) for b in answers[:i])
    with pytest.raises(UserError, match="method.merge=mean is not known; allowed: pivotal, average, weighted, none"):
        build_method("look_m", merge="mean")
