"""Scores of cells on the questions that all of a bridge share, under one parser and one denominator each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.evidence.cells import FAILED, OK, CellResult
from harness.evidence.samples import sample
from harness.evidence.statistics import Difference, Estimate, difference, score

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """Answers of one cell under one parser and denominator."""

    result: CellResult
    parser: str
    denominator: str


@dataclass(frozen=True, eq=False)
class Shared:
    """The questions that all cells of a bridge have an answer, or a stored failure, to.

    names: their ids, sorted. metric: the benchmark's metric that the scores are of.
    """

    benchmark: str
    metric: str
    names: frozenset[str]

    def values(self, scored: Scored) -> tuple[Floats, NDArray[np.intp], NDArray[np.intp] | None]:
        """What the metric averages, the videos, and the types (None: a plain mean), [n] each and in one order.

        What a denominator leaves out has the mean of what it does not: a mean over all is then the mean over the
        rest, and scores of two denominators pair question by question.
        """
        cell = scored.result
        inside = np.array([name in self.names for name in cell.asked.names[cell.asked.by_name]], bool)
        places = cell.asked.by_name[inside]
        counted = cell.asked.counted(self.benchmark, self.metric)
        correct = cell.correct(scored.parser).copy()
        out = _left_out(scored)
        if out[places].any():
            types = np.zeros(cell.n, np.intp) if counted.types is None else counted.types
            for each in np.unique(types[places]):
                of_type = places[(types[places] == each) & counted.inside[places]]
                kept = of_type[~out[of_type]]
                correct[of_type[out[of_type]]] = correct[kept].mean() if len(kept) else 0.0
        taken = sample(cell.asked, self.benchmark, self.metric, correct, places)
        return taken.values, taken.videos, taken.groups

    def score(self, scored: Scored) -> Estimate:
        """The score of one cell."""
        values, videos, groups = self.values(scored)
        return score(values, videos, groups)

    def difference(self, after: Scored, before: Scored) -> Difference:
        """after - before, paired by question."""
        new, videos, groups = self.values(after)
        old, _, _ = self.values(before)
        return difference(new, old, videos, groups)

    def failed(self, scored: Scored) -> int:
        """Failed answers among the shared questions."""
        pairs = zip(scored.result.asked.names, scored.result.statuses, strict=True)
        return sum(name in self.names and status == FAILED for name, status in pairs)


def shared_questions(results: Sequence[CellResult], metric: str) -> Shared:
    """The questions that all cells answered or failed, of those that count in a metric.

    Raises:
        UserError: there is none.
    """
    names: frozenset[str] | None = None
    for result in results:
        known = frozenset(result.asked.names[~np.isnan(result.correct())])
        names = known if names is None else names & known
    first = results[0]
    if not names or not len(Shared(first.benchmark, metric, names).values(Scored(first, first.parser, "all"))[0]):
        listed = ", ".join(result.id for result in results)
        raise UserError(f"bridge: no question with a right answer is answered in all of {listed}")
    return Shared(first.benchmark, metric, names)


def agreement(a: CellResult, b: CellResult, letters_a: Sequence[str | None], letters_b: Sequence[str | None]) -> float:
    """Share of the questions answered in both whose letters are the same; 0 where there is none."""
    of_a, of_b = (
        dict(zip(cell.asked.names[[status == OK for status in cell.statuses]], kept, strict=True))
        for cell, kept in ((a, _of_ok(a, letters_a)), (b, _of_ok(b, letters_b)))
    )
    both = of_a.keys() & of_b.keys()
    return sum(of_a[name] == of_b[name] for name in both) / len(both) if both else 0.0


def _of_ok(cell: CellResult, letters: Sequence[str | None]) -> list[str | None]:
    return [letter for letter, status in zip(letters, cell.statuses, strict=True) if status == OK]


def _left_out(scored: Scored) -> NDArray[np.bool_]:
    """Questions that are not in the denominator, [n]."""
    statuses = np.array(scored.result.statuses, object)
    if scored.denominator == "all":
        return np.zeros(scored.result.n, bool)
    failed: NDArray[np.bool_] = statuses == FAILED
    if scored.denominator == "answered":
        return failed
    unparsed: NDArray[np.bool_] = np.array([letter is None for letter in scored.result.letters(scored.parser)], bool)
    spoken: NDArray[np.bool_] = statuses == OK
    return failed | (spoken & unparsed)
