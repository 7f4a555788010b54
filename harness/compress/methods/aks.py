"""AKS (arXiv 2502.21271, code 4667501): a video is halved again and again, and every part shows its best frames."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from harness.compress.select import FrameSelector, filled_up, scaled
from harness.late import torch
from harness.settings.rules import setting

QUIRKS = {
    # A part's share is rounded down, so of many parts none shows a frame. Off: parts are halved no further than every
    # one still has a frame, and what rounding leaves goes to the best of the frames that are left.
    "shares_rounded_down": False,
}


@dataclass(frozen=True)
class AKS(FrameSelector):
    """See `FrameSelector`; published with 32 or 64 frames out of one per second.

    Attributes:
        peak: a part is not halved whose best frames are above its mean by more than this (t1 in the code).
        spread: and whose scores spread by more than this (t2; -100 is always so).
        depth: how often a part is halved at most.
    """

    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS

    peak: float = 0.8
    spread: float = -100.0
    depth: int = setting(5, least=0, most=20)

    def choose(self, scores: torch.Tensor, count: int) -> torch.Tensor:
        values = scaled(scores)
        if self.has("shares_rounded_down"):
            return adaptive(values, count, self.peak, self.spread, self.depth)
        depth = min(self.depth, int(math.log2(count)))
        return filled_up(adaptive(values, count, self.peak, self.spread, depth), values, count)


def adaptive(scores: torch.Tensor, count: int, peak: float, spread: float, depth: int) -> torch.Tensor:
    """Frames [m <= count] ascending of scores [c] from 0 to 1: a part of depth k shows its int(count / 2^k) best."""
    values, chosen = scores.numpy(), []
    parts = [(0, len(values), 0)]
    while parts:
        start, stop, level = parts.pop()
        if start == stop:
            continue
        part = values[start:stop]
        best = heapq.nlargest(count, range(len(part)), part.__getitem__)
        stands_out = np.mean(part[best]) - np.mean(part) > peak and np.std(part) > spread
        if stands_out or level >= depth:
            chosen += [start + i for i in best[: int(count / 2**level)]]
        else:
            middle = start + len(part) // 2
            parts += [(start, middle, level + 1), (middle, stop, level + 1)]
    return torch.tensor(sorted(chosen), dtype=torch.int64)


METHOD = AKS
