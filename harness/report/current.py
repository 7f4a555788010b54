"""Which of the stored cells the current configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import UserError
from harness.report.baseline import setting_key
from harness.report.cells import CellResult


def current_ids(config: Any) -> list[str]:
    """Ids of the cells of the configured matrix, in its order; empty where they cannot be known.

    Ids hold the digest of the weights, so they are unknown on a machine without the weights, such as a laptop that
    holds only results.
    """
    try:
        from harness.plan.matrix import build_cells  # late: a report of given cells needs nothing of the run room
    except ImportError:
        return []
    try:
        return [cell.id for cell in build_cells(config)]
    except UserError:
        return []


def newest(cells: Sequence[CellResult]) -> list[CellResult]:
    """The latest cell of each setting: older ones stem from other code, weights or prompts."""
    latest: dict[str, CellResult] = {}
    for cell in cells:
        key = repr(setting_key(cell.cell))
        if key not in latest or cell.manifest.created > latest[key].manifest.created:
            latest[key] = cell
    return list(latest.values())
