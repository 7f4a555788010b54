"""The questions of cells. Cells that asked the same share them, and what depends on these alone is found out once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.metrics import Credit, group_name, values
from harness.benchmarks.parse import Parser
from harness.errors import UserError
from harness.evidence.once import Once
from harness.store import QuestionRecord, read_questions
from harness.store.questions import FILE

Places = NDArray[np.intp]


@dataclass(frozen=True)
class Counted:
    """What a metric averages, per question, [n].

    inside: whether the question counts. types: of which type it is, by its place among the sorted types (-1: of none);
    None where the metric is a plain mean. units: what counts as one; None where that is the question. credit: what
    the questions of a unit are worth together; None where it is right if all of them are.
    """

    inside: NDArray[np.bool_]
    types: Places | None
    units: NDArray[np.object_] | None
    credit: Credit | None = None


@dataclass(frozen=True, eq=False)
class Asked(Once):
    """The questions of a cell, in the order asked."""

    questions: list[QuestionRecord]

    @cached_property
    def names(self) -> NDArray[np.object_]:
        """Question ids."""
        return np.array([question.question_id for question in self.questions], object)

    @cached_property
    def ids(self) -> frozenset[str]:
        """Question ids, to look one up."""
        return frozenset(question.question_id for question in self.questions)

    @cached_property
    def by_name(self) -> Places:
        """Places of the questions, sorted by their ids."""
        return np.array(sorted(range(len(self.questions)), key=lambda i: self.questions[i].question_id), np.intp)

    @cached_property
    def videos(self) -> Places:
        """Each question's video, by its place among the sorted ids of videos."""
        return ranks([question.video_id for question in self.questions])

    def letter(self, parser: str, parse: Parser, place: int, text: str) -> str | None:
        """The letter that an answer to a question means; siblings often say the same."""
        return self.once((parser, place, text), lambda: parse(text, self.questions[place].options))

    def counted(self, name: str, metric: str) -> Counted:
        """Which questions count in a metric of the benchmark `name`, and how.

        Args:
            metric: ``overall``, ``m_avg``, or a group's metric such as ``duration_long``.

        Raises:
            UserError: the benchmark has no such metric.
        """
        return self.once(("counted", name, metric), lambda: self._counted(name, metric))

    def _counted(self, name: str, metric: str) -> Counted:
        spec, tags = benchmark(name).metrics, [question.tags for question in self.questions]
        averaged, inside = spec.whole.get(metric), np.ones(len(tags), bool)
        if averaged is None:
            prefix = next((p for p in sorted(spec.groups, key=len, reverse=True) if metric.startswith(f"{p}_")), None)
            if prefix is None:
                known = [*spec.whole, *(f"{p}_<{tag}>" for p, tag in spec.groups.items())]
                raise UserError(f"metric {metric!r} is not one of {name}; known: {', '.join(known)}")
            tag, averaged = spec.groups[prefix], spec.within
            within = (any(group_name(prefix, value) == metric for value in values(own.get(tag))) for own in tags)
            inside = np.fromiter(within, bool, len(tags))
        types = units = None
        if averaged.mean_of:
            of = [next(iter(values(own.get(averaged.mean_of))), None) for own in tags]
            inside = inside & np.array([each is not None for each in of], bool)  # without a type in no type's mean
            types = ranks(of)
        if averaged.unit:
            units = np.array([own.get(averaged.unit) for own in tags], object)
        return Counted(inside, types, units, averaged.credit)


def ranks(listed: list[Any]) -> Places:
    """Each value's place among the sorted different ones; -1 for None."""
    order = {value: i for i, value in enumerate(sorted({value for value in listed if value is not None}))}
    return np.array([-1 if value is None else order[value] for value in listed], np.intp)


class AskedOnce:
    """Reads the questions of cells; equal files are one `Asked`."""

    def __init__(self) -> None:
        self._found: dict[bytes, Asked] = {}

    def of(self, folder: Path) -> Asked:
        """The questions of the cell in a folder. Raises as `read_questions`."""
        path = folder / FILE
        content = path.read_bytes() if path.is_file() else b""
        if content not in self._found:
            self._found[content] = Asked(read_questions(folder))
        return self._found[content]
