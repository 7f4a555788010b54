"""Temporal and layer allocators."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch
from tiny_models import Sample

from harness.compress.allocation import by_distance, chunk_distances, grid_distances, pooled, pooled_margin, top_hits
from harness.compress.evict import highest
from harness.compress.methods.adaretake.release import half_of_a_short_video
from harness.compress.prompt import whole_grids
from harness.errors import QuestionError, UserError

CPU = torch.device("cpu")


def skewed_scores(seed: int, layers: int = 3, length: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(length, generator=generator) ** (1 + 3 * layer) for layer in range(layers)]


def test_distances_are_one_minus_cosine() -> None:
    grids = torch.tensor([[[1.0, 0], [0, 1]], [[1, 0], [0, 1]], [[0, 1], [0, 2]], [[0, -1], [0, -2]]])
    assert grid_distances(grids.view(8, 2), 2, CPU) == pytest.approx([0, 0.5, 2])


def test_a_still_pair_has_distance_zero_in_spite_of_rounding() -> None:
    still = torch.randn(1, 5, 33).expand(4, 5, 33).reshape(20, 33)
    assert grid_distances(still, 5, CPU) == [0.0, 0.0, 0.0]


def test_windows_of_grids_do_not_show(monkeypatch) -> None:
    features = torch.randn(30, 8)
    whole = grid_distances(features, 2, CPU)
    monkeypatch.setattr("harness.compress.allocation._WINDOW", 4)
    assert grid_distances(features, 2, CPU) == pytest.approx(whole)
    assert len(whole) == 14


def test_chunk_distance_is_the_mean_inside_or_the_pair_before() -> None:
    assert chunk_distances([1.0, 2.0, 3.0, 4.0, 5.0], [2, 3, 1]) == [1.0, 3.5, 5.0]
    assert chunk_distances([], [1]) == [1.0]
    assert chunk_distances([0.5], [1, 1]) == [1.0, 0.5]


def test_budgets_follow_change() -> None:
    sample = Sample(grids=8)
    still = sample.features.view(8, 6, -1).clone()
    still[:4] = still[0]  # the first two chunks do not change
    lengths = whole_grids(sample.prompt(), 4)
    budgets = by_distance(grid_distances(still.view(48, -1), 6, CPU), 6, lengths, 28)
    assert sum(budgets) == 28 and budgets[:2] == [2, 2] and min(budgets[2:]) > 11


def test_a_still_video_is_divided_by_length() -> None:
    sample = Sample(grids=5)
    still = sample.features[:6].repeat(5, 1)
    assert by_distance(grid_distances(still, 6, CPU), 6, whole_grids(sample.prompt(), 4), 10) == [4, 4, 2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_an_error(bad: float) -> None:
    features = torch.randn(30, 8)
    features[7, 3] = bad
    with pytest.raises(QuestionError, match="not all numbers.*between grids 0 and 1"):
        grid_distances(features, 6, CPU)


def test_chunks() -> None:
    sample = Sample(grids=10)  # 6 tokens per grid
    assert whole_grids(sample.prompt(), 8) == [24, 24, 12]
    assert whole_grids(sample.prompt(), 32) == [60]
    assert half_of_a_short_video(sample.prompt(), 8) == [24, 24, 12]
    assert half_of_a_short_video(sample.prompt(), 32) == [30, 30]
    frames = dataclasses.replace(sample.prompt(), frames_per_grid=1)
    assert whole_grids(frames, 4) == [24, 24, 12]
    odd = Sample(grids=7, h=6, w=6)
    assert half_of_a_short_video(odd.prompt(), 32) == [31, 31, 1]  # a chunk may end inside a grid


def test_a_context_of_zero_is_an_error() -> None:
    with pytest.raises(UserError, match="context=0"):
        Sample().prompt(context=0)


def test_hits_break_ties_by_layer_then_index() -> None:
    assert top_hits([torch.ones(4), torch.ones(4)], 5) == [4, 1]
    scores = torch.tensor([[1.0, 2, 2, 1], [0, 3, 1, 3], [1, 1, 1, 1]])
    margins: list[torch.Tensor] = []
    run = SimpleNamespace(note_margin=margins.append)
    assert [kept.tolist() for kept in highest(run, list(scores), [3, 1, 0])] == [[0, 1, 2], [1], []]
    assert [float(m) for m in margins] == [0]  # in the first two rows the choice was between equal scores


def test_heads_may_keep_tokens_of_their_own() -> None:
    scores = torch.tensor([[[1.0, 2, 3], [3, 2, 1]], [[0, 5, 1], [4, 4, 9]]])
    run = SimpleNamespace(note_margin=lambda margin: None)
    kept = highest(run, list(scores), [[1, 2], [0, 3]])
    assert [[head.tolist() for head in layer] for layer in kept] == [[[2], [0, 1]], [[], [0, 1, 2]]]


def test_how_near_a_choice_between_layers_was() -> None:
    scores = [torch.tensor([4.0, 1.0]), torch.tensor([3.0, 2.0])]
    assert float(pooled_margin(scores, 1)) == pytest.approx((3 - 2) / 4)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("budget", [0, 1, 3, 8])
def test_layer_counts_add_up(seed: int, budget: int) -> None:
    scores = skewed_scores(seed)
    counts = pooled(scores, budget)
    assert sum(counts) == 3 * budget and max(counts) <= 8


@pytest.mark.parametrize("seed", range(20))
def test_pooled_keeps_at_least_the_score_of_any_even_allocation(seed: int) -> None:
    scores, budget = skewed_scores(seed, length=60), 20
    counts = pooled(scores, budget)
    assert 1 < min(counts) < max(counts) < 60  # no bound moves the allocation away from the pure one
    best_even = sum(float(s.topk(budget).values.sum()) for s in scores)
    kept = sum(float(s.topk(n).values.sum()) for s, n in zip(scores, counts, strict=True))
    everything = torch.cat(scores).topk(3 * budget).values.sum()
    assert kept >= best_even - 1e-6
    assert kept == pytest.approx(float(everything))


@pytest.mark.parametrize("seed", range(6))
def test_greedy_tokens_are_near_the_best_product_of_kept_mass(seed: int) -> None:
    """Theory: the loss bound falls with the product over layers of kept mass; greedy by score is near its maximum."""
    scores = [s / s.sum() for s in skewed_scores(seed, layers=2, length=5)]
    total = 4

    def mass(counts: tuple[int, ...]) -> float:
        kept = [float(s.topk(n).values.sum()) for s, n in zip(scores, counts, strict=True)]
        return float(torch.tensor(kept).prod())

    best = max(mass(c) for c in itertools.product(range(6), repeat=2) if sum(c) == total)
    assert mass(tuple(pooled(scores, total // 2))) >= (1 - 1 / torch.e) * best


def test_each_layer_keeps_the_count_that_its_own_scores_give_it(run) -> None:
    """Counts of a whole answer against the allocator on the recorded scores, layer by layer."""
    answer = run(Sample(grids=8), 30, temporal=False)
    recording, unequal = answer.trace.recording, 0
    for scores, budget, kept in zip(recording.scores, answer.trace.chunk_budget, answer.trace.kept, strict=True):
        wanted = pooled(scores, budget)
        assert kept == wanted
        unequal += wanted != wanted[::-1]
    assert unequal, "no chunk could tell layers apart"
