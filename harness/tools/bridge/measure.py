"""What each factor of a chain changes in the score, from stored answers.

Scores are those of the questions that all cells of a bridge share, each cell under its parser and denominator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.evidence.cells import FAILED, OK, CellResult
from harness.evidence.loading import is_stored, load_cells, published_letters
from harness.evidence.statistics import Difference, Estimate, Floats, difference, main_metric, sample, score
from harness.settings.cell import Cell
from harness.tools.bridge.chain import Bridge, Chain
from harness.tools.bridge.ends import End
from harness.tools.bridge.factors import Factor
from harness.verdicts.expected import Published

NOW = "code and weights"
"""Factor: versions and weights, where stored answers have others than the setting would have today."""


@dataclass(frozen=True)
class Step:
    """One bar of the waterfall: what a factor changes, in points.

    Attributes:
        name: of the factor.
        text: the factor in words.
        value: the change.
        low, high: its paired interval.
        score: after the step.
        gained, lost: answers turned right and wrong; None where answers do not pair or only the denominator changes.
        failed: failed answers of the cell after the step.
        cell: id of the cell after the step.
    """

    name: str
    text: str
    value: float
    low: float
    high: float
    score: float
    gained: int | None = None
    lost: int | None = None
    failed: int = 0
    cell: str = ""

    @property
    def verdict(self) -> str:
        """``no effect`` where no answer turned, ``not told from zero``, or empty."""
        if self.value == 0 and not self.gained and not self.lost:
            return "no effect"
        return "not told from zero" if self.low <= 0 <= self.high else ""


@dataclass(frozen=True)
class Waterfall:
    """A chain, measured. ``left`` are factors that could not be changed: their part is in the remainder."""

    start: float
    end: float
    steps: tuple[Step, ...]
    remainder: Step
    left: tuple[tuple[Factor, str], ...]
    n: int
    videos: int
    only_a: int
    only_b: int

    @property
    def difference(self) -> float:
        """B - A in points, on the shared questions."""
        return self.end - self.start


class StoredCells:
    """Stored cells by id, each read once. The answers of a subset are also found in a cell of the whole benchmark."""

    def __init__(self, results: Path | str) -> None:
        self._results, self._read = Path(results), dict[str, CellResult]()

    def get(self, cell: Cell) -> CellResult | None:
        """The answers of a cell; None where it was never started. A complete cell of the whole benchmark goes before
        an incomplete one of the subset."""
        result = self._load(cell.id)
        if cell.task.subset is not None and (result is None or not result.complete):
            whole = self._load(dataclasses.replace(cell, task=dataclasses.replace(cell.task, subset=None)).id)
            return whole if whole is not None and whole.complete else result
        return result

    def answered(self, cell: Cell) -> CellResult:
        """The answers of a cell.

        Raises:
            UserError: there are none.
        """
        result = self.get(cell)
        if result is None:
            raise UserError(f"bridge: {cell.id} is not answered")
        return result

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """The cells that have questions without an answer, once each."""
        listed = {cell.id: cell for cell in cells}
        return [cell for cell in listed.values() if (result := self.get(cell)) is None or not result.complete]

    def _load(self, name: str) -> CellResult | None:
        if name not in self._read and is_stored(self._results, name):
            (self._read[name],) = load_cells(self._results, [name])
        return self._read.get(name)


def needed_cells(bridge: Bridge, chains: Iterable[Chain]) -> list[Cell]:
    """The cells whose answers the chains need, once each."""
    points = [link.point for chain in chains for link in chain.links]
    cells = [point.cell for point in points if point.cell is not None] + bridge.cells
    return list({cell.id: cell for cell in cells}.values())


def measure_chain(bridge: Bridge, chain: Chain, stored: StoredCells, confidence: float) -> Waterfall:
    """Measure a chain whose cells are answered.

    Raises:
        UserError: the cells share no question.
    """
    points = _points(bridge, chain, stored)
    scored = [answers for _, _, answers in points]
    published = bridge.b.published
    last = None if published else ScoredAnswers(_of_end(bridge.b, stored), bridge.end.parser, bridge.end.denominator)
    metric = published.metric if published else main_metric(scored[0].result.benchmark)
    shared = shared_questions([answers.result for answers in (*scored, *([last] if last else []))], metric)
    steps = [
        _step(name, text, shared, after, before, confidence)
        for (name, text, after), before in zip(points[1:], scored, strict=False)
    ]
    first, reached = shared.score(scored[0]), shared.score(scored[-1])
    if published is not None:
        remainder = _to_published(published, reached, confidence)
    elif last is None or last == scored[-1]:
        text = "unexplained: nothing, the chain ends at B"
        remainder = Step("unexplained", text, 0.0, 0.0, 0.0, reached.value, 0, 0)
    else:
        remainder = _step("unexplained", "unexplained", shared, last, scored[-1], confidence)
    n = len(shared.names)
    return Waterfall(
        first.value, remainder.score, tuple(steps), remainder, chain.left, first.n,
        videos=len(set(shared.values(scored[0])[1].tolist())),
        only_a=scored[0].result.n - n,
        only_b=last.result.n - n if last else 0,
    )  # fmt: skip


def _points(bridge: Bridge, chain: Chain, stored: StoredCells) -> list[tuple[str, str, ScoredAnswers]]:
    """Factor, its text and answers from A on; stored answers of other versions are a factor of their own."""
    a, b = bridge.a, bridge.b
    result = _of_end(a, stored)
    points = [("", "", ScoredAnswers(result, bridge.start.parser, bridge.start.denominator))]
    if a.stale and a.cell is not None:
        now = dataclasses.replace(points[0][2], result=stored.answered(a.cell))
        points.append((f"{NOW} (A)", f"{NOW}: {a.stale}", now))
    for link in chain.links:
        cell = link.point.cell
        if cell is not None and a.cell is not None and cell.id == a.cell.id:
            result = points[-1][2].result
        elif cell is not None and b.cell is not None and cell.id == b.cell.id and not b.stale:
            result = _of_end(b, stored)
        elif cell is not None:
            result = stored.answered(cell)
        answers = ScoredAnswers(result, link.point.parser, link.point.denominator)
        points.append((link.factor.name, link.factor.text, answers))
    if b.stale and b.result is not None and not chain.left:
        points.append((f"{NOW} (B)", f"{NOW}: {b.stale}", dataclasses.replace(points[-1][2], result=b.result)))
    return points


def _of_end(end: End, stored: StoredCells) -> CellResult:
    """The answers of an end. A cell of ours is read again, because it may have been answered since it was named."""
    if end.cell is not None and not end.stale:
        return stored.answered(end.cell)
    if end.result is None:
        raise UserError(f"bridge: {end.title} has no answers per question to start from")
    return end.result


def _step(name: str, text: str, shared: Shared, after: ScoredAnswers, before: ScoredAnswers, confidence: float) -> Step:
    change = shared.difference(after, before)
    low, high = change.interval(confidence)
    value, failed = shared.score(after).value, shared.failed(after)
    gained, lost = shared.flips(after, before) if after.denominator == before.denominator else (None, None)
    return Step(name, text, change.value, low, high, value, gained, lost, failed, after.result.id)


def _to_published(number: Published, last: Estimate, confidence: float) -> Step:
    """A published number minus our score, with the interval of our score and the rounding of the number."""
    low, high = last.interval(confidence)
    rest = (number.score - high - number.rounding, number.score - low + number.rounding)
    return Step("unexplained", "unexplained", number.score - last.value, *rest, number.score)


@dataclass(frozen=True)
class ScoredAnswers:
    """Answers of one cell under one parser and denominator."""

    result: CellResult
    parser: str
    denominator: str


@dataclass(frozen=True, eq=False)
class Shared:
    """The questions that every cell of a bridge has an answer or a stored failure of.

    Attributes:
        benchmark: name of the benchmark.
        metric: its metric that the scores are of.
        names: ids of the questions.
    """

    benchmark: str
    metric: str
    names: frozenset[str]

    def values(self, scored: ScoredAnswers) -> tuple[Floats, NDArray[np.intp], NDArray[np.intp] | None]:
        """Values that the metric averages, their videos and types (None: a plain mean), [n] each in one order.

        A question that the denominator leaves out has the mean of the others. The mean over all questions is then the
        mean over the others, and scores of two denominators pair question by question.
        """
        cell = scored.result
        inside = np.array([name in self.names for name in cell.asked.names[cell.asked.by_name]], bool)
        places = cell.asked.by_name[inside]
        counted = cell.asked.counted(self.benchmark, self.metric)
        correct = cell.correct(scored.parser).copy()
        out = _left_out(scored)
        if out[places].any():
            types = np.zeros(cell.n, np.intp) if counted.types is None else counted.types
            for kind in np.unique(types[places]):
                of_type = places[(types[places] == kind) & counted.inside[places]]
                kept = of_type[~out[of_type]]
                correct[of_type[out[of_type]]] = correct[kept].mean() if len(kept) else 0.0
        taken = sample(cell.asked, self.benchmark, self.metric, correct, places)
        return taken.values, taken.videos, taken.groups

    def score(self, scored: ScoredAnswers) -> Estimate:
        """The score of one cell."""
        values, videos, groups = self.values(scored)
        return score(values, videos, groups)

    def difference(self, after: ScoredAnswers, before: ScoredAnswers) -> Difference:
        """after - before, paired by question."""
        new, videos, groups = self.values(after)
        old, _, _ = self.values(before)
        return difference(new, old, videos, groups)

    def flips(self, after: ScoredAnswers, before: ScoredAnswers) -> tuple[int, int]:
        """Questions in both denominators that turned right, and wrong."""
        (new, left_new), (old, left_old) = (self._counted(scored) for scored in (after, before))
        both = ~(left_new | left_old)
        return int((new > old)[both].sum()), int((new < old)[both].sum())

    def _counted(self, scored: ScoredAnswers) -> tuple[Floats, NDArray[np.bool_]]:
        """Of the shared questions by id: right (1) or wrong (0), and whether the denominator leaves them out."""
        cell = scored.result
        places = cell.asked.by_name[np.array([n in self.names for n in cell.asked.names[cell.asked.by_name]], bool)]
        places = places[cell.asked.counted(self.benchmark, self.metric).inside[places]]
        return cell.correct(scored.parser)[places], _left_out(scored)[places]

    def failed(self, scored: ScoredAnswers) -> int:
        """Failed answers among the shared questions."""
        pairs = zip(scored.result.asked.names, scored.result.statuses, strict=True)
        return sum(name in self.names and status == FAILED for name, status in pairs)


def shared_questions(results: Sequence[CellResult], metric: str) -> Shared:
    """The questions of a metric that every cell answered or failed.

    Raises:
        UserError: there is none.
    """
    names: frozenset[str] | None = None
    for result in results:
        known = frozenset(result.asked.names[~np.isnan(result.correct())])
        names = known if names is None else names & known
    first = results[0]
    shared = Shared(first.benchmark, metric, names or frozenset())
    if not names or not len(shared.values(ScoredAnswers(first, first.parser, "all"))[0]):
        listed = ", ".join(result.id for result in results)
        raise UserError(f"bridge: no question with a right answer is answered in all of {listed}")
    return shared


def agreement(a: CellResult, b: CellResult, parser: str) -> float:
    """Share of the questions answered in both cells that have the same letter; 0 where there is no such question."""
    of_a, of_b = (
        {
            name: letter
            for name, letter, status in zip(
                cell.asked.names, published_letters(cell, parser), cell.statuses, strict=True
            )
            if status == OK
        }
        for cell in (a, b)
    )
    both = of_a.keys() & of_b.keys()
    return sum(of_a[name] == of_b[name] for name in both) / len(both) if both else 0.0


def _left_out(scored: ScoredAnswers) -> NDArray[np.bool_]:
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
