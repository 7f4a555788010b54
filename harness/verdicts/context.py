"""What a report is made from, in one place: cells, published tables, baselines, and how to judge them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.evidence.cells import FAILED, CellResult, Once
from harness.evidence.loading import replicates
from harness.evidence.statistics import Difference, Estimate, difference, main_metric, sample, score, shared
from harness.gate.baseline import Baseline, BaselineCell
from harness.settings.groups import ReportConfig
from harness.verdicts.expected import Published, PublishedTable
from harness.verdicts.noise import FlipRate, Runs, flip_rate, given


@dataclass(frozen=True, eq=False)
class Context(Once):
    """The evidence of a report. Estimates are made once each."""

    cells: Sequence[CellResult]
    tables: Sequence[PublishedTable] = ()
    baselines: Sequence[Baseline] = ()
    settings: ReportConfig = field(default_factory=ReportConfig)

    def estimate(self, cell: CellResult, metric: str | None = None, parser: str | None = None) -> Estimate | None:
        """Score of a cell; None when no scored question counts in the metric.

        Without `metric` that of the published table, without `parser` that of the protocol.
        """
        name = metric or main_metric(cell.benchmark)
        key = ("estimate", cell, name, parser or cell.parser)
        return self.once(key, lambda: self._score(cell, name, cell.correct(parser)))

    def best_case(self, cell: CellResult, metric: str, parser: str) -> Estimate | None:
        """The score if every failed answer had been right."""
        correct = cell.correct(parser)
        failed = np.array(cell.statuses, object) == FAILED
        return self._score(cell, metric, np.where(failed & ~np.isnan(correct), 1.0, correct))

    def paired(
        self, a: CellResult, b: CellResult, metric: str | None = None, parser: str | None = None
    ) -> Difference | None:
        """Difference a - b on the questions scored in both; None when they share none. Arguments as for `estimate`."""
        name = metric or main_metric(a.benchmark)
        return self.once(("paired", a, b, name, parser), lambda: self._difference(a, b, name, parser))

    def flips(self, cell: CellResult, metric: str, parser: str) -> FlipRate:
        """How many answers of the cell's benchmark flip between two runs.

        Set by ``report.flip_rate``; else measured between cells alike but for their numerics, whatever their model,
        each against the first of its set; else assumed.
        """
        if self.settings.flip_rate is not None:
            return given(self.settings.flip_rate)
        real = tuple(other for other in self.cells if other.benchmark == cell.benchmark and not other.toy)

        def measured() -> FlipRate:
            sets = [alike.cells for alike in replicates(real) if alike.kind == "numerics"]
            pairs = (self.runs(first, other, metric, parser) for first, *others in sets for other in others)
            known = [pair for pair in pairs if pair is not None]
            return flip_rate(known) if known else given(None)

        return self.once(("flips", real, metric, parser), measured)

    def runs(self, a: CellResult, b: CellResult, metric: str, parser: str | None = None) -> Runs | None:
        """What both cells scored, question by question; None when they share no question."""
        right_a, right_b = a.correct(parser), b.correct(parser)
        places_a, places_b = shared(a.asked, b.asked, right_a, right_b)
        first = sample(a.asked, a.benchmark, metric, right_a, places_a)
        second = sample(b.asked, a.benchmark, metric, right_b, places_b)
        if not len(first.values) or not np.array_equal(first.units, second.units):
            return None
        return Runs(first.values, second.values, first.videos, first.groups)

    def baseline_of(self, cell: CellResult) -> BaselineCell | None:
        """The committed answers of the cell's setting, for a toy cell; None where there are none."""
        committed = (baseline.find(cell) for baseline in self.baselines if cell.toy)
        return next((stored for stored in committed if stored is not None), None)

    def published(self, cell: CellResult) -> list[Published]:
        """Published numbers of the cell's main metric at exactly its setting; none for a toy cell."""
        return [number for number in self.candidates(cell) if not number.differences(cell)]

    def candidates(self, cell: CellResult) -> list[Published]:
        """Published numbers of the cell's model, benchmark and main metric, whatever their setting."""
        if cell.toy:
            return []
        numbers = [number for table in self.tables for number in table.numbers.values() if not number.quoted]
        asked = (cell.benchmark, main_metric(cell.benchmark), cell.setting["model"])
        return [n for n in numbers if (n.task, n.metric, n.setting.get("model")) == asked]

    def _score(self, cell: CellResult, metric: str, correct: NDArray[np.float64]) -> Estimate | None:
        counted = sample(cell.asked, cell.benchmark, metric, correct, np.arange(cell.n))
        return score(counted.values, counted.videos, counted.groups) if len(counted.values) else None

    def _difference(self, a: CellResult, b: CellResult, metric: str, parser: str | None) -> Difference | None:
        runs = self.runs(a, b, metric, parser)
        return None if runs is None else difference(runs.a, runs.b, runs.clusters, runs.groups)
