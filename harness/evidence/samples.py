"""The questions that a metric averages, of one cell or shared by two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.benchmarks.benchmark import benchmark as benchmark_of
from harness.evidence.asked import Asked


@dataclass(frozen=True)
class Sample:
    """What a metric averages: unit ids [n], values [n] (0 to 1), videos [n], types [n] (None: one plain mean)."""

    units: NDArray[np.object_]
    values: NDArray[np.float64]
    videos: NDArray[np.intp]
    groups: NDArray[np.intp] | None


def shared(
    a: Asked, b: Asked, right_a: NDArray[np.float64], right_b: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of the questions scored in both, sorted by their ids, in a and in b."""
    places_a, places_b = a.by_name[~np.isnan(right_a[a.by_name])], b.by_name[~np.isnan(right_b[b.by_name])]
    if a is b:
        both = places_a[~np.isnan(right_b[places_a])]
        return both, both
    of_a, of_b = a.names[places_a], b.names[places_b]
    return places_a[np.isin(of_a, of_b)], places_b[np.isin(of_b, of_a)]


def main_metric(benchmark: str) -> str:
    """The metric of the benchmark's published table."""
    return benchmark_of(benchmark).metrics.main


def sample(asked: Asked, benchmark: str, metric: str, correct: NDArray[np.float64], places: NDArray[np.intp]) -> Sample:
    """The questions in which ``metric`` is a mean, or a mean of means.

    Args:
        asked: the questions.
        benchmark, metric: as for ``Asked.counted``.
        correct: per question, see ``CellResult.correct``.
        places: of the questions to take, in this order.

    Returns:
        The sample; empty when no question counts in the metric.
    """
    counted = asked.counted(benchmark, metric)
    at = places[counted.inside[places] & ~np.isnan(correct[places])]
    types = None if counted.types is None else counted.types[at]
    if counted.units is None:
        return Sample(asked.names[at], correct[at], asked.videos[at], types)
    table = {"unit": counted.units[at], "correct": correct[at], "video": asked.videos[at]}
    table |= {} if types is None else {"type": types}
    units = pd.DataFrame(table).groupby("unit").agg({"correct": "min"} | dict.fromkeys(list(table)[2:], "first"))
    groups = None if types is None else units["type"].to_numpy(np.intp)
    values = units["correct"].to_numpy(float)
    if counted.credit is not None:
        values = np.array([counted.credit(items) for items in _by_unit(asked, counted.units[at], correct, at)])
    return Sample(units.index.to_numpy(object), values, units["video"].to_numpy(), groups)


def _by_unit(
    asked: Asked, units: NDArray[np.object_], correct: NDArray[np.float64], places: NDArray[np.intp]
) -> Iterator[list[dict[str, Any]]]:
    """The scored questions of each unit, units in sorted order; `units` [n] is that of each place [n]."""
    for of_unit in pd.Series(places).groupby(units):
        yield [{"score": correct[place], "tags": asked.questions[place].tags} for place in of_unit[1]]
