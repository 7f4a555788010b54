"""The verb ``bridge``: why two results differ, one factor at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from harness.errors import UserError
from harness.evidence.cells import CellResult
from harness.fetch.prepare import prepare_embedded
from harness.plan import plan as planning
from harness.settings.cell import Cell
from harness.settings.compose import Recomposed
from harness.settings.groups import Config
from harness.tools import BridgeConfig
from harness.tools.bridge.chain import Bridge, Chain, build_bridge, make_chains
from harness.tools.bridge.ends import Ends, find_ends, inherited
from harness.tools.bridge.factors import ChangeCell, Factor
from harness.tools.bridge.measure import StoredCells, agreement, measure_chain, needed_cells
from harness.tools.bridge.page import bridge_folder, print_bridge, write_bridge

AnswerCells = Callable[[list[Cell]], int]
"""Answers cells; returns the status of `run`, and raises Interrupted after Ctrl-C."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM while cells were answered."""


def main(config: Config, settings: BridgeConfig) -> int:
    """Answer what the chain needs, then print, draw and write the waterfall.

    Returns:
        0; 1 where some answers of an intermediate configuration are stored as failed, 130 after Ctrl-C.

    Raises:
        UserError: an end is not known, the ends are of different benchmarks, or something keeps the intermediate
            configurations from running.
    """
    kept = inherited(settings.cells, config.results, config.words)
    config = Recomposed([*kept, *config.words]).under() if kept else config
    results, console = Path(config.results), Console(soft_wrap=True)
    ends = Ends(config.results, config.report.expected, config.model, tuple(config.words))
    bridge = build_bridge(*find_ends(settings.cells, ends), settings, results, config.words)

    def planned(missing: list[Cell]) -> planning.Plan:
        prepare_embedded(config.profile, config.data)
        plan = planning.make_plan(missing, config.results, config.data.root, config.run)
        planning.print_plan(plan, console, 0.0)
        return plan

    def answer(cells: list[Cell]) -> int:
        missing = StoredCells(results).missing(cells)
        if not missing:
            return 0
        from harness.run import run, worker  # late: only answering needs torch

        status = run.answer(run.Execution.of(config), planned(missing), console)
        if status == worker.INTERRUPTED:
            raise Interrupted
        return status

    if settings.plan:
        chains = make_chains(bridge, settings, results)
        _print_chains(bridge, chains, len(settings.candidates) if settings.search else 0, console)
        needed = needed_cells(bridge, chains)
        if settings.search:
            start = first_round(bridge, settings, results)
            reached, _ = reached_by(start.current, start.waiting, bridge.intermediates(results, settings.subset))
            needed = [*bridge.cells, start.current, *reached.values()]
        if missing := StoredCells(results).missing(needed):
            planning.report_problems(planned(missing))
        else:
            console.print("every cell is answered: nothing to run")
        return 0
    folder = bridge_folder(bridge, settings.output, results)
    rejected: list[str] = []
    try:
        if settings.search:
            bridge, rejected = search(bridge, settings, results, answer)
        chains = make_chains(bridge, settings, results)
        status = answer(needed_cells(bridge, chains))
    except Interrupted:
        return 130
    stored, confidence = StoredCells(results), config.report.confidence
    waterfalls = [measure_chain(bridge, chain, stored, confidence) for chain in chains]
    print_bridge(bridge, waterfalls, rejected, console)
    write_bridge(bridge, waterfalls, rejected, folder, confidence, console)
    return status


def _print_chains(bridge: Bridge, chains: list[Chain], candidates: int, console: Console) -> None:
    """Print the factors of each chain; of a search with the most configurations that it may need."""
    for chain in chains:
        lines = [f"A: {bridge.a.title}", *(f"  {link.factor.text}" for link in chain.links), f"B: {bridge.b.title}"]
        lines += [f"cannot be changed: {factor.text} ({why})" for factor, why in chain.left]
        console.print("\n".join(lines), markup=False, highlight=False)
    for note in bridge.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    if candidates:
        most = candidates * (candidates + 1) // 2
        console.print(f"search: up to {most} intermediate configurations; the plan below is of the first round")


@dataclass(frozen=True)
class FirstRound:
    """Where a search starts: B's answers, A under what B declares, and the factors of each kind."""

    imported: CellResult
    current: Cell
    declared: list[Factor]
    scoring: list[Factor]
    waiting: list[Factor]


def first_round(bridge: Bridge, settings: BridgeConfig, results: Path) -> FirstRound:
    """The start of a search.

    Raises:
        UserError: B is no import with answers per question.
    """
    imported, start = bridge.b.result, bridge.a.cell
    if imported is None or bridge.b.cell is not None or start is None:
        raise UserError("bridge.search is for an import as B: its answers say which candidate comes nearest")
    texts = settings.candidates
    tried = {*texts, *(text.partition("=")[0].removeprefix("matrix.") for text in texts)}
    declared = [factor for factor in bridge.factors if factor.name not in tried and not factor.scoring]
    scoring = [factor for factor in bridge.factors if factor.scoring]
    waiting = [factor for factor in bridge.factors if factor not in (*declared, *scoring)]
    changes = {path: value for factor in declared for path, value in factor.changes.items()}
    current = bridge.intermediates(results, settings.subset)(start, changes)
    return FirstRound(imported, current, declared, scoring, waiting)


def reached_by(cell: Cell, factors: Sequence[Factor], changed: ChangeCell) -> tuple[dict[str, Cell], dict[str, str]]:
    """The cell under each factor alone, by the factor's name; and why others have none."""
    reached: dict[str, Cell] = {}
    refused: dict[str, str] = {}
    for factor in factors:
        try:
            reached[factor.name] = changed(cell, factor.changes)
        except UserError as error:
            refused[factor.name] = str(error).splitlines()[0]
    return reached, refused


def search(bridge: Bridge, settings: BridgeConfig, results: Path, answer: AnswerCells) -> tuple[Bridge, list[str]]:
    """Find the candidates that an import was made with.

    In each round the candidate is taken whose configuration agrees with most of B's answers, as long as it agrees with
    more of them than the configuration before. The settings that B declares come first. Two candidates that have an
    effect only together are not found.

    Returns:
        The bridge with the taken candidates as its factors, and the candidates not taken, each with the reason.

    Raises:
        UserError: B has no answers per question.
        Interrupted: after Ctrl-C.
    """
    start = first_round(bridge, settings, results)
    imported, current, waiting = start.imported, start.current, list(start.waiting)
    changed = bridge.intermediates(results, settings.subset)

    def nearness(cell: Cell) -> float:
        ours = StoredCells(results).get(cell)
        return 0.0 if ours is None else agreement(ours, imported, bridge.end.parser)

    answer([current])
    taken: list[Factor] = []
    reasons: dict[str, str] = {}
    while waiting:
        reached, refused = reached_by(current, waiting, changed)
        reasons |= refused
        answer(list(reached.values()))
        before, after = nearness(current), {name: nearness(cell) for name, cell in reached.items()}
        for name, share in after.items():
            reasons[name] = f"answers like B's: {100 * before:.1f} % before, {100 * share:.1f} % with it"
        best = max(after, key=lambda name: after[name], default=None)
        if best is None or after[best] <= before:
            break
        taken += [factor for factor in waiting if factor.name == best]
        waiting = [factor for factor in waiting if factor.name != best]
        current = reached[best]
    rejected = [f"{factor.text}: {reasons.get(factor.name, 'not tried')}" for factor in waiting]
    return dataclasses.replace(bridge, factors=(*start.declared, *taken, *start.scoring)), rejected
