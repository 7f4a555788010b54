"""From the scores of all layers and a chunk's budget to a number of kept tokens per layer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from harness.compress.allocation import allocate
from harness.compress.scorers import no_number
from harness.late import torch

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
