"""Any published metric of a cell as values, videos and types, so that its uncertainty can be computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd

from harness.benchmarks.metrics import BENCHMARKS, accuracy, circular_accuracy, group_name, macro_accuracy
from harness.errors import UserError
from harness.report.cells import CellResult
from harness.report.config import ReportConfig
from harness.report.statistics import Difference, Estimate, bootstrap, difference, score


@dataclass(frozen=True)
class Sample:
    """What a metric averages: unit ids [n], values [n] (0 or 1), videos [n], types [n] (None: one plain mean)."""

    units: np.ndarray
    values: np.ndarray
    videos: np.ndarray
    groups: np.ndarray | None


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


def estimate(cell: CellResult, metric: str | None = None, config: ReportConfig | None = None) -> Estimate | None:
    """Score of a cell on a metric (the published one when None); None when no scored question counts in it."""
    config = config or ReportConfig()
    return _estimate(cell, metric or main_metric(cell.benchmark), config.resamples, config.seed)


def paired(
    a: CellResult, b: CellResult, metric: str | None = None, config: ReportConfig | None = None
) -> Difference | None:
    """Difference a - b on the questions scored in both; None when they share none."""
    config = config or ReportConfig()
    return _paired(a, b, metric or main_metric(a.benchmark), config.resamples, config.seed)


def bootstrap_error(cell: CellResult, config: ReportConfig) -> float | None:
    """Standard error of the main score by resampling videos, in points: a check on the formula's."""
    taken = sample(cell.benchmark, main_metric(cell.benchmark), cell.answered)
    if not len(taken.values):
        return None
    replicates = bootstrap(taken.values, taken.videos, taken.groups, resamples=config.resamples, seed=config.seed)
    return float(replicates.std())


@cache
def _estimate(cell: CellResult, metric: str, resamples: int, seed: int) -> Estimate | None:
    taken = sample(cell.benchmark, metric, cell.answered)
    if not len(taken.values):
        return None
    return score(taken.values, taken.videos, taken.groups, resamples=resamples, seed=seed)


@cache
def _paired(a: CellResult, b: CellResult, metric: str, resamples: int, seed: int) -> Difference | None:
    shared = set(a.answered["question_id"]) & set(b.answered["question_id"])
    samples = []
    for cell in (a, b):
        rows = cell.answered[cell.answered["question_id"].isin(shared)].sort_values("question_id")
        samples.append(sample(cell.benchmark, metric, rows))
    first, second = samples
    if not len(first.values) or not np.array_equal(first.units, second.units):
        return None
    return difference(first.values, second.values, first.videos, first.groups, resamples=resamples, seed=seed)


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
