"""V-CAST (arXiv 2603.27650, code c235ef3): grids where the video bends keep more; of each, what stands out.

Published for Qwen3-VL; it needs nothing of that family. Shapes as in `prune`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.allocation import allocate
from harness.compress.prefill import Prefill
from harness.compress.prune import Pruner, highest_per_grid, over_windows
from harness.late import F, torch

QUIRKS = {
    # What rounding down leaves goes to the grid with the largest fraction until that is full. Off: largest remainder.
    "remainder_to_one_grid": True,
}

TEMPERATURE = 0.7


@dataclass(frozen=True)
class VCast(Pruner):
    """See `Pruner`; published at a retention of 0.25 of 64 frames."""

    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS

    def keep(self, run: Prefill, grids: torch.Tensor, total: int) -> torch.Tensor:
        device = run.language.device
        bends, scores = run.of_video("v_cast", lambda: (curvature(grids, device), saliency(grids, device)))
        if self.has("remainder_to_one_grid"):
            return highest_per_grid(run, scores, counts_by_curvature(bends, total, grids.shape[1]))
        weights = torch.softmax(bends / TEMPERATURE, dim=0).tolist()
        return highest_per_grid(run, scores, allocate(weights, total, [grids.shape[1]] * len(grids)))


def curvature(grids: torch.Tensor, device: torch.device) -> torch.Tensor:
    """How sharply the path of the grids' mean features turns at each grid [T]: 1 - cosine of the two steps; ends 1."""
    path = over_windows(grids, device, lambda window: F.normalize(window.mean(1), dim=-1))
    steps = path[1:] - path[:-1]
    bends = torch.ones(len(grids), device=device)
    if len(grids) > 2:
        bends[1:-1] = 1 - F.cosine_similarity(steps[:-1], steps[1:], dim=-1)
    return bends


def saliency(grids: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Per token [T, n]: 1 - cosine with the mean of its grid, plus its norm from 0 to 1 within the grid."""

    def of_window(window: torch.Tensor) -> torch.Tensor:
        centre = F.normalize(window.mean(1, keepdim=True), dim=-1)
        unlike = 1 - (F.normalize(window, dim=-1) * centre).sum(-1)
        norms = window.norm(dim=-1)
        low, high = norms.amin(1, keepdim=True), norms.amax(1, keepdim=True)
        scores: torch.Tensor = unlike + (norms - low) / (high - low + 1e-6)
        return scores

    return over_windows(grids, device, of_window)


def counts_by_curvature(bends: torch.Tensor, total: int, n: int) -> list[int]:
    """Tokens per grid [T], as the code shares `total` of them: 1 each where that many are there, the rest by softmax.

    Rounded down and at most n; what is left over goes to the largest fraction again and again, which stays the largest
    until that grid is full.
    """
    low = 1 if total >= len(bends) else 0
    rest = total - low * len(bends)
    weights = torch.softmax(bends / TEMPERATURE, dim=0)
    shares = (weights / weights.sum() * rest).tolist()
    counts = [low + min(math.floor(share), n - low) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: (math.floor(shares[i]) - shares[i], i))
    for i in order:
        counts[i] += min(n - counts[i], total - sum(counts))
    return counts


METHOD = VCast
