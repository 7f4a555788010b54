"""The verb ``bridge``: why two results differ, one factor at a time."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from harness.errors import UserError
from harness.fetch.prepare import prepare_embedded
from harness.plan import plan as planning
from harness.run import run as running
from harness.run.worker import INTERRUPTED
from harness.settings.cell import Cell
from harness.settings.groups import Config
from harness.tools.bridge.build import Bridge, build_bridge, chains_of
from harness.tools.bridge.ends import End, find_end, inherited
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
    for name in given.cells:
        config = inherited(config, name)
    console = Console(soft_wrap=True)
    first, second = given.cells
    a = find_end(first, config, _asked(second, config))
    b = find_end(second, config, a.asked)
    bridge = build_bridge(a, b, given, config)
    if not given.plan:
        folder_of(bridge, given.output, config.results)
    rejected: list[str] = []
    if given.search and not given.plan:
        status, bridge, rejected = search(bridge, given, config, lambda cells: answer(cells, config, console))
        if status == INTERRUPTED:
            return status
    chains = chains_of(bridge, given, Path(config.results))
    if given.plan:
        return _plan(bridge, chains, given, config, console)
    status = answer(needed(bridge, chains), config, console)
    if status == INTERRUPTED:
        return status
    store = Store(config.results)
    found = [measure(bridge, chain, store, config.report.confidence) for chain in chains]
    show(bridge, found, rejected, console)
    folder = folder_of(bridge, given.output, config.results)
    write(bridge, found, rejected, folder, config.report.confidence, console)
    return status


def _asked(name: str, config: Config) -> str:
    """Benchmark of an end that says it by itself; empty where it is a number of a published table."""
    try:
        end: End = find_end(name, config)
    except UserError:
        return ""
    return end.asked


def answer(cells: list[Cell], config: Config, console: Console) -> int:
    """Answer what is missing of cells, through the loop of `run`; nothing is said where nothing is. Status as `run`."""
    missing = Store(config.results).missing(cells)
    if not missing:
        return 0
    prepare_embedded(config.profile, config.data)
    plan = planning.make_plan(missing, config.results, config.data.root, config.run)
    planning.print_plan(plan, console)
    return running.answer(config, plan, console)


def _plan(bridge: Bridge, chains: list[Chain], given: BridgeConfig, config: Config, console: Console) -> int:
    """What the chains are and cost; runs nothing."""
    for chain in chains:
        lines = [f"A: {bridge.a.title}", *(f"  {link.factor.text}" for link in chain.links), f"B: {bridge.b.title}"]
        lines += [f"cannot be changed: {factor.text} ({why})" for factor, why in chain.left]
        console.print("\n".join(lines), markup=False, highlight=False)
    for note in bridge.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    if given.search:
        n = len(given.candidates)
        console.print(f"search: up to {n * (n + 1) // 2} twins, of which the first round is planned here")
    missing = Store(config.results).missing(needed(bridge, chains))
    if not missing:
        console.print("every cell is answered: nothing to run")
        return 0
    prepare_embedded(config.profile, config.data)
    plan = planning.make_plan(missing, config.results, config.data.root, config.run)
    planning.print_plan(plan, console)
    planning.report_problems(plan)
    return 0
