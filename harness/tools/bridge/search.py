"""Which candidates an import was made with: those that bring our answers nearer to its answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from harness.errors import UserError
from harness.evidence.replicates import published_letters
from harness.run.worker import INTERRUPTED
from harness.settings.cell import Cell
from harness.tools.bridge.build import Bridge, Twins, subset_of, within
from harness.tools.bridge.factors import Factor
from harness.tools.bridge.measure import Store
from harness.tools.bridge.scoring import agreement
from harness.tools.bridge.verbs import BridgeConfig


def search(
    bridge: Bridge, given: BridgeConfig, results: Path, answer: Callable[[list[Cell]], int]
) -> tuple[int, Bridge, list[str]]:
    """Take one candidate after the other, each time the one whose twin agrees with most of B's answers, for as long as
    one agrees with more than its predecessor does.

    What B itself declares is taken first. Two candidates that bring nothing alone and something together are not found.

    Args:
        answer: answers cells; returns a status as `run` does.

    Returns:
        The status, the bridge with the taken candidates as its factors, and what was not taken, with why.

    Raises:
        UserError: B has no answers per question.
    """
    if bridge.b.result is None or bridge.b.cell is not None or bridge.a.cell is None:
        raise UserError("bridge.search is for an import as B: its answers say which candidate comes nearest")
    words = given.candidates
    tried = {*words, *(each.partition("=")[0].removeprefix("matrix.") for each in words)}
    fixed = [factor for factor in bridge.factors if factor.name not in tried or factor.scoring]
    waiting = [factor for factor in bridge.factors if factor not in fixed]
    twins = within(Twins([bridge.a.cell], results), subset_of(bridge, given))
    current = twins(bridge.a.cell, _all_changes(factor for factor in fixed if not factor.scoring))
    status = answer([current])
    taken: list[Factor] = []
    reasons: dict[str, str] = {}
    while waiting and status != INTERRUPTED:
        reached: dict[str, Cell] = {}
        for factor in waiting:
            try:
                reached[factor.name] = twins(current, factor.changes)
            except UserError as error:
                reasons[factor.name] = str(error).splitlines()[0]
        status = answer(list(reached.values()))
        if status == INTERRUPTED:
            break
        now = _nearness(current, bridge, results)
        near = {name: _nearness(cell, bridge, results) for name, cell in reached.items()}
        reasons |= {
            name: f"answers like B's: {100 * now:.1f} % before, {100 * of:.1f} % with it" for name, of in near.items()
        }
        best = max(near, key=lambda name: near[name], default=None)
        if best is None or near[best] <= now:
            break
        taken += [factor for factor in waiting if factor.name == best]
        waiting = [factor for factor in waiting if factor.name != best]
        current = reached[best]
    left = [f"{factor.text}: {reasons.get(factor.name, 'not tried')}" for factor in waiting]
    own = [factor for factor in fixed if not factor.scoring]
    scoring = [factor for factor in fixed if factor.scoring]
    return status, dataclasses.replace(bridge, factors=(*own, *taken, *scoring)), left


def _all_changes(factors: object) -> dict[str, object]:
    changes: dict[str, object] = {}
    for factor in factors:  # type: ignore[attr-defined]
        changes |= factor.changes
    return changes


def _nearness(cell: Cell, bridge: Bridge, results: Path) -> float:
    """Share of B's answers that a twin gives too."""
    ours, theirs = Store(results).get(cell), bridge.b.result
    if ours is None or theirs is None:
        return 0.0
    return agreement(
        ours, theirs, published_letters(ours, bridge.end.parser), published_letters(theirs, bridge.end.parser)
    )
