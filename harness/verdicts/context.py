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
        """Score of a cell.

        Args:
            metric: of its benchmark; the published one when None.
            parser: of the answers; the protocol's own when None.

        Returns:
            None when no scored question counts in the metric.
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

        Given by ``report.flip_rate``; else measured between cells alike but for their numerics, whatever their model,
        each against the first of its set; else assumed.
        """
        if self.settings.flip_rate is not None:
            return given(self.settings.flip_rate)
        real = tuple(each for each in self.cells if each.benchmark == cell.benchmark and not each.toy)
        return self.once(("flips", real, metric, parser), lambda: self._flips(real, metric, parser))

    def _flips(self, cells: Sequence[CellResult], metric: str, parser: str) -> FlipRate:
        sets = [found.cells for found in replicates(cells) if found.kind == "numerics"]
        pairs = [self.runs(first, other, metric, parser) for first, *others in sets for other in others]
        found = [pair for pair in pairs if pair is not None]
        return flip_rate(found) if found else given(None)

    def runs(self, a: CellResult, b: CellResult, metric: str, parser: str | None = None) -> Runs | None:
        """What both cells scored, question by question; None when they share no question."""
        correct = a.correct(parser), b.correct(parser)
        first, second = (
            sample(cell.asked, a.benchmark, metric, own, places)
            for cell, own, places in zip((a, b), correct, shared(a.asked, b.asked, *correct), strict=True)
        )
        if not len(first.values) or not np.array_equal(first.units, second.units):
            return None
        return Runs(first.values, second.values, first.videos, first.groups)

    def baseline_of(self, cell: CellResult) -> BaselineCell | None:
        """The committed answers of the cell's setting, for a toy cell; None where there are none."""
        found = (baseline.find(cell) for baseline in self.baselines if cell.toy)
        return next((stored for stored in found if stored is not None), None)

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
        taken = sample(cell.asked, cell.benchmark, metric, correct, np.arange(cell.n))
        if not len(taken.values):
            return None
        return score(taken.values, taken.videos, taken.groups)

    def _difference(self, a: CellResult, b: CellResult, metric: str, parser: str | None) -> Difference | None:
        found = self.runs(a, b, metric, parser)
        return None if found is None else difference(found.a, found.b, found.clusters, found.groups)
