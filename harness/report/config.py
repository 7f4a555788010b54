"""Settings of the reporter: margins, confidence, and where its files lie. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ReportConfig:
    """How scores are judged and where the report goes; nothing here can change an answer.

    Margins are in points (percent accuracy). A published value is ``reproduced`` when it lies within ``margin`` of
    ours with ``confidence``; a claim of no effect holds when the effect lies within ``neutral_margin`` of zero.
    """

    margin: float = 3.0
    neutral_margin: float = 1.0
    confidence: float = 0.95
    power: float = 0.8
    resamples: int = 4000
    seed: int = 0
    cells: list[str] = field(default_factory=list)
    """Name or id patterns (``*`` allowed) of the cells to show; empty shows every cell under results/runs."""
    output: str = "results/report"
    expected: str = "results/expected"
    baselines: str = "results/baselines"
    html: bool = True
