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
from functools import lru_cache
from typing import Any

Item = Mapping[str, Any]
Credit = Callable[[Sequence[Item]], float]
"""What the scored questions of one unit are worth together, 0 to 1."""


@dataclass(frozen=True)
class Metric:
    """The share of right answers.

    Args:
        mean_of: a tag: the mean of the shares among the questions of each of its values, all with the same weight.
        unit: a tag: questions that share its value count as one, which is right if all of them are.
        credit: what a unit is worth instead.
    """

    mean_of: str | None = None
    unit: str | None = None
    credit: Credit | None = None

    def __call__(self, items: Sequence[Item]) -> float:
        """Percent; not a number without questions."""
        groups = grouped(items, self.mean_of).values() if self.mean_of else [items]
        return mean(self._share(group) for group in groups)

    def _share(self, items: Sequence[Item]) -> float:
        scores = [item["score"] for item in items]
        if self.unit:
            scores = [(self.credit or all_right)(unit) for unit in grouped(items, self.unit).values()]
        return 100 * sum(scores) / len(scores) if scores else math.nan


@dataclass(frozen=True)
class Metrics:
    """Metrics of one benchmark.

    Args:
        whole: name to metric of all questions; the first is that of the published table.
        groups: prefix to tag: one metric ``<prefix>_<value>`` per value of the tag.
        within: the metric of one group.
    """

    whole: dict[str, Metric]
    groups: dict[str, str] = field(default_factory=dict)
    within: Metric = Metric()

    @property
    def main(self) -> str:
        """The metric of the published table."""
        return next(iter(self.whole))

    def names(self, tags: Mapping[str, Any]) -> list[str]:
        """The metrics in which a question with these tags counts."""
        groups = [group_name(prefix, value) for prefix, tag in self.groups.items() for value in values(tags.get(tag))]
        return [*self.whole, *groups]

    def scores(self, items: Sequence[Item]) -> dict[str, float]:
        """Every metric that has at least one of the scored questions, in percent, the published one first."""
        result = {name: metric(items) for name, metric in self.whole.items()} if items else {}
        for prefix, tag in self.groups.items():
            for value, group in grouped(items, tag).items():
                result[group_name(prefix, value)] = self.within(group)
        return result

    def present(self, tags: Iterable[Mapping[str, Any]]) -> dict[str, Metric]:
        """Every metric that questions with these tags have, in the order of `scores`."""
        present = {name for question in tags for name in self.names(question)}
        whole = {name: metric for name, metric in self.whole.items() if name in present}
        return whole | {name: self.within for name in sorted(present - self.whole.keys())}


def all_right(items: Sequence[Item]) -> float:
    """The credit of a unit that is right if all of its questions are."""
    return float(min(item["score"] for item in items))


def unparsed(items: Sequence[Item]) -> float:
    """Share of answers without a letter, in percent."""
    return 100 * sum(item["letter"] is None for item in items) / len(items) if items else math.nan


def mean(listed: Iterable[float]) -> float:
    """Arithmetic mean, exact up to one rounding; not a number without values."""
    listed = list(listed)
    return math.fsum(listed) / len(listed) if listed else math.nan


def grouped(items: Iterable[Item], tag: str) -> dict[str, list[Item]]:
    """Items by the value of `tag`, in sorted order; an item with several values is in several groups."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        for value in values(item["tags"].get(tag)):
            groups[value].append(item)
    return dict(sorted(groups.items()))


def values(tag: Any) -> list[str]:
    """The values of a question's tag: none, one or several."""
    if tag is None:
        return []
    return [str(value) for value in (tag if isinstance(tag, list | tuple) else [tag])]


@lru_cache(maxsize=4096)
def group_name(prefix: str, value: str) -> str:
    """Name of a group's metric: ``type_temporal_grounding``."""
    return f"{prefix}_{re.sub(r'[^a-z0-9]+', '_', value.lower()).strip('_')}"
