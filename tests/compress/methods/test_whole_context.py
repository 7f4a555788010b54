"""KVzip and Expected Attention: evicting once, when the video is cached and the question is not."""

from __future__ import annotations

import pytest
import torch
from dense import Layer, best, dense
from tiny_models import Sample, decoder

from harness.compress.method import build_method
from harness.compress.methods.expected_attention import Statistics, expected_attention
from harness.errors import QuestionError

CONTEXT, LAYERS, KEY_HEADS, GROUP = 40, 3, 2, 2
BUDGET = CONTEXT - 12


def logits(answer) -> torch.Tensor:
    return answer.trace.recording.logits[0]


def embedded(model, sample: Sample) -> torch.Tensor:
    embeds = model.get_input_embeddings()(sample.input_ids).detach().clone()
    embeds[sample.video] = sample.features
    return embeds


def causal(n: int) -> torch.Tensor:
    return torch.ones(n, n, dtype=torch.bool).tril().repeat(LAYERS, 4, 1, 1)


def behind(model, sample: Sample, kept: list[list[torch.Tensor]]) -> torch.Tensor:
    """Logits [v] where the question sees only what each layer and key head keeps [L][kv] of the video."""
    visible = causal(sample.n_prompt)
    for layer in range(LAYERS):
        for head in range(4):
            gone = torch.ones(sample.n_video, dtype=torch.bool)
            gone[kept[layer][head // GROUP]] = False
            places = sample.video.start + gone.nonzero().flatten()
            visible[layer, head, sample.video.stop :, places] = False
    return dense(model, embedded(model, sample), sample.positions(), visible)[1][-1]


def slow_kvzip(model, sample: Sample, grids_per_chunk: int) -> torch.Tensor:
    """Scores [L, kv, V]: the context once, and behind it a copy of every chunk that sees it but no other copy."""
    start, stop, size = sample.video.start, sample.video.stop, grids_per_chunk * sample.tokens_per_grid
    positions, words = sample.positions(), embedded(model, sample)
    order, ids, visible, copies = list(range(stop)), [positions[:, :stop]], torch.ones(0, 0), []
    following = positions[:, :stop].max() + 1
    for first in range(start, stop, size):
        chunk = torch.arange(first, min(first + size, stop))
        moved = positions[:, chunk] - torch.tensor([positions[row, chunk].min() for row in range(3)])[:, None]
        copies.append((chunk, len(order) + torch.arange(len(chunk))))
        order += chunk.tolist()
        ids.append(moved + following)
    visible = causal(len(order))
    for _, copy in copies:
        for _, other in copies:
            if other[0] != copy[0]:
                visible[:, :, copy[:, None], other] = False
    layers, _ = dense(model, words[order], torch.cat(ids, 1), visible)
    scores = torch.zeros(LAYERS, KEY_HEADS, sample.n_video)
    for layer, found in enumerate(layers):
        for chunk, copy in copies:
            for head in range(4):
                for i, place in enumerate(copy):
                    over = [*range(start), *chunk.tolist(), *copy[: i + 1].tolist()]
                    weights = (found.key[head // GROUP, over] @ found.query[head, place] / 8**0.5).softmax(0)
                    of_chunk = scores[layer, head // GROUP, chunk - start]
                    scores[layer, head // GROUP, chunk - start] = of_chunk.maximum(weights[start : start + len(chunk)])
    return scores


@pytest.mark.parametrize("share", ["model", "head"])
def test_kvzip_is_what_a_dense_pass_over_copies_gives(model, run, share: str) -> None:
    sample = Sample(grids=7)
    budget = CONTEXT - 12
    scores = slow_kvzip(model, sample, 2)
    if share == "head":
        kept = [[best(of_head, budget) for of_head in of_layer] for of_layer in scores]
    else:
        chosen = best(scores.flatten(), LAYERS * KEY_HEADS * budget)
        marked = torch.zeros(scores.numel(), dtype=torch.bool)
        marked[chosen] = True
        kept = [[of_head.nonzero().flatten() for of_head in of_layer] for of_layer in marked.view(scores.shape)]
    got = run(sample, CONTEXT, name="kvzip", share=share)
    assert torch.allclose(logits(got), behind(model, sample, kept), atol=1e-4)
    trace = got.trace
    lengths = [[12 + len(of_head) for of_head in of_layer] for of_layer in kept]
    assert (trace.head_lengths or [[length] * 2 for length in trace.cache_length]) == lengths
    assert sum(trace.cache_length) == LAYERS * CONTEXT and sum(trace.chunk_budget) == budget
    assert trace.prefilled == sample.n_prompt + sample.n_video  # the video twice, the rest once
    assert trace.cache_peak == sample.video.stop + 12  # the whole video, and a copy of one chunk


def test_the_published_threshold_keeps_less(run) -> None:
    for share, least in (("model", 1), ("head", LAYERS * KEY_HEADS)):
        sample = Sample(grids=7)
        got = run(sample, CONTEXT, name="kvzip", share=share, strict=True)
        assert sum(got.trace.cache_length) * KEY_HEADS == LAYERS * KEY_HEADS * CONTEXT - least


def slow_expected_attention(found: list[Layer], sample: Sample, content: list[torch.Tensor], future: int, **how: bool):
    """Scores [L][kv, V] from queries [h, n, d] before rotation; the mean rotation from angles, block by block."""
    start, stop = sample.video.start, sample.video.stop
    angle = 1e4 ** (-torch.arange(4) / 4)[:, None] * (int(sample.positions()[0, stop]) + torch.arange(future))
    c, s = angle.cos().mean(1).diag(), angle.sin().mean(1).diag()
    turn = torch.cat((torch.cat((c, -s), 1), torch.cat((s, c), 1)))  # of the first and the second half
    scores = []
    for layer, queries in zip(found, content, strict=True):
        rows = []
        for head in range(4):
            asked, keys = queries[head, 4:stop], layer.key[head // GROUP, 4:stop]
            mean, covariance = turn @ asked.mean(0), turn @ torch.cov(asked.T, correction=0) @ turn.T
            found_logits = []
            for key in keys:
                spread = key @ covariance @ key / 16 if how["covariance"] else 0.0
                found_logits.append(key @ mean / 8**0.5 + spread)
            rows.append(torch.stack(found_logits).softmax(0))
        of_heads = torch.stack(rows).view(KEY_HEADS, GROUP, -1).mean(1)
        lengths = layer.value[:, 4:stop].norm(dim=-1)
        of_heads = of_heads * lengths if how["values"] else of_heads
        scores.append(of_heads[:, start - 4 :])
    return scores


@pytest.mark.parametrize("how", [{"covariance": True, "values": True}, {"covariance": False, "values": False}])
def test_expected_attention_is_what_a_dense_pass_gives(model, run, how: dict[str, bool]) -> None:
    sample = Sample()
    layers, _ = dense(model, embedded(model, sample), sample.positions(), causal(sample.n_prompt))
    language = decoder(model)
    content = [language.unrotate(layer.query, sample.positions()) for layer in layers]
    scores = slow_expected_attention(layers, sample, content, 50, **how)
    kept = [[best(of_head, BUDGET) for of_head in of_layer] for of_layer in scores]
    got = run(sample, CONTEXT, name="expected_attention", future=50, **how)
    assert torch.allclose(logits(got), behind(model, sample, kept), atol=1e-4)
    assert got.trace.cache_length == [CONTEXT] * 3 and got.trace.cache_peak == sample.n_prompt - 7
    recorded = torch.cat([of_chunk[1] for of_chunk in got.trace.recording.scores], dim=1)
    assert torch.allclose(recorded, scores[1], atol=1e-5)


def test_the_mean_of_an_exponential_is_that_of_many_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, root = torch.randn(1, 4, generator=generator), 0.5 * torch.randn(4, 4, generator=generator)
    keys = torch.randn(1, 6, 4, generator=generator)
    drawn = mean + torch.randn(400_000, 4, generator=generator) @ root.T
    expected = (drawn @ keys[0].T * 0.5).exp().mean(0)
    got = expected_attention(mean, (root @ root.T)[None], keys, 0.5)[0]
    assert torch.allclose(got, expected / expected.sum(), atol=2e-3)


def test_statistics_of_chunks_are_those_of_the_whole() -> None:
    queries = 50 + torch.randn(3, 90, 4, generator=torch.Generator().manual_seed(1))
    seen = Statistics()
    for part in queries.split((1, 40, 0, 49), dim=1):
        seen.add(part)
    for head in range(3):
        assert torch.allclose(seen.mean[head], queries[head].mean(0), atol=1e-4)
        assert torch.allclose(seen.covariance()[head], torch.cov(queries[head].T, correction=0), atol=1e-4)


@pytest.mark.parametrize("name", ["kvzip", "expected_attention"])
def test_a_context_without_room_is_refused_before_the_video_passes(run, name: str) -> None:
    with pytest.raises(QuestionError, match="context=12.*at least 13"):
        run(Sample(), 12, name=name)
    assert build_method(name).reusable and not build_method(name).sees_question


def test_expected_attention_answers_a_video_no_longer_than_its_sinks(run) -> None:
    sample = Sample()
    got = run(sample, CONTEXT, name="expected_attention", sinks=10_000)
    assert sum(got.trace.cache_length) == CONTEXT * len(got.trace.cache_length)
