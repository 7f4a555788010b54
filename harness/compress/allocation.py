"""Dividing a budget of tokens exactly: in whole numbers throughout, because fractions are slow to compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


def water_filling(weights: Sequence[float], total: float, low: int, high: Sequence[int]) -> list[Fraction]:
    """x = clip(lambda * weight, low, high) with sum(x) = total, solved exactly.

    Entries of weight zero get more than `low` only when all others are full; they then share the rest in proportion
    to `high`. Weights that are all zero stand for weights = high.

    Raises:
        ValueError: a total that these bounds do not allow.
    """
    shares, whole = _filled(weights, total, low, high)
    return [Fraction(x, whole) for x in shares]


def largest_remainder(shares: Sequence[Fraction], total: int) -> list[int]:
    """Whole numbers that add up to `total`: each share rounded down, then one more for the largest remainders.

    Ties go to the lower index.
    """
    whole = math.lcm(*(x.denominator for x in shares))
    return _rounded([x.numerator * (whole // x.denominator) for x in shares], whole, total)


def allocate(weights: Sequence[float], total: int, high: Sequence[int]) -> list[int]:
    """Whole tokens per entry in proportion to `weights`: at most `high`, at least 1 where the total allows it.

    The counts add up to `total` exactly. Raises ValueError when `total` is negative or more than sum(high).
    """
    low = 1 if total >= len(high) else 0
    return _rounded(*_filled(weights, total, low, high), total)


def _filled(weights: Sequence[float], total: float, low: int, high: Sequence[int]) -> tuple[list[int], int]:
    """The shares of `water_filling` as numerators, and their common denominator."""
    w, (t, d) = _in_proportion(weights), Fraction(total).as_integer_ratio()
    if not any(w):
        w = list(high)
    if len(w) != len(high) or not low * len(w) * d <= t <= sum(high) * d:
        bounds = f"{len(w)} entries of at least {low} and at most {list(high)}"
        raise ValueError(f"cannot divide {float(total):g} over {bounds}")
    least = [min(low, h) for h in high]
    free = [i for i, x in enumerate(w) if x]
    fixed = [h if x else a for x, a, h in zip(w, least, high, strict=True)]
    if (rest := t - d * sum(fixed)) >= 0:  # every weighted entry is full
        empty = [h - x for x, h in zip(fixed, high, strict=True)]
        whole = sum(empty) or 1
        return [x * d * whole + rest * e for x, e in zip(fixed, empty, strict=True)], d * whole
    fixed = [0 if x else a for x, a in zip(w, least, strict=True)]
    while True:
        # The free ones in proportion. Of those out of bounds, the side that is further out stays there in the end.
        p, q = t - d * sum(fixed), d * sum(w[i] for i in free)
        over = {i for i in free if w[i] * p > high[i] * q}
        under = {i for i in free if w[i] * p < least[i] * q}
        if not over and not under:
            break
        excess = sum(w[i] * p - high[i] * q for i in over)
        lack = sum(least[i] * q - w[i] * p for i in under)
        for i in over if excess >= lack else ():
            fixed[i] = high[i]
        for i in under if lack >= excess else ():
            fixed[i] = least[i]
        done = (over if excess >= lack else set()) | (under if lack >= excess else set())
        free = [i for i in free if i not in done]
        if not free:
            p, q = 0, d
            break
    shares = [x * q for x in fixed]
    for i in free:
        shares[i] = w[i] * p
    return shares, q


def _rounded(shares: Sequence[int], whole: int, total: int) -> list[int]:
    counts, rests = [x // whole for x in shares], [x % whole for x in shares]
    order = sorted(range(len(shares)), key=lambda i: (-rests[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _in_proportion(weights: Sequence[float]) -> list[int]:
    """Whole numbers in exactly the proportion of the weights."""
    ratios = [x.as_integer_ratio() for x in weights]
    whole = math.lcm(*(denominator for _, denominator in ratios))
    return [numerator * (whole // denominator) for numerator, denominator in ratios]
