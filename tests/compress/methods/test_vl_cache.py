"""VL-Cache: budgets by sparsity, ranks by the question, heads on their own."""

from __future__ import annotations

import pytest
import torch
from dense import Chunk, best, even_budgets, evicted
from tiny_models import Sample

from harness.compress.method import build_method
from harness.compress.methods.vl_cache import layer_budgets
from harness.errors import UserError

CONTEXT = 40


def logits(answer) -> torch.Tensor:
    return answer.trace.recording.logits[0]


def sparsity(chunk: Chunk, over: str, threshold: float) -> list[float]:
    """Share of weights below the threshold, entry by entry, in each layer."""
    found = []
    for layer, alive in zip(chunk.layers, chunk.alive, strict=True):
        shares = []
        for head, weights in enumerate(layer.weights):
            absent = entries = 0
            for row in chunk.guide.tolist():
                seen = chunk.video.tolist()
                if over == "context":
                    before = [i for i in range(int(chunk.video[0])) if alive[head, i]]
                    seen = before + list(range(int(chunk.video[0]), row + 1))
                of_row = weights[row, seen]
                absent += int((of_row < threshold * of_row.max()).sum())
                entries += len(seen)
            shares.append(absent / entries)
        found.append(sum(shares) / len(shares))
    return found


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("over", "window"), [("chunk", "last"), ("context", "every")])
def test_it_is_what_a_dense_pass_behind_masks_gives(model, run, over: str, window: str, shared: bool) -> None:
    sample = Sample()
    budgets = even_budgets(sample, CONTEXT, 2)
    counts_of_all = []

    def rule(chunk: Chunk):
        budget, length = budgets[chunk.number], len(chunk.video)
        density = [1 - s for s in sparsity(chunk, over, 0.3)]
        counts = layer_budgets(density, budget, length, int(0.25 * budget), renormalise=True)
        counts_of_all.append(counts)
        kept = []
        for layer, count in zip(chunk.layers, counts, strict=True):
            scores = layer.weights[:, chunk.guide][:, :, chunk.video].sum(1)  # [h, c]
            newest = int(0.4 * count) if chunk.last or window == "every" else 0
            heads = []
            for head in range(4):
                group = slice(None) if shared else slice(head // 2 * 2, head // 2 * 2 + 2)
                older = best(scores[group].sum(0)[: length - newest], count - newest)
                heads.append(torch.cat((older, torch.arange(length - newest, length))))
            kept.append(heads)
        return kept

    _, last = evicted(model, sample, 2, rule)
    options = {"sparsity_over": over, "window": window, "shared": shared, "recent": 0.4, "threshold": 0.3}
    got = run(sample, CONTEXT, name="vl_cache", **options)
    assert got.trace.kept == counts_of_all and any(len(set(counts)) > 1 for counts in counts_of_all)
    assert sum(got.trace.cache_length) == 3 * CONTEXT and got.trace.head_lengths is None
    assert torch.allclose(logits(got), last, atol=1e-4)


def test_layers_share_by_density_and_pay_for_the_floor() -> None:
    assert layer_budgets([0.6, 0.3, 0.1], 10, 50, 0, renormalise=True) == [18, 9, 3]
    assert layer_budgets([0.6, 0.3, 0.1], 10, 50, 6, renormalise=True) == [16, 8, 6]
    assert layer_budgets([0.6, 0.3, 0.1], 10, 50, 6, renormalise=False) == [18, 9, 6]  # three more than there are
    assert layer_budgets([0.6, 0.3, 0.1], 10, 15, 0, renormalise=True) == [15, 11, 4]  # no more than the chunk
    assert layer_budgets([0.0, 0.0, 0.0], 10, 50, 6, renormalise=True) == [10, 10, 10]  # nothing is dense
    assert layer_budgets([0.6, 0.3, 0.1], 4, 50, 9, renormalise=True) == [4, 4, 4]  # a floor above the budget
    assert layer_budgets([0.6, 0.3, 0.1], 0, 50, 0, renormalise=True) == [0, 0, 0]


def test_the_published_floor_exceeds_the_context(run) -> None:
    published = {"floor": 0.5, "floor_of": "chunk", "renormalise": False}
    trace = run(Sample(), CONTEXT, name="vl_cache", **published).trace
    assert all(count >= 6 for kept in trace.kept for count in kept) and sum(trace.cache_length) > 3 * CONTEXT


def test_a_word_that_is_none_is_named() -> None:
    with pytest.raises(UserError, match="method.window=first is not known; allowed: last, every"):
        build_method("vl_cache", window="first")
