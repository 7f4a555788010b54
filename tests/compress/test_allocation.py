"""Budgets are divided exactly."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from harness.compress.allocation import allocate, largest_remainder, water_filling


@pytest.mark.parametrize("seed", range(40))
def test_counts_add_up_within_bounds(seed: int) -> None:
    draw = random.Random(seed)
    high = [draw.randint(0, 30) for _ in range(draw.randint(1, 12))]
    weights = [draw.choice((0.0, draw.random(), draw.random() * 100)) for _ in high]
    for total in {0, 1, len(high) - 1, len(high), sum(high) // 2, sum(high) - 1} & set(range(sum(high))) | {sum(high)}:
        counts = allocate(weights, total, high)
        assert sum(counts) == total
        low = 1 if total >= len(high) else 0
        assert all(min(low, most) <= count <= most for count, most in zip(counts, high, strict=True))


@pytest.mark.parametrize("seed", range(40))
def test_one_lambda_explains_all_shares(seed: int) -> None:
    draw = random.Random(seed)
    high = [draw.randint(2, 30) for _ in range(8)]
    weights = [draw.random() + 0.01 for _ in high]
    total = draw.randint(len(high), sum(high) - 1)
    shares = water_filling(weights, total, 1, high)
    assert sum(shares) == total
    between = [s / Fraction(w) for s, w, h in zip(shares, weights, high, strict=True) if 1 < s < h]
    assert len(set(between)) <= 1
    if between:
        assert all(between[0] * Fraction(w) <= 1 for s, w in zip(shares, weights, strict=True) if s == 1)
        assert all(between[0] * Fraction(w) >= h for s, w, h in zip(shares, weights, high, strict=True) if s == h)


def test_equal_weights_leave_the_rest_to_the_first() -> None:
    assert allocate([24] * 5, 78, [24] * 5) == [16, 16, 16, 15, 15]


def test_zero_weights_stand_for_the_lengths() -> None:
    assert allocate([0.0, 0.0], 9, [12, 6]) == [6, 3]


def test_entries_of_weight_zero_fill_last_and_by_length() -> None:
    assert allocate([0.0, 1.0, 0.0], 22, [8, 10, 16]) == [4, 10, 8]


def test_fewer_tokens_than_entries_may_leave_some_without() -> None:
    assert allocate([1.0, 5.0, 1.0], 2, [4, 4, 4]) == [0, 2, 0]


@pytest.mark.parametrize("total", [-1, 13])
def test_an_impossible_total_is_an_error(total: int) -> None:
    with pytest.raises(ValueError, match="cannot divide"):
        allocate([1.0, 1.0], total, [6, 6])


def test_largest_remainder_breaks_ties_by_index() -> None:
    assert largest_remainder([Fraction(3, 2)] * 4, 6) == [2, 2, 1, 1]
