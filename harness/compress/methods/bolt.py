"""BOLT (arXiv 2503.21483, code 8a9ba45): frames as often as their score says, by inverse transform sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.select import FrameSelector, filled_up, scaled
from harness.late import torch
from harness.settings.rules import setting

QUIRKS = {
    # A frame of a high score is shown several times. Off: every frame once, filled up with the best of the others.
    "repeats": False,
}


@dataclass(frozen=True)
class BOLT(FrameSelector):
    """See `FrameSelector`; published with 8, 16 or 32 frames out of one per second.

    Attributes:
        power: of the scores; tuned per benchmark: 3 for Video-MME and MLVU, 2.5 for LongVideoBench.
    """

    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS

    power: float = setting(3.0, above=0, most=100)

    def choose(self, scores: torch.Tensor, count: int) -> torch.Tensor:
        values = scaled(scores)
        chosen = inverse_transform(values, count, self.power)
        return chosen if self.has("repeats") else filled_up(chosen, values, count)


def inverse_transform(scores: torch.Tensor, count: int, power: float) -> torch.Tensor:
    """Frames [count] ascending, with repeats, of scores [c] from 0 to 1: where their summed power passes points."""
    weights = scores.double() ** power
    summed = torch.cumsum(weights / weights.sum(), dim=0)
    points = torch.linspace(1 / count, 1 - 1 / count, count, dtype=torch.float64)
    return torch.searchsorted(summed, points).clamp(max=len(scores) - 1)


METHOD = BOLT
