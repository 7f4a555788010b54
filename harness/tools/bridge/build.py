"""From two ends to chains of twins: which factors, in which order, and which twins cannot be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.subsets import SIZES
from harness.errors import UserError
from harness.evidence.loading import stored_names
from harness.models.families import find_adapter
from harness.settings.cell import Cell
from harness.settings.weights import find_weights
from harness.tools.bridge.declared import candidates, declared_cell
from harness.tools.bridge.ends import End, Ends, Weights
from harness.tools.bridge.factors import Chain, Factor, Point, factors_between, make_chain, ordered
from harness.tools.bridge.verbs import DENOMINATORS, BridgeConfig
from harness.video.readers import reader_class


@dataclass(frozen=True)
class Bridge:
    """Two ends and what lies between them.

    a: the end that chains start at; of two ends the one with a cell of ours. points: how the answers of a and b are
    scored (``cell`` is that of the end, None where it has none). notes: what a reader has to know.
    """

    a: End
    b: End
    start: Point
    end: Point
    factors: tuple[Factor, ...]
    notes: tuple[str, ...] = ()


class Twins:
    """Makes twins, and says of each whether it can be run here.

    Args:
        known: cells of the ends; their weights count as known.
        results: twins that are stored need no weights and no decoder.
    """

    def __init__(self, known: Sequence[Cell], results: Path) -> None:
        self._weights, self._results = Weights(known), results

    def __call__(self, cell: Cell, changes: Mapping[str, Any]) -> Cell:
        """The twin with some settings changed.

        Raises:
            UserError: it cannot exist, or cannot be run here and is not stored.
        """
        twin = cell.with_(changes, self._weights)
        twin.method.for_family(find_adapter(twin.model.adapter).family)
        if twin.id not in stored_names(self._results / "runs"):
            find_weights(twin.model.path, twin.model.fetch)
            reader_class(twin.video.backend)
        return twin


def build_bridge(a: End, b: End, given: BridgeConfig, ends: Ends) -> Bridge:
    """Find the factors in which two ends differ.

    Raises:
        UserError: the ends are of different benchmarks; or a parser, denominator or candidate is wrong.
    """
    notes: list[str] = []
    if a.asked != b.asked:
        raise UserError(f"bridge: A asks {a.asked} and B asks {b.asked}; results of different questions have no bridge")
    if b.own and not a.own:
        a, b = b, a
        notes.append("the chain starts at the end of which twins can be made: A and B have changed places")
    parsers = _pair(given.parser, "parser", (a.parser, b.parser), tuple(benchmark(a.asked).parsers))
    denominators = _pair(given.denominator, "denominator", ("all", "all"), DENOMINATORS)
    start, end = (
        Point(each.cell, parser, denominator)
        for each, parser, denominator in zip((a, b), parsers, denominators, strict=True)
    )
    if given.subset not in (None, *SIZES):
        raise UserError(f"bridge.subset={given.subset} is not known; allowed: null, {', '.join(SIZES)}")
    factors: list[Factor] = []
    if a.cell is not None:
        twins = Twins([each.cell for each in (a, b) if each.cell is not None], Path(ends.results))
        if b.cell is not None:
            if given.candidates:
                raise UserError("bridge.candidates: both settings are known; candidates are for an import as B")
            factors = factors_between(a.cell, b.cell, quirks=given.quirks)
        else:
            there, unknown = declared_cell(a.cell, b.declared, twins, ends.words)
            notes += [f"B says {each}, of which no twin can be made" for each in unknown]
            factors = factors_between(a.cell, there, quirks=given.quirks)
            named = {factor.name for factor in factors}
            tried = candidates(a.cell, given.candidates, ends.words)
            if twice := [factor.name for factor in tried if factor.name in named]:
                raise UserError(f"bridge.candidates: B itself says its {twice[0]}; leave that candidate out")
            factors += tried
        notes += _machines(a, b)
    elif b.published is None or a.published is None:
        notes.append("neither end is a cell of ours: only how answers are scored can be changed")
    if parsers[0] != parsers[1]:
        factors.append(Factor("parser", *parsers, {"parser": parsers[1]}))
    if denominators[0] != denominators[1]:
        factors.append(Factor("denominator", *denominators, {"denominator": denominators[1]}))
    return Bridge(
        a,
        b,
        start,
        end,
        tuple(ordered(factors, [name for each in given.order for name in each.split(",")])),
        tuple(notes),
    )


def _machines(a: End, b: End) -> list[str]:
    """How stored answers of ours were computed otherwise: no setting of a cell, so no factor of a chain."""
    if a.result is None or b.result is None or b.cell is None:
        return []
    one, other = a.result.manifest, b.result.manifest
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in ("device", "attention_backend")}
    libraries = sorted(one.versions.keys() & other.versions.keys())
    pairs |= {name: (one.versions[name], other.versions[name]) for name in libraries}
    changes = [f"{name} {old} and {new}" for name, (old, new) in pairs.items() if None not in (old, new) and old != new]
    return [f"A and B were answered with {', '.join(changes)}; no twin changes that alone"] if changes else []


def chains_of(bridge: Bridge, given: BridgeConfig, results: Path) -> list[Chain]:
    """The chain in the order of the factors and, with `BridgeConfig.both`, in the reverse one."""
    factors = list(bridge.factors)
    orders = [factors, factors[::-1]] if given.both and len(factors) > 1 else [factors]
    known = [end.cell for end in (bridge.a, bridge.b) if end.cell is not None]
    twins = within(Twins(known, results), subset_of(bridge, given))
    return [make_chain(bridge.start, order, twins, bridge.b.cell) for order in orders]


def within(twins: Twins, subset: str | None) -> Any:
    """Twins that answer a subset."""
    return lambda cell, changes: twins(cell, {"task.subset": subset, **changes})


def subset_of(bridge: Bridge, given: BridgeConfig) -> str | None:
    """The subset that twins answer: that of one end where the other asks everything."""
    subsets = [end.cell.task.subset for end in (bridge.a, bridge.b) if end.cell is not None]
    return given.subset or next((subset for subset in subsets if subset is not None), None)


def _pair(given: Sequence[str], name: str, default: tuple[str, str], allowed: Sequence[str]) -> tuple[str, str]:
    if not given:
        return default
    pair = (given[0], given[-1])
    if len(given) > 2 or not set(pair) <= set(allowed):
        listed = ", ".join(allowed)
        raise UserError(f"bridge.{name}={list(given)} is not known; give one or two of {listed}: bridge.{name}=[x,y]")
    return pair
