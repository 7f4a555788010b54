"""From two ends to a chain of cells that changes one factor at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.questions import SIZES
from harness.errors import UserError
from harness.evidence.imported import ImportedCell
from harness.evidence.loading import is_stored
from harness.models.families import find_adapter
from harness.settings.cell import Cell
from harness.settings.weights import find_weights
from harness.tools import DENOMINATORS, BridgeConfig
from harness.tools.bridge.ends import End, weights_of
from harness.tools.bridge.factors import ChangeCell, Factor, candidate_factors, declared_cell, factors_between
from harness.video.container import reader_class


@dataclass(frozen=True)
class ChainPoint:
    """A cell, and how its answers are scored; no cell for an end whose setting is not known in full."""

    cell: Cell | None
    parser: str
    denominator: str


@dataclass(frozen=True)
class Link:
    """A factor, and the point that the chain reaches with it."""

    factor: Factor
    point: ChainPoint


@dataclass(frozen=True)
class Chain:
    """Factors changed one at a time, from A towards B; ``left`` are those that cannot be changed, with the reason."""

    links: tuple[Link, ...]
    left: tuple[tuple[Factor, str], ...] = field(default=())


@dataclass(frozen=True)
class Bridge:
    """Two ends and the factors between them.

    Attributes:
        a: the end that chains start at; an end with a cell of ours where there is one.
        b: the other end.
        start: how the answers of A are scored.
        end: how the answers of B are scored.
        factors: in the order of the chain.
        notes: what a reader has to know.
    """

    a: End
    b: End
    start: ChainPoint
    end: ChainPoint
    factors: tuple[Factor, ...]
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> list[Cell]:
        """Cells of the ends."""
        return [end.cell for end in (self.a, self.b) if end.cell is not None]

    def intermediates(self, results: Path, subset: str | None) -> Intermediates:
        """What makes the cells between the ends. They answer the subset; None: the subset of an end that has one."""
        subset = subset or next((cell.task.subset for cell in self.cells if cell.task.subset is not None), None)
        return Intermediates(self.cells, results, {"task.subset": subset})


@dataclass(frozen=True)
class Intermediates:
    """Makes intermediate configurations, and refuses those that cannot be run here.

    Attributes:
        known: cells of the ends; the digests of their weights count as known.
        results: the results folder; a stored cell needs no weights and no video reader.
        always: changes that every intermediate configuration has.
    """

    known: Sequence[Cell]
    results: Path
    always: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, cell: Cell, changes: Mapping[str, Any]) -> Cell:
        """The cell with some settings changed.

        Raises:
            UserError: it cannot exist, or cannot be run here and is not stored.
        """
        changed = cell.with_({**self.always, **changes}, lambda other: weights_of(other, self.known))
        changed.method.for_family(find_adapter(changed.model.adapter).family)
        if not is_stored(self.results, changed.id):
            find_weights(changed.model.path, changed.model.fetch)
            reader_class(changed.video.backend)
        return changed


def build_bridge(a: End, b: End, settings: BridgeConfig, results: Path, words: Sequence[str]) -> Bridge:
    """Find the factors in which two ends differ.

    Args:
        settings: of the verb.
        results: the results folder.
        words: settings of the command line.

    Raises:
        UserError: the ends are of different benchmarks; or a parser, denominator or candidate is wrong.
    """
    notes: list[str] = []
    if a.benchmark != b.benchmark:
        raise UserError(
            f"bridge: A asks {a.benchmark} and B asks {b.benchmark}; results of different questions have no bridge"
        )
    if a.cell is None and b.cell is not None:
        a, b = b, a
        notes.append("the chain starts at the end whose settings can be changed: A and B have changed places")
    parsers = _pair(settings.parser, "parser", (a.parser, b.parser), tuple(benchmark(a.benchmark).parsers))
    denominators = _pair(settings.denominator, "denominator", ("all", "all"), DENOMINATORS)
    start = ChainPoint(a.cell, parsers[0], denominators[0])
    end = ChainPoint(b.cell, parsers[1], denominators[1])
    if settings.subset not in (None, *SIZES):
        raise UserError(f"bridge.subset={settings.subset} is not known; allowed: null, {', '.join(SIZES)}")
    factors: list[Factor] = []
    if a.cell is not None and b.cell is not None:
        if settings.candidates:
            raise UserError("bridge.candidates: both settings are known; candidates are for an import as B")
        factors = factors_between(a.cell, b.cell, quirks=settings.quirks)
        notes += _machines(a, b)
    elif a.cell is not None:
        there, unknown = declared_cell(a.cell, b.declared, Intermediates([a.cell], results), words)
        notes += [f"B declares {setting}; no configuration can be made of it" for setting in unknown]
        factors = factors_between(a.cell, there, quirks=settings.quirks)
        named = {factor.name for factor in factors}
        tried = candidate_factors(a.cell, settings.candidates, words)
        if twice := [factor.name for factor in tried if factor.name in named]:
            raise UserError(f"bridge.candidates: B itself declares its {twice[0]}; leave that candidate out")
        factors += tried
    elif b.published is None or a.published is None:
        notes.append("neither end is a cell of ours: only how answers are scored can be changed")
    for name, (old, new) in (("parser", parsers), ("denominator", denominators)):
        factors += [Factor(name, old, new, {name: new})] if old != new else []
    order = [name for names in settings.order for name in names.split(",")]
    for name, side in (("A", a), ("B", b)):
        if isinstance(side.result, ImportedCell) and side.result.own_score:
            notes.append(f"{name}: {side.result.own_score}")
    return Bridge(a, b, start, end, tuple(ordered(factors, order)), tuple(notes))


def _machines(a: End, b: End) -> list[str]:
    """How the machines of two stored cells differ: no setting of a cell, so no factor of a chain."""
    if a.result is None or b.result is None:
        return []
    one, other = a.result.manifest, b.result.manifest
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in ("device", "attention_backend")}
    libraries = sorted(one.versions.keys() & other.versions.keys())
    pairs |= {name: (one.versions[name], other.versions[name]) for name in libraries}
    changes = [f"{name} {old} and {new}" for name, (old, new) in pairs.items() if None not in (old, new) and old != new]
    return [f"A and B were answered with {', '.join(changes)}; no setting changes that"] if changes else []


def _pair(values: Sequence[str], name: str, default: tuple[str, str], allowed: Sequence[str]) -> tuple[str, str]:
    if not values:
        return default
    pair = (values[0], values[-1])
    if len(values) > 2 or not set(pair) <= set(allowed):
        listed = ", ".join(allowed)
        raise UserError(f"bridge.{name}={list(values)} is not known; give one or two of {listed}: bridge.{name}=[x,y]")
    return pair


def ordered(factors: Sequence[Factor], first: Sequence[str]) -> list[Factor]:
    """The named factors first, in that order.

    Raises:
        UserError: a name is that of no factor.
    """
    names = [factor.name for factor in factors]
    if unknown := [name for name in first if name not in names]:
        raise UserError(
            f"bridge.order: {unknown[0]} is no factor here; A and B differ in: {', '.join(names) or 'none'}"
        )
    return sorted(factors, key=lambda factor: first.index(factor.name) if factor.name in first else len(first))


def make_chains(bridge: Bridge, settings: BridgeConfig, results: Path) -> list[Chain]:
    """The chain in the order of the factors and, with `BridgeConfig.both`, in the reverse one."""
    factors = list(bridge.factors)
    orders = [factors, factors[::-1]] if settings.both and len(factors) > 1 else [factors]
    changed = bridge.intermediates(results, settings.subset)
    return [make_chain(bridge.start, order, changed, bridge.b.cell) for order in orders]


def make_chain(start: ChainPoint, factors: Sequence[Factor], changed: ChangeCell, end: Cell | None) -> Chain:
    """Change one factor at a time, in their order; one that is not possible yet waits until another has been changed.

    Args:
        changed: makes the intermediate configurations.
        end: where the chain arrives when every factor but those of scoring has been changed; None: not known.
    """
    waiting, links, why = list(factors), list[Link](), dict[str, str]()
    point = start
    while waiting:
        for factor in waiting:
            done = {link.factor.name for link in links}
            if not set(factor.needs) <= done:
                why[factor.name] = f"only after {', '.join(sorted(set(factor.needs) - done))}"
                continue
            rest = [other for other in waiting if other is not factor and not other.scoring]
            try:
                point = _next_point(point, factor, changed, None if rest else end)
            except UserError as error:
                why[factor.name] = str(error).splitlines()[0]
                continue
            links.append(Link(factor, point))
            waiting.remove(factor)
            break
        else:
            break
    return Chain(tuple(links), tuple((factor, why[factor.name]) for factor in waiting))


def _next_point(point: ChainPoint, factor: Factor, changed: ChangeCell, end: Cell | None) -> ChainPoint:
    if factor.scoring:
        return dataclasses.replace(point, **{factor.name: factor.after})
    if point.cell is None:
        raise UserError("no cell of ours to change")
    return dataclasses.replace(point, cell=end or changed(point.cell, factor.changes))
