"""Temporal allocators: from the video's features to a budget per chunk.

Notation: K chunks of c_i tokens, G grids of n tokens each, features [V, d] with V = G * n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from harness.compress.allocation import allocate
from harness.compress.layout import Layout
from harness.errors import UserError

# (layout, features [V, d], chunk lengths [K], device for the arithmetic) -> budget per chunk [K].
# Whole tokens per layer in `paper`; shares of the chunk in the releases.
TemporalAllocator = Callable[[Layout, torch.Tensor, Sequence[int], torch.device], list[float]]

_WINDOW = 64  # grids moved to the device at a time
_ROUNDING = 1e-6  # 1 - cos of two equal vectors in float32


def grid_distances(features: torch.Tensor, tokens_per_grid: int, device: torch.device) -> list[float]:
    """Distance [G - 1] of neighbouring grids: 1 - mean over token positions of the cosine similarity (eq. 8).

    Rounding noise below 1e-6 counts as no change.
    """
    grids = features.view(-1, tokens_per_grid, features.shape[-1])
    parts = []
    for start in range(0, len(grids) - 1, _WINDOW):
        window = grids[start : start + _WINDOW + 1].to(device, non_blocking=True).float()
        parts.append(1 - F.cosine_similarity(window[1:], window[:-1], dim=-1).mean(dim=1))
    distances = torch.cat(parts).tolist() if parts else []
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


def video_budget(layout: Layout) -> int:
    """Tokens B = C - (N - V) that the video may keep per layer on average.

    Raises:
        UserError: the text alone fills the context.
    """
    text = layout.n_prompt - layout.n_video
    if layout.context - text < 1:
        raise UserError(
            f"context={layout.context} leaves no room for the video: the text alone has {text} tokens; "
            f"use a context of at least {text + 1}"
        )
    return layout.context - text


def by_length(layout: Layout, features: torch.Tensor, lengths: Sequence[int], device: torch.device) -> list[int]:
    """Budgets in proportion to the chunks' lengths; they add up to B."""
    return allocate(lengths, video_budget(layout), lengths)


def by_distance(layout: Layout, features: torch.Tensor, lengths: Sequence[int], device: torch.device) -> list[int]:
    """Budgets in proportion to distance times length (eq. 8, 9): a chunk where more changes keeps more; sum is B."""
    n = layout.tokens_per_grid
    distances = chunk_distances(grid_distances(features, n, device), [c // n for c in lengths])
    return allocate([d * c for d, c in zip(distances, lengths, strict=True)], video_budget(layout), lengths)
