"""What a report is made from, in one place: cells, published tables, baselines, and how to judge them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.benchmarks.benchmark import benchmark as benchmark_of
from harness.benchmarks.metrics import Metric, group_name, values
from harness.errors import UserError
from harness.report.baseline import Baseline, BaselineCell
from harness.report.cells import FAILED, CellResult
from harness.report.config import ReportConfig
from harness.report.expected import Published, PublishedTable
from harness.report.statistics import Difference, Estimate, difference, score

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Context:
    """The evidence of a report. Estimates are made once each."""

    cells: Sequence[CellResult]
    tables: Sequence[PublishedTable] = ()
    baselines: Sequence[Baseline] = ()
    settings: ReportConfig = field(default_factory=ReportConfig)
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False)

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
        return self._once(key, lambda: self._score(cell, name, cell.answered(parser)))

    def best_case(self, cell: CellResult, metric: str, parser: str) -> Estimate | None:
        """The score if every failed answer had been right."""
        rows = cell.answered(parser).copy()
        rows.loc[rows["status"] == FAILED, "correct"] = 1.0
        return self._score(cell, metric, rows)

    def paired(
        self, a: CellResult, b: CellResult, metric: str | None = None, parser: str | None = None
    ) -> Difference | None:
        """Difference a - b on the questions scored in both; None when they share none. Arguments as for `estimate`."""
        name = metric or main_metric(a.benchmark)
        return self._once(("paired", a, b, name, parser), lambda: self._difference(a, b, name, parser))

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

    def _score(self, cell: CellResult, metric: str, rows: pd.DataFrame) -> Estimate | None:
        taken = sample(cell.benchmark, metric, rows)
        if not len(taken.values):
            return None
        return score(taken.values, taken.videos, taken.groups, **self._draws)

    def _difference(self, a: CellResult, b: CellResult, metric: str, parser: str | None) -> Difference | None:
        both = [cell.answered(parser) for cell in (a, b)]
        shared = set(both[0]["question_id"]) & set(both[1]["question_id"])
        first, second = (
            sample(a.benchmark, metric, rows[rows["question_id"].isin(shared)].sort_values("question_id"))
            for rows in both
        )
        if not len(first.values) or not np.array_equal(first.units, second.units):
            return None
        return difference(first.values, second.values, first.videos, first.groups, **self._draws)

    @property
    def _draws(self) -> dict[str, int]:
        return {"resamples": self.settings.resamples, "seed": self.settings.seed}

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found


@dataclass(frozen=True)
class Sample:
    """What a metric averages: unit ids [n], values [n] (0 or 1), videos [n], types [n] (None: one plain mean)."""

    units: NDArray[np.object_]
    values: NDArray[np.float64]
    videos: NDArray[np.object_]
    groups: NDArray[np.object_] | None


def main_metric(benchmark: str) -> str:
    """The metric of the benchmark's published table."""
    return benchmark_of(benchmark).metrics.main


def sample(benchmark: str, metric: str, rows: pd.DataFrame) -> Sample:
    """The questions in which ``metric`` is a mean, or a mean of means.

    Args:
        benchmark: its name.
        metric: ``overall``, ``m_avg``, or a group's metric such as ``duration_long``.
        rows: scored questions, see ``CellResult.answered``.

    Returns:
        The sample; empty when no question counts in the metric.

    Raises:
        UserError: the benchmark has no such metric.
    """
    spec = benchmark_of(benchmark).metrics
    if metric in spec.whole:
        return _whole(spec.whole[metric], rows)
    prefix = next((p for p in sorted(spec.groups, key=len, reverse=True) if metric.startswith(f"{p}_")), None)
    if prefix is None:
        known = [*spec.whole, *(f"{p}_<{tag}>" for p, tag in spec.groups.items())]
        raise UserError(f"metric {metric!r} is not one of {benchmark}; known: {', '.join(known)}")
    tag = spec.groups[prefix]
    inside = [any(group_name(prefix, v) == metric for v in values(tags.get(tag))) for tags in rows["tags"]]
    return _whole(spec.within, rows[np.array(inside, bool)])


def _whole(metric: Metric, rows: pd.DataFrame) -> Sample:
    table = rows[["question_id", "video_id", "correct"]].astype({"correct": float}).reset_index(drop=True)
    tags = list(rows["tags"])
    table["unit"] = [t.get(metric.unit) for t in tags] if metric.unit else table["question_id"]
    table["type"] = [next(iter(values(t.get(metric.mean_of))), None) for t in tags] if metric.mean_of else ""
    table = table[table["type"].notna()]  # a question without a type counts in no type's mean
    units = table.groupby("unit", sort=bool(metric.unit)).agg({"correct": "min", "video_id": "first", "type": "first"})
    types = units["type"].to_numpy(object) if metric.mean_of else None
    videos = units["video_id"].to_numpy(object)
    return Sample(units.index.to_numpy(object), units["correct"].to_numpy(float), videos, types)
