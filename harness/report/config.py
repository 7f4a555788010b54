"""Settings of the reporter and of the regression gate. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.setting import setting


@dataclass
class ReportConfig:
    """How scores are judged and where the report goes; nothing here can change an answer.

    Margins are in points (percent accuracy). A published value is ``reproduced`` when a rerun of it would lie within
    ``margin`` of ours with ``confidence``; a claim of no effect holds when the effect lies within ``neutral_margin`` of
    zero. ``flip_rate`` is the largest share of answers that turns right or wrong between two runs that should agree;
    null measures it on replicates in the store, else assumes 0.05.
    """

    margin: float = setting(1.0, least=0, most=100)
    flip_rate: float | None = setting(None, above=0, most=1)
    neutral_margin: float = setting(1.0, least=0, most=100)
    confidence: float = setting(0.95, above=0, below=1)
    power: float = setting(0.8, above=0, below=1)
    cells: list[str] = field(default_factory=list)
    """Name or id patterns (``*`` allowed) of the cells to show; empty shows every cell under results/runs."""
    output: str | None = None
    """Folder of the report; null for ``report`` in the results folder."""
    expected: str = "results/expected"
    baselines: str = "results/baselines"
    html: bool = True
    cost: str = setting("all", words=("all", "slots", "gflop", "seconds", "memory"))
    """What the figures of accuracy against cost show; seconds and memory only of cells answered on one machine."""
    explorer: bool = True
    """Whether ``report.html`` comes with the pages of every answer."""

    def folder(self, results: str) -> Path:
        """Where the report and the gate write."""
        return Path(self.output) if self.output else Path(results) / "report"


@dataclass
class CheckConfig:
    """The regression gate: compare with a stored baseline, or write a new one."""

    baseline: str | None = None
    update_baseline: bool = False
    exact: bool | None = None
    flip_rate: float | None = setting(None, least=0, most=1)


@dataclass
class CompareConfig:
    """Two results folders against each other, for the ``compare`` verb."""

    folders: list[str] = field(default_factory=list)
    exact: bool = True
    """Every answer has to be the same, ties of tokens aside; else only scores, within noise."""
    limit: int = setting(20, least=0)
    """Most flips to print and to list in the Markdown file; the JSON file has all."""
    output: str | None = None
    """Folder of the two files; null for ``compare`` in the results folder."""
