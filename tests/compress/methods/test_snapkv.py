"""SnapKV, PyramidKV, AdaKV: the question's rows score every key head for itself; layers or heads may share."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from dense import Chunk, best, even_budgets, evicted
from tiny_models import Sample, tiny_model

from harness.compress.method import Method, build_method
from harness.compress.methods.adakv import head_counts
from harness.compress.methods.pyramidkv import pyramid
from harness.errors import UserError

CONTEXT = 40
KEY_HEADS, GROUP = 2, 2


def logits(answer) -> torch.Tensor:
    return answer.trace.recording.logits[0]


def slow_scores(chunk: Chunk, layer: int, kernel: int = 1, pooling: str = "average", reduction: str = "mean"):
    """[kv][c], token by token."""
    rows = chunk.layers[layer].weights[:, chunk.guide][:, :, chunk.video].mean(1)  # [h, c]
    half, length = kernel // 2, rows.shape[1]
    pooled = torch.zeros_like(rows)
    for i in range(length):
        near = rows[:, max(0, i - half) : i + half + 1]
        pooled[:, i] = near.sum(1) / kernel if pooling == "average" else near.amax(1)
    heads = pooled.view(KEY_HEADS, GROUP, length)
    return heads.mean(1) if reduction == "mean" else heads.amax(1)


def per_query_head(kept: list[torch.Tensor]) -> list[torch.Tensor]:
    return [of_head for of_head in kept for _ in range(GROUP)]


@pytest.mark.parametrize(
    "options", [{}, {"kernel": 5}, {"kernel": 3, "pooling": "max"}, {"kernel": 3, "pooling": "max", "reduction": "max"}]
)
def test_snapkv_is_what_a_dense_pass_behind_masks_gives(model, run, options: dict) -> None:
    sample = Sample()
    budgets = even_budgets(sample, CONTEXT, 2)

    def rule(chunk: Chunk):
        of_layers = [slow_scores(chunk, layer, **options) for layer in range(3)]
        return [per_query_head([best(s, budgets[chunk.number]) for s in scores]) for scores in of_layers]

    _, expected = evicted(model, sample, 2, rule)
    got = run(sample, CONTEXT, name="snapkv", **options)
    assert torch.allclose(logits(got), expected, atol=1e-4)
    assert got.trace.cache_length == [CONTEXT] * 3 and got.trace.head_lengths is None


def test_pyramidkv_is_what_a_dense_pass_behind_masks_gives(model, run) -> None:
    sample = Sample()
    budgets = even_budgets(sample, CONTEXT, 2)
    assert set(budgets) == {6, 5}  # of 6 the layers would keep 11.7, 6 and 0.3; of 5 9.75, 5 and 0.25

    def rule(chunk: Chunk):
        b = budgets[chunk.number]
        exact = [2 * b - Fraction(b, 20), Fraction(b), Fraction(b, 20)]
        counts = [int(x) for x in exact]
        order = sorted(range(3), key=lambda i: counts[i] - exact[i])
        for i in order[: 3 * b - sum(counts)]:
            counts[i] += 1
        return [
            per_query_head([best(s, count) for s in slow_scores(chunk, layer)]) for layer, count in enumerate(counts)
        ]

    _, expected = evicted(model, sample, 2, rule)
    got = run(sample, CONTEXT, name="pyramidkv")
    assert torch.allclose(logits(got), expected, atol=1e-4)
    assert sum(got.trace.cache_length) == 3 * CONTEXT and got.trace.cache_length[0] > got.trace.cache_length[2]


@pytest.mark.parametrize("floor", [0.2, 0.0])
def test_adakv_is_what_a_dense_pass_behind_masks_gives(model, run, floor: float) -> None:
    sample = Sample()
    budgets = even_budgets(sample, CONTEXT, 2)

    def rule(chunk: Chunk):
        kept = []
        for layer in range(3):
            scores, b = slow_scores(chunk, layer), budgets[chunk.number]
            top = sorted(((-float(s), h, i) for h, row in enumerate(scores) for i, s in enumerate(row)))[: 2 * b]
            exact = [(1 - floor) * sum(h == head for _, h, _ in top) + floor * b for head in range(2)]
            first = round(exact[0])  # of two shares that add up to a whole number both are rounded alike
            kept.append(per_query_head([best(scores[0], first), best(scores[1], 2 * b - first)]))
        return kept

    _, expected = evicted(model, sample, 2, rule)
    got = run(sample, CONTEXT, name="adakv", floor=floor)
    assert torch.allclose(logits(got), expected, atol=1e-4)
    assert got.trace.head_lengths is not None and any(len(set(heads)) > 1 for heads in got.trace.head_lengths)
    assert got.trace.cache_length == [CONTEXT] * 3  # every layer, on average over its heads


def test_a_pyramid_is_a_line_and_adds_up() -> None:
    assert pyramid(5, 20, 1000, 20) == [39, 30, 20, 10, 1]
    for layers in (1, 2, 3, 28):
        for budget in (0, 1, 7, 60):
            for length in (60, 64, 1000):
                counts = pyramid(layers, budget, length, 20)
                assert sum(counts) == layers * budget and max(counts) <= length and min(counts) >= 0
                assert all(a - b >= -1 for a, b in zip(counts, counts[1:], strict=False))
    assert pyramid(3, 50, 60, 20) == [60, 50, 40]  # the first layer cannot keep 97 of 60
    assert pyramid(4, 60, 60, 20) == [60] * 4


def test_heads_share_a_layer() -> None:
    rich, poor = torch.linspace(2, 3, 10), torch.linspace(0, 1, 10)
    assert head_counts(torch.stack([rich, poor])[None], 4, 0.0) == [[8, 0]]
    assert head_counts(torch.stack([rich, poor])[None], 4, 0.2) == [[7, 1]]  # 0.8 * 8 + 0.8 = 7.2
    assert head_counts(torch.stack([rich, poor])[None], 4, 1.0) == [[4, 4]]
    assert head_counts(torch.stack([poor, poor])[None], 4, 0.0) == [[4, 4]] and head_counts(
        torch.stack([rich, poor])[None], 0, 0.2
    ) == [[0, 0]]
    assert head_counts(torch.stack([rich, poor])[None], 10, 0.2) == [[10, 10]]


@pytest.mark.parametrize("name", ["snapkv", "pyramidkv", "adakv"])
def test_eviction_behind_the_question_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="form=native.*cannot change the first token.*method.form=kv"):
        build_method(name, form="native")
    with pytest.raises(UserError, match="kernel=4"):
        build_method(name, kernel=4)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", ["snapkv", "pyramidkv", "adakv"])
def test_any_number_of_layers(run, name: str, layers: int) -> None:
    assert sum(run(Sample(), CONTEXT, name=name, on=tiny_model(7, layers)).trace.cache_length) == layers * CONTEXT


@dataclass(frozen=True)
class TooLate(Method):
    """Keeps ten tokens, once the question has been answered from all of them."""

    def feed(self, run, segment):
        hidden = super().feed(run, segment)
        if hidden is not None:
            for layer in range(run.cache.num_layers):
                length = run.cache.get_seq_length(layer)
                run.cache.keep_of_last(layer, length, torch.arange(length - 10, length))
        return hidden


def test_a_method_that_evicts_behind_the_question_is_refused(run) -> None:
    with pytest.raises(UserError, match="late evicts behind the question.*cannot change the first token"):
        run(Sample(), CONTEXT, method=TooLate(name="late", chunk_frames=4))
