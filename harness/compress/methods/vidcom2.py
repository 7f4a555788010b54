"""VidCom2 (arXiv 2505.14454, code 944a17d): of every grid the tokens least like the video and like their grid.

Grids unlike the rest of the video get a little more: at most twice their share. Shapes as in `prune`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.allocation import allocate
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt
from harness.compress.prune import Pruner, counted_anew, highest_of_all, highest_per_grid, over_windows
from harness.late import F, torch

QUIRKS = {
    # Every grid's count is rounded by itself, at least 1, so that their sum misses the budget. Off: largest remainder.
    "counts_rounded_per_grid": False,
    # vLLM's variant: these counts first, then the worst of all that is kept leave, or the best of the rest come back.
    "reconciled_over_video": False,
}

WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)  # variances of the Gaussian kernels
TEMPERATURE = 0.01


@dataclass(frozen=True)
class VidCom2(Pruner):
    """See `Pruner`; published at a retention of 0.25 (also 0.15), which leaves the context out of account."""

    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS

    def keep(self, run: Prefill, grids: torch.Tensor, total: int) -> torch.Tensor:
        video, frame = run.of_video("vidcom2", lambda: typicality(grids, run.language.device))
        n = grids.shape[1]
        scales = grid_scales(video, total / video.numel())
        unlike = -(video + frame)
        if not (self.has("counts_rounded_per_grid") or self.has("reconciled_over_video")):
            return highest_per_grid(run, unlike, allocate(scales.tolist(), total, [n] * len(grids)))
        kept = highest_per_grid(run, unlike, rounded_counts(scales, n))
        return reconcile(kept, unlike.flatten(), total) if self.has("reconciled_over_video") else kept

    def ids(self, prompt: Prompt, kept: torch.Tensor) -> torch.Tensor | None:
        return counted_anew(prompt, kept)


def quiet_channels(grids: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The half [D // 2] of the channels that vary least over all tokens, ascending; grids [T, n, D]."""
    count = grids.shape[0] * grids.shape[1]
    mean = over_windows(grids, device, lambda window: window.double().sum((0, 1))[None]).sum(0) / count
    square = over_windows(grids, device, lambda window: (window.double() - mean).square().sum((0, 1))[None]).sum(0)
    return square.sort(stable=True).indices[: grids.shape[2] // 2].sort().values


def typicality(grids: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """How like the whole video, and how like its own grid, each token is: two [T, n].

    Of tokens normalised over the quiet channels: a sum of Gaussian kernels of their distance to the mean.
    """
    channels = quiet_channels(grids, device)

    def normal(window: torch.Tensor) -> torch.Tensor:
        return F.normalize(window[..., channels], dim=-1)

    count = grids.shape[0] * grids.shape[1]
    centre = over_windows(grids, device, lambda window: normal(window).sum((0, 1))[None]).sum(0) / count
    video = over_windows(grids, device, lambda window: kernel(normal(window), centre))
    frame = over_windows(grids, device, lambda window: kernel(normal(window), normal(window).mean(1, keepdim=True)))
    return video, frame


def kernel(tokens: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Sum over `WIDTHS` of exp(-|x - c|^2 / (2 width)) over the last dimension."""
    square = (tokens - centre).square().sum(-1)
    return torch.stack([torch.exp(-square / (2 * width)) for width in WIDTHS]).sum(0)


def grid_scales(video: torch.Tensor, ratio: float) -> torch.Tensor:
    """Share [T] of its tokens that each grid may keep, from how like the video its tokens [T, n] are."""
    unlike = -video.mean(1)
    weights = torch.softmax((unlike - unlike.max()) / TEMPERATURE, dim=0)
    return (ratio * (1 + weights - weights.mean())).clamp(max=1.0)


def rounded_counts(scales: torch.Tensor, n: int) -> list[int]:
    """Each grid's count by itself: its share of n rounded (half to even), at least 1."""
    return [max(1, round(scale * n)) for scale in scales.tolist()]


def reconcile(kept: torch.Tensor, scores: torch.Tensor, total: int) -> torch.Tensor:
    """`kept` [k] changed to `total` tokens: the lowest scores of it leave, or the highest of the rest come in."""
    if len(kept) > total:
        return kept[highest_of_all(None, scores[kept], total)]
    rest = torch.ones_like(scores, dtype=torch.bool)
    rest[kept] = False
    others = rest.nonzero().flatten()
    more = others[highest_of_all(None, scores[others], total - len(kept))]
    return torch.cat((kept, more)).sort().values


METHOD = VidCom2
