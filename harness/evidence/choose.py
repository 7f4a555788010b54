"""Which stored cells a command is about: those of the configured matrix, in its order, or all that there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.evidence.cells import CellResult
from harness.evidence.loading import Ids, load_cells
from harness.settings.cell import Cell, setting_key


@dataclass(frozen=True)
class Chosen:
    """The cells of one command.

    stored: all of the results folder that ``report.cells`` matches. wanted: ids of the configured matrix; empty where
    ``report.cells`` names the cells, or where the ids are not known because the weights are not on this machine;
    unknown: then what is missing.
    """

    stored: list[CellResult]
    wanted: list[str]
    unknown: tuple[str, ...] = ()

    @property
    def cells(self) -> list[CellResult]:
        """The wanted ones that are stored, in the order of the matrix."""
        by_id = {cell.id: cell for cell in self.stored}
        return [by_id[name] for name in self.wanted if name in by_id]

    @property
    def absent(self) -> list[str]:
        """Ids that are wanted and not stored."""
        stored = {cell.id for cell in self.stored}
        return [name for name in self.wanted if name not in stored]


def choose(
    results: str, references: Sequence[str], matrix: Callable[[list[str]], Sequence[Cell]], ids_under: Ids
) -> Chosen:
    """The cells that a command asks for.

    Args:
        results: the results folder.
        references: those of ``report.cells``, see `harness.evidence.loading.matching`.
        matrix: makes the cells of the configured matrix, and notes missing weights in its argument.
        ids_under: what a setting in brackets means.

    Raises:
        UserError: the matrix cannot be built, or a stored cell cannot be read.
    """
    names, problems = wanted(references, matrix)
    return Chosen(load_cells(results, references, ids_under), names, problems)


def wanted(
    references: Sequence[str], matrix: Callable[[list[str]], Sequence[Cell]]
) -> tuple[list[str], tuple[str, ...]]:
    """Ids of the cells that a command asks for, and the problems that leave them unknown; see `Chosen`.

    Raises:
        UserError: the matrix cannot be built.
    """
    problems: list[str] = []
    names = [] if references else [cell.id for cell in matrix(problems)]
    return ([] if problems else names), tuple(dict.fromkeys(problems))


def newest(cells: Sequence[CellResult]) -> list[CellResult]:
    """The latest cell of each setting: older ones stem from other code, weights or prompts."""
    latest: dict[str, CellResult] = {}
    for cell in cells:
        key = _key_text(cell)
        if key not in latest or cell.manifest.created > latest[key].manifest.created:
            latest[key] = cell
    return list(latest.values())


def _key_text(cell: CellResult) -> str:
    return cell.once("key text", lambda: json.dumps(key_of(cell), sort_keys=True))


def key_of(cell: CellResult) -> dict[str, Any]:
    """The `setting_key` of a cell."""
    return cell.once("key", lambda: setting_key(cell.cell))
