"""What each factor of a chain is worth, from stored answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.evidence.cells import CellResult
from harness.evidence.loading import load_cells, stored_names
from harness.evidence.samples import main_metric
from harness.evidence.statistics import Estimate
from harness.settings.cell import Cell
from harness.tools.bridge.build import Bridge
from harness.tools.bridge.ends import End
from harness.tools.bridge.factors import Chain, Factor
from harness.tools.bridge.scoring import Scored, Shared, shared_questions
from harness.verdicts.expected import Published

NOW = "code and weights"
"""Factor: declared versions and weights, where stored answers have others than a twin made now."""


@dataclass(frozen=True)
class Step:
    """One bar of the waterfall: what a factor changes, in points.

    low, high: of its paired interval. score: behind the step. gained, lost: answers turned right and wrong; None where
    answers do not pair, and where another denominator turns none.
    failed: failed answers of the cell that the step arrives at. cell: its id.
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


class Store:
    """Stored cells by id, each read once; a twin is also found in a cell that asked more than its subset."""

    def __init__(self, results: Path | str) -> None:
        self._results, self._found = Path(results), dict[str, CellResult]()

    def get(self, cell: Cell) -> CellResult | None:
        """The answers of a cell; None where it was never started. An incomplete one gives way to a complete one of
        the whole benchmark."""
        found = self._load(cell.id)
        if cell.task.subset is not None and (found is None or not found.complete):
            whole = self._load(dataclasses.replace(cell, task=dataclasses.replace(cell.task, subset=None)).id)
            return whole if whole is not None and whole.complete else found
        return found

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """The cells that have questions without an answer, once each."""
        listed = {cell.id: cell for cell in cells}
        return [cell for cell in listed.values() if (found := self.get(cell)) is None or not found.complete]

    def _load(self, name: str) -> CellResult | None:
        if name not in self._found and name in stored_names(self._results / "runs"):
            (self._found[name],) = load_cells(self._results, [name])
        return self._found.get(name)


def needed(bridge: Bridge, chains: Iterable[Chain]) -> list[Cell]:
    """The cells whose answers the chains are made of, without the ends' own stored ones."""
    points = [link.point for chain in chains for link in chain.links]
    found = [point.cell for point in points if point.cell is not None]
    found += [end.cell for end in (bridge.a, bridge.b) if end.cell is not None]
    return list({cell.id: cell for cell in found}.values())


def measure(bridge: Bridge, chain: Chain, store: Store, confidence: float) -> Waterfall:
    """Measure a chain whose cells are answered.

    Raises:
        UserError: the cells share no question.
    """
    points = _points(bridge, chain, store)
    scored = [each for _, _, each in points]
    last = bridge.b.published or Scored(_end_result(bridge.b, store), bridge.end.parser, bridge.end.denominator)
    ends = [last] if isinstance(last, Scored) else []
    metric = bridge.b.published.metric if bridge.b.published else main_metric(scored[0].result.benchmark)
    shared = shared_questions([each.result for each in [*scored, *ends]], metric)
    steps = [
        _step(name, text, shared, after, before, confidence)
        for (name, text, after), before in zip(points[1:], scored, strict=False)
    ]
    if last == scored[-1]:
        reached = shared.score(scored[-1]).value
        remainder = Step("unexplained", "unexplained: nothing, the last twin is B", 0.0, 0.0, 0.0, reached, 0, 0)
    elif isinstance(last, Scored):
        remainder = _step("unexplained", "unexplained", shared, last, scored[-1], confidence)
    else:
        remainder = _to_published(last, shared.score(scored[-1]), confidence)
    found = shared.score(scored[0])
    first, final = (each.result.n if isinstance(each, Scored) else len(shared.names) for each in (scored[0], last))
    return Waterfall(
        found.value, remainder.score, tuple(steps), remainder, chain.left, found.n, _videos(shared, scored[0]),
        first - len(shared.names), final - len(shared.names),
    )  # fmt: skip


def _points(bridge: Bridge, chain: Chain, store: Store) -> list[tuple[str, str, Scored]]:
    """(factor, in words, answers) from A on; stored answers of other versions are a factor of their own."""
    a, b = bridge.a, bridge.b
    own = _end_result(a, store)
    points = [("", "", Scored(own, bridge.start.parser, bridge.start.denominator))]
    if a.stale and a.cell is not None:
        points.append((f"{NOW} (A)", f"{NOW}: {a.stale}", dataclasses.replace(points[0][2], result=_of(store, a.cell))))
    for link in chain.links:
        result = _of(store, link.point.cell) if link.point.cell is not None else own
        if link.point.cell is not None and a.cell is not None and link.point.cell.id == a.cell.id:
            result = points[-1][2].result
        elif b.cell is not None and link.point.cell is not None and link.point.cell.id == b.cell.id and not b.stale:
            result = _end_result(b, store)
        points.append((link.factor.name, link.factor.text, Scored(result, link.point.parser, link.point.denominator)))
    if b.stale and b.result is not None and not chain.left:
        points.append((f"{NOW} (B)", f"{NOW}: {b.stale}", dataclasses.replace(points[-1][2], result=b.result)))
    return points


def _of(store: Store, cell: Cell) -> CellResult:
    found = store.get(cell)
    if found is None:
        raise UserError(f"bridge: {cell.id} is not answered")
    return found


def _end_result(end: End, store: Store) -> CellResult:
    """The answers of an end as they are now: those of a cell of ours may have been given since it was named."""
    if end.cell is not None and not end.stale:
        return _of(store, end.cell)
    if end.result is None:
        raise UserError(f"bridge: {end.title} has no answers per question to start from")
    return end.result


def _step(name: str, text: str, shared: Shared, after: Scored, before: Scored, confidence: float) -> Step:
    found = shared.difference(after, before)
    low, high = found.interval(confidence)
    score, failed = shared.score(after).value, shared.failed(after)
    gained, lost = (found.gained, found.lost) if after.denominator == before.denominator else (None, None)
    return Step(name, text, found.value, low, high, score, gained, lost, failed, after.result.id)


def _to_published(number: Published, last: Estimate, confidence: float) -> Step:
    """What is left to a published number: its score less ours, with the interval of ours and the number's rounding."""
    low, high = last.interval(confidence)
    rest = (number.score - high - number.rounding, number.score - low + number.rounding)
    return Step("unexplained", "unexplained", number.score - last.value, *rest, number.score)


def _videos(shared: Shared, scored: Scored) -> int:
    return len(set(shared.values(scored)[1].tolist()))
