"""What a report is made from, in one place: cells, published tables, baselines, and how to judge them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.benchmarks.metrics import BENCHMARKS, accuracy, circular_accuracy, group_name, macro_accuracy
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
    return BENCHMARKS[benchmark].main


def sample(benchmark: str, metric: str, rows: pd.DataFrame) -> Sample:
    """The questions in which ``metric`` is a mean, or a mean of means.

    Args:
        benchmark: a key of ``harness.benchmarks.metrics.BENCHMARKS``.
        metric: ``overall``, ``m_avg``, or a group's metric such as ``duration_long``.
        rows: scored questions, see ``CellResult.answered``.

    Returns:
        The sample; empty when no question counts in the metric.

    Raises:
        UserError: the benchmark has no such metric.
    """
    spec = BENCHMARKS[benchmark]
    if metric in spec.whole:
        return _whole(spec.whole[metric], rows, metric)
    prefix = next((p for p in sorted(spec.by, key=len, reverse=True) if metric.startswith(f"{p}_")), None)
    if prefix is None:
        known = [*spec.whole, *(f"{p}_<{tag}>" for p, tag in spec.by.items())]
        raise UserError(f"metric {metric!r} is not one of {benchmark}; known: {', '.join(known)}")
    tag = spec.by[prefix]
    inside = [any(group_name(prefix, str(v)) == metric for v in _listed(tags.get(tag))) for tags in rows["tags"]]
    return _whole(spec.within, rows[np.array(inside, bool)], metric)


def _whole(aggregate: Any, rows: pd.DataFrame, metric: str) -> Sample:
    tags = list(rows["tags"])
    units, videos = rows["question_id"].to_numpy(object), rows["video_id"].to_numpy(object)
    values = rows["correct"].to_numpy(float)
    if aggregate is accuracy:
        return Sample(units, values, videos, None)
    if isinstance(aggregate, partial) and aggregate.func is macro_accuracy:
        tag = aggregate.keywords["tag"]
        typed = np.array([tag in t for t in tags], bool)  # a question without a type counts in no type's mean
        groups = np.array([str(t.get(tag)) for t in tags], object)
        return Sample(units[typed], values[typed], videos[typed], groups[typed])
    if aggregate is circular_accuracy:
        table = pd.DataFrame({"unit": [f"{t['type']}/{t['sample']}" for t in tags], "value": values, "video": videos})
        table["type"] = [str(t["type"]) for t in tags]
        tries = table.groupby("unit").agg({"value": "min", "video": "first", "type": "first"})
        units, videos = tries.index.to_numpy(object), tries["video"].to_numpy(object)
        return Sample(units, tries["value"].to_numpy(float), videos, tries["type"].to_numpy(object))
    raise UserError(f"metric {metric!r} is aggregated by {aggregate}, whose uncertainty the report cannot compute")


def _listed(value: Any) -> Sequence[Any]:
    if value is None:
        return []
    return value if isinstance(value, list | tuple) else [value]
