"""Metrics as the benchmarks' publications define them, in percent.

Pure functions of scored questions: mappings with ``score`` (1.0 or 0.0) and ``tags``. A group that has no question is
absent from the result; it is never counted as zero. The lmms-eval tasks aggregate with the same functions.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

Item = Mapping[str, Any]
Aggregate = Callable[[Sequence[Item]], float]


def accuracy(items: Sequence[Item]) -> float:
    """Share of right answers over all questions; not a number without any."""
    return 100 * sum(item["score"] for item in items) / len(items) if items else math.nan


def unparsed(items: Sequence[Item]) -> float:
    """Share of answers without a letter."""
    return 100 * sum(item["letter"] is None for item in items) / len(items) if items else math.nan


def macro_accuracy(items: Sequence[Item], tag: str) -> float:
    """Mean of the accuracies of the groups that `tag` makes, each group with the same weight."""
    return mean(accuracy(group) for group in grouped(items, tag).values())


def circular_accuracy(items: Sequence[Item]) -> float:
    """Share of VNBench samples of which every try is right, as mean over the types."""
    return mean(_circular(group) for group in grouped(items, "type").values())


def _circular(items: Sequence[Item]) -> float:
    samples = grouped(items, "sample")
    right = sum(all(item["score"] for item in tries) for tries in samples.values())
    return 100 * right / len(samples)


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean, exact up to one rounding; not a number without values."""
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else math.nan


def grouped(items: Iterable[Item], tag: str) -> dict[str, list[Item]]:
    """Items by the value of `tag`, in sorted order; an item with several values is in several groups."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        for value in _values(item["tags"].get(tag)):
            groups[value].append(item)
    return dict(sorted(groups.items()))


def _values(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(v) for v in (value if isinstance(value, (list, tuple)) else [value])]


@dataclass(frozen=True)
class Metrics:
    """Metrics of one benchmark.

    Args:
        main: the metric of the published table.
        whole: name to aggregation over all questions; the first is `main`.
        by: prefix to tag: one metric ``<prefix>_<value>`` per value of the tag.
        within: how the questions of one group are aggregated.
    """

    whole: dict[str, Aggregate]
    by: dict[str, str] = field(default_factory=dict)
    within: Aggregate = accuracy

    @property
    def main(self) -> str:
        return next(iter(self.whole))


BENCHMARKS = {
    # overall_by_duration is the release's formula; both agree while each group has 900 questions.
    "videomme": Metrics(
        {"overall": accuracy, "overall_by_duration": partial(macro_accuracy, tag="duration")},
        {"duration": "duration", "task_type": "task_type", "domain": "domain"},
    ),
    # M-AVG is a mean over the seven types. VLMEvalKit calls the sample-weighted mean by the same name.
    "mlvu": Metrics(
        {"m_avg": partial(macro_accuracy, tag="question_type"), "m_avg_sample": accuracy}, {"type": "question_type"}
    ),
    "longvideobench": Metrics({"overall": accuracy}, {"duration": "duration_group", "category": "question_category"}),
    "lvbench": Metrics({"overall": accuracy}, {"type": "question_type", "video": "video_type"}),
    "vnbench": Metrics(
        {"overall": circular_accuracy, "single_try": accuracy},
        {"task": "task", "type": "type"},
        within=circular_accuracy,
    ),
}


def group_name(prefix: str, value: str) -> str:
    """Name of a group's metric: ``type_temporal_grounding``."""
    return f"{prefix}_{re.sub(r'[^a-z0-9]+', '_', value.lower()).strip('_')}"


def metric_names(benchmark: str, tags: Mapping[str, Any]) -> list[str]:
    """The metrics in which a question with these tags counts."""
    spec = BENCHMARKS[benchmark]
    groups = [group_name(prefix, value) for prefix, tag in spec.by.items() for value in _values(tags.get(tag))]
    return [*spec.whole, *groups]


def metrics(benchmark: str, items: Sequence[Item]) -> dict[str, float]:
    """Every metric of `benchmark` that has at least one question, the published one first.

    Args:
        benchmark: a key of `BENCHMARKS`.
        items: scored questions.

    Returns:
        Name to percent.
    """
    spec = BENCHMARKS[benchmark]
    result = {name: aggregate(items) for name, aggregate in spec.whole.items()} if items else {}
    for prefix, tag in spec.by.items():
        for value, group in grouped(items, tag).items():
            result[group_name(prefix, value)] = spec.within(group)
    return result


def aggregations(benchmark: str, tags: Iterable[Mapping[str, Any]]) -> dict[str, Aggregate]:
    """Name to aggregation of every metric that questions with these tags have, in the order of `metrics`."""
    spec = BENCHMARKS[benchmark]
    present = {name for question in tags for name in metric_names(benchmark, question)}
    whole = {name: aggregate for name, aggregate in spec.whole.items() if name in present}
    return whole | {name: spec.within for name in sorted(present - spec.whole.keys())}
