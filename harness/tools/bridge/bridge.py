"""The verb ``bridge``: why two results differ, one factor at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from harness.errors import UserError
from harness.fetch.prepare import prepare_embedded
from harness.plan import plan as planning
from harness.run import run as running
from harness.run.worker import INTERRUPTED
from harness.settings.cell import Cell
from harness.settings.compose import Recomposed
from harness.settings.groups import Config
from harness.tools.bridge.build import Bridge, build_bridge, chains_of
from harness.tools.bridge.ends import Ends, find_end, inherited
from harness.tools.bridge.factors import Chain
from harness.tools.bridge.measure import Store, measure, needed
from harness.tools.bridge.page import folder_of, show, write
from harness.tools.bridge.search import search
from harness.tools.bridge.verbs import BridgeConfig


def main(config: Config, given: BridgeConfig) -> int:
    """Answer what the chain needs, then print, draw and write the waterfall.

    Returns:
        0; 1 where some answers of a twin are stored as failed, 130 after Ctrl-C.

    Raises:
        UserError: an end is not known, the ends are of different benchmarks, or something keeps the twins from running.
    """
    if len(given.cells) != 2:
        raise UserError(f"bridge: name two results, A and B; {len(given.cells)} given: python -m harness bridge A B")
    kept = inherited(given.cells, config.results, config.words)
    config = Recomposed([*kept, *config.words]).under() if kept else config
    ends = Ends(config.results, config.report.expected, config.model, tuple(config.words))
    results, console = Path(config.results), Console(soft_wrap=True)
    first, second = given.cells
    a = find_end(first, ends, _asked(second, ends))
    b = find_end(second, ends, a.asked)
    bridge = build_bridge(a, b, given, ends)

    def planned(missing: list[Cell]) -> planning.Plan:
        prepare_embedded(config.profile, config.data)
        plan = planning.make_plan(missing, config.results, config.data.root, config.run)
        planning.print_plan(plan, console)
        return plan

    def answer(cells: list[Cell]) -> int:
        """Answer what is missing of cells, through the loop of `run`; prints nothing where nothing is missing."""
        missing = Store(results).missing(cells)
        return running.answer(running.Execution.of(config), planned(missing), console) if missing else 0

    if given.plan:
        return _plan(bridge, chains_of(bridge, given, results), given, results, planned, console)
    folder = folder_of(bridge, given.output, config.results)
    rejected: list[str] = []
    if given.search:
        status, bridge, rejected = search(bridge, given, results, answer)
        if status == INTERRUPTED:
            return status
    chains = chains_of(bridge, given, results)
    status = answer(needed(bridge, chains))
    if status == INTERRUPTED:
        return status
    store = Store(results)
    found = [measure(bridge, chain, store, config.report.confidence) for chain in chains]
    show(bridge, found, rejected, console)
    write(bridge, found, rejected, folder, config.report.confidence, console)
    return status


def _asked(name: str, ends: Ends) -> str:
    """Benchmark of an end that says it by itself; empty where it is a number of a published table."""
    try:
        return find_end(name, ends).asked
    except UserError:
        return ""


def _plan(
    bridge: Bridge,
    chains: list[Chain],
    given: BridgeConfig,
    results: Path,
    planned: Callable[[list[Cell]], planning.Plan],
    console: Console,
) -> int:
    """Print the chains and their cost; runs nothing."""
    for chain in chains:
        lines = [f"A: {bridge.a.title}", *(f"  {link.factor.text}" for link in chain.links), f"B: {bridge.b.title}"]
        lines += [f"cannot be changed: {factor.text} ({why})" for factor, why in chain.left]
        console.print("\n".join(lines), markup=False, highlight=False)
    for note in bridge.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    if given.search:
        n = len(given.candidates)
        console.print(f"search: up to {n * (n + 1) // 2} twins, of which the first round is planned here")
    missing = Store(results).missing(needed(bridge, chains))
    if not missing:
        console.print("every cell is answered: nothing to run")
        return 0
    planning.report_problems(planned(missing))
    return 0
