"""From the video's features to a budget per chunk.

Notation: K chunks of c_i tokens, G grids of n tokens each, features [V, d] with V = G * n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.compress.allocation import allocate
from harness.errors import QuestionError
from harness.late import F, torch

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
