"""Which stored cells a command is about: those of the configured matrix, in its order, or all that there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.evidence.cells import CellResult
from harness.evidence.loading import load_cells
from harness.settings.cell import setting_key
from harness.settings.groups import Config
from harness.settings.matrix import build_cells


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


def choose(config: Config) -> Chosen:
    """The cells that a configuration asks for.

    Raises:
        UserError: the matrix cannot be built, or a stored cell cannot be read.
    """
    problems: list[str] = []
    names = wanted(config, problems)
    return Chosen(load_cells(config.results, config.report.cells), names, tuple(dict.fromkeys(problems)))


def wanted(config: Config, problems: list[str] | None = None) -> list[str]:
    """Ids of the cells that a configuration asks for, see `Chosen`.

    Args:
        problems: where missing weights are noted, for which no ids are known.

    Raises:
        UserError: the matrix cannot be built.
    """
    problems = [] if problems is None else problems
    names = [] if config.report.cells else [cell.id for cell in build_cells(config, problems)]
    return [] if problems else names


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
