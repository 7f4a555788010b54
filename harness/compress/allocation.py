"""Dividing a budget of tokens exactly: in whole numbers throughout, because fractions are slow to compare."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

from harness.compress.scorers import no_number
from harness.errors import QuestionError
from harness.late import F, torch


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


MIN_WEIGHT = 0.01  # share of the hits below which a layer's weight does not fall (eq. 16)


def top_hits(scores: Sequence[torch.Tensor], top: int) -> list[int]:
    """How many of the `top` largest scores of all layers lie in each layer [L]; ties by lower layer, then index."""
    device = scores[0].device
    pooled = torch.stack([s.to(device) for s in scores])  # small, even when the layers are on many devices
    return top_hits_of_each(pooled[None], top)[0]


def top_hits_of_each(pools: torch.Tensor, top: int) -> list[list[int]]:
    """How many of the `top` largest of each pool [p, r, c] lie in each of its rows [p][r]; ties by row, then index."""
    least = pools.flatten(1).topk(top, sorted=False).values.amin(1)[:, None, None]
    counted = torch.stack(((pools > least).sum(-1), (pools == least).sum(-1))).tolist()
    found = []
    for above, equal in zip(*counted, strict=True):
        rest = top - sum(above)
        before = itertools.accumulate(equal, initial=0)  # hits among the equal scores of lower rows
        found.append([more + min(same, max(rest - b, 0)) for more, same, b in zip(above, equal, before, strict=False)])
    return found


def pooled(scores: Sequence[torch.Tensor], budget: int) -> list[int]:
    """Layers share L * budget in proportion to their hits among the top L * budget scores (eq. 11-16).

    Raises:
        QuestionError: a score that is not a number.
    """
    num_layers, length = len(scores), scores[0].shape[0]
    total = num_layers * budget
    if total == 0:
        return [0] * num_layers
    hits = top_hits(scores, total)
    if not sum(hits):
        raise no_number("scores of a chunk")
    return allocate([max(h / sum(hits), MIN_WEIGHT) for h in hits], total, [length] * num_layers)


def pooled_margin(scores: Sequence[torch.Tensor], budget: int) -> torch.Tensor:
    """How near the choice of the top L * budget scores was: the gap [] behind the last one over the largest score."""
    flat = torch.cat([s.to(scores[0].device) for s in scores])
    top = len(scores) * budget
    if not 0 < top < len(flat):
        return torch.tensor(torch.inf)
    best = flat.topk(top + 1).values
    return (best[-2] - best[-1]) / best[0].abs().clamp_min(torch.finfo(flat.dtype).tiny)


_WINDOW = 64  # grids moved to the device at a time
_ROUNDING = 1e-6  # 1 - cos of two equal vectors in float32


def grid_distances(features: torch.Tensor, tokens_per_grid: int, device: torch.device) -> list[float]:
    """Distance [G - 1] of neighbouring grids: 1 - mean over token positions of the cosine similarity (eq. 8).

    Rounding noise below 1e-6 counts as no change.

    Raises:
        QuestionError: a feature that is not a number.
    """
    grids = features.view(-1, tokens_per_grid, features.shape[-1])
    parts = []
    for start in range(0, len(grids) - 1, _WINDOW):
        window = grids[start : start + _WINDOW + 1].to(device, non_blocking=True).float()
        parts.append(1 - F.cosine_similarity(window[1:], window[:-1], dim=-1).mean(dim=1))
    distances = torch.cat(parts).tolist() if parts else []
    if not all(map(math.isfinite, distances)):
        bad = next(i for i, d in enumerate(distances) if not math.isfinite(d))
        raise QuestionError(
            f"features of the video are not all numbers (between grids {bad} and {bad + 1}): the vision tower "
            "overflows in this number format; set model.dtype=float32, or check the weights with "
            "python -m harness doctor"
        )
    return [d if d > _ROUNDING else 0.0 for d in distances]


def chunk_distances(distances: Sequence[float], grids_per_chunk: Sequence[int]) -> list[float]:
    """Mean distance of the grid pairs inside each chunk (eq. 9).

    A chunk of one grid takes its pair with the grid before; if there is none, 1.
    """
    result, start = [], 0
    for count in grids_per_chunk:
        pairs = distances[start : start + count - 1] if count > 1 else distances[max(start - 1, 0) : start]
        result.append(sum(pairs) / len(pairs) if pairs else 1.0)
        start += count
    return result


def by_distance(distances: Sequence[float], tokens_per_grid: int, lengths: Sequence[int], total: int) -> list[int]:
    """Budgets [K] in proportion to distance times length (eq. 8, 9): a chunk where more changes keeps more.

    Args:
        distances: of neighbouring grids [G - 1].
        tokens_per_grid: n, the same for all grids.
        lengths: of the chunks, in tokens [K].
        total: what the budgets add up to.
    """
    per_chunk = chunk_distances(distances, [c // tokens_per_grid for c in lengths])
    return allocate([d * c for d, c in zip(per_chunk, lengths, strict=True)], total, lengths)
