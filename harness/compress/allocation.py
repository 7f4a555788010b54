"""Dividing a budget of tokens exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


def water_filling(weights: Sequence[float], total: float, low: int, high: Sequence[int]) -> list[Fraction]:
    """x = clip(lambda * weight, low, high) with sum(x) = total, solved exactly.

    Entries of weight zero get more than `low` only when all others are full; they then share the rest in proportion
    to `high`. Weights that are all zero stand for weights = high.
    """
    w, exact = _in_proportion(weights), Fraction(total)
    if not any(w):
        w = list(high)
    if len(w) != len(high) or not low * len(w) <= exact <= sum(high):
        bounds = f"{len(w)} entries of at least {low} and at most {list(high)}"
        raise ValueError(f"cannot divide {float(exact):g} over {bounds}")

    def filled(scale: Fraction) -> Fraction:
        p, q = scale.numerator, scale.denominator
        return Fraction(sum(min(max(p * x, low * q), h * q) for x, h in zip(w, high, strict=True)), q)

    # The sum is piecewise linear in lambda. Find the last breakpoint that does not exceed the total, then solve the
    # linear piece behind it.
    pairs = [(x, h) for x, h in zip(w, high, strict=True) if x]
    breaks = sorted({Fraction(0)} | {Fraction(bound, x) for x, h in pairs for bound in (low, h)})
    first, last = 0, len(breaks) - 1
    while first < last:
        middle = (first + last + 1) // 2
        first, last = (middle, last) if filled(breaks[middle]) <= exact else (first, middle - 1)
    scale = breaks[first]
    slope = sum(x for x, h in zip(w, high, strict=True) if low <= scale * x < h)
    rest = exact - filled(scale)
    if rest and not slope:  # every weighted entry is full
        empty = [0 if x else h - low for x, h in zip(w, high, strict=True)]
        return [
            _clip(scale * x, low, h) if x else low + rest * Fraction(e, sum(empty))
            for x, h, e in zip(w, high, empty, strict=True)
        ]
    scale += rest / slope if rest else 0
    return [_clip(scale * x, low, h) for x, h in zip(w, high, strict=True)]


def largest_remainder(shares: Sequence[Fraction], total: int) -> list[int]:
    """Whole numbers that add up to `total`: each share rounded down, then one more for the largest remainders.

    Ties go to the lower index.
    """
    counts = [x.numerator // x.denominator for x in shares]
    order = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


def allocate(weights: Sequence[float], total: int, high: Sequence[int]) -> list[int]:
    """Whole tokens per entry in proportion to `weights`: at most `high`, at least 1 where the total allows it.

    The counts add up to `total` exactly. Raises ValueError when `total` is negative or more than sum(high).
    """
    low = 1 if total >= len(high) else 0
    return largest_remainder(water_filling(weights, total, low, high), total)


def _in_proportion(weights: Sequence[float]) -> list[int]:
    """Whole numbers in exactly the proportion of the weights: much faster to add than fractions."""
    exact = [Fraction(x) for x in weights]
    denominator = math.lcm(*(x.denominator for x in exact))
    return [x.numerator * (denominator // x.denominator) for x in exact]


def _clip(x: Fraction, low: int, high: int) -> Fraction:
    return min(max(x, Fraction(low)), Fraction(high))
