"""Layer allocators: from the scores of all layers and a chunk's budget to a number of kept tokens per layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from harness.compress.allocation import allocate

# (scores: one vector [c] per layer, budget of the chunk, L) -> tokens kept per layer [L].
LayerAllocator = Callable[[Sequence[torch.Tensor], float, int], list[int]]

MIN_WEIGHT = 0.01  # share of the hits below which a layer's weight does not fall (eq. 16)


def top_hits(scores: Sequence[torch.Tensor], top: int) -> list[int]:
    """How many of the `top` largest scores of all layers lie in each layer [L]; ties by lower layer, then index."""
    device = scores[0].device
    pooled = torch.stack([s.to(device) for s in scores])  # [L, c]: small, even when the layers are on many devices
    least = pooled.flatten().topk(top, sorted=False).values.min()
    above, equal = torch.stack(((pooled > least).sum(dim=1), (pooled == least).sum(dim=1))).tolist()
    rest = top - sum(above)
    before = itertools.accumulate(equal, initial=0)  # hits among the equal scores of lower layers
    return [more + min(same, max(rest - b, 0)) for more, same, b in zip(above, equal, before, strict=False)]


def even(scores: Sequence[torch.Tensor], budget: float, num_layers: int) -> list[int]:
    """The same number of tokens in every layer."""
    return [int(budget)] * num_layers


def pooled(scores: Sequence[torch.Tensor], budget: float, num_layers: int) -> list[int]:
    """Layers share L * budget in proportion to their hits among the top L * budget scores (eq. 11-16)."""
    total, length = num_layers * int(budget), scores[0].shape[0]
    if total == 0:
        return [0] * num_layers
    hits = top_hits(scores, total)
    return allocate([max(h / sum(hits), MIN_WEIGHT) for h in hits], total, [length] * num_layers)
