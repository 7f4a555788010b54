"""Do flips against a baseline exceed what was measured between two runs of the same code, or go one way only?

Videos with a flip are counted, not flips, because flips of one video come together; the rate measured earlier is known
as well as its videos allow (beta-binomial). One chance of a false alarm is shared by all tests of a check.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

ALPHA = 0.01
"""Chance of a false alarm per check."""
ALL = "all"


@dataclass(frozen=True)
class Flips:
    """Flips of one cell: per question its video, and whether it was lost or gained. ``benchmark``: whose videos."""

    benchmark: str
    videos: Sequence[Hashable]
    lost: Sequence[bool]
    gained: Sequence[bool]

    @property
    def n_videos(self) -> int:
        """Videos of the cell."""
        return len(set(self.videos))

    @property
    def net(self) -> dict[Hashable, int]:
        """Video -> answers gained minus lost; videos without a flip are absent."""
        found: dict[Hashable, int] = defaultdict(int)
        for video, lost, gained in zip(self.videos, self.lost, self.gained, strict=True):
            if lost or gained:
                found[video] += int(gained) - int(lost)
        return dict(found)


@dataclass(frozen=True)
class Noise:
    """Videos with a flip among those of two runs of the same code (cells x videos)."""

    flipped: int
    videos: int

    @property
    def text(self) -> str:
        """In a few words."""
        return f"{self.flipped} of {self.videos} videos in two runs"

    def tail(self, flipped: int, videos: int, questions: int) -> float:
        """Chance of so many flipped videos or more."""
        if not flipped:
            return 1.0
        a, b = self.flipped + 0.5, self.videos - self.flipped + 0.5
        k = np.arange(flipped, videos + 1)  # the probabilities of the beta-binomial distribution, added up
        logs = special.betaln(k + a, videos - k + b) - special.betaln(a, b)
        logs -= np.log(videos + 1) + special.betaln(videos - k + 1, k + 1)
        return float(np.exp(logs).sum())


@dataclass(frozen=True)
class KnownNoise:
    """A share of answers that flips, given by hand and taken as known; those of a video flip by themselves."""

    rate: float

    @property
    def text(self) -> str:
        """In a few words."""
        return f"rate {self.rate:.3g}"

    def tail(self, flipped: int, videos: int, questions: int) -> float:
        """Chance of so many flipped videos or more, the questions shared out evenly."""
        if not flipped:
            return 1.0
        return float(special.bdtrc(flipped - 1, videos, 1 - (1 - self.rate) ** (questions / videos)))


def gate_p(cells: Mapping[str, Flips], noise: Noise | KnownNoise) -> dict[str, float]:
    """p values of every test: ``flips NAME`` and ``worse NAME`` per cell, and of all cells together (`ALL`)."""
    found, flipped, videos, questions = {}, 0, 0, 0
    together: dict[tuple[str, Hashable], int] = defaultdict(int)
    for name, cell in cells.items():
        net = cell.net
        found[f"flips {name}"] = noise.tail(len(net), cell.n_videos, len(cell.videos))
        found[f"worse {name}"] = _worse(list(net.values()))
        flipped, videos, questions = flipped + len(net), videos + cell.n_videos, questions + len(cell.videos)
        for video, change in net.items():
            together[cell.benchmark, video] += change
    found[f"flips {ALL}"] = noise.tail(flipped, videos, questions)
    found[f"worse {ALL}"] = _worse(list(together.values()))
    return found


def gate_fails(p: Mapping[str, float], n_cells: int | None = None, alpha: float = ALPHA) -> list[str]:
    """The tests that fail: a quarter of alpha for each test of all cells, a quarter for all cells' of each kind."""
    cells = n_cells or max(1, len(p) // 2 - 1)
    return [name for name, value in p.items() if value < alpha / (4 if name.endswith(f" {ALL}") else 4 * cells)]


def _worse(net: Sequence[int]) -> float:
    """One-sided exact sign test over videos: more lost than gained against more gained than lost."""
    lost, gained = int(np.sum(np.less(net, 0))), int(np.sum(np.greater(net, 0)))
    if not lost + gained:
        return 1.0
    return float(special.bdtrc(lost - 1, lost + gained, 0.5)) if lost else 1.0
