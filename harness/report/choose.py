"""Which stored cells a command is about: those of the configured matrix, in its order, or all that there are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.benchmarks.config import TaskConfig
from harness.config import Config, method_schema
from harness.errors import UserError
from harness.models.config import ModelConfig
from harness.plan.cell import GROUPS
from harness.plan.matrix import build_cells
from harness.report.cells import CellResult
from harness.report.loading import load_cells
from harness.setting import REQUIRED, rule_of
from harness.video.config import VideoConfig


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


def setting_key(record: dict[str, Any]) -> dict[str, Any]:
    """What a cell was asked to do, the same before and after a change of code: no digests, no runtime knobs.

    A field that the record does not know has its default, and one that the code does not know any more is left out: a
    new setting leaves stored cells what they are, and an old one leaves it to the answers whether something changed.

    Args:
        record: a manifest's ``cell``, or such a key.
    """
    key: dict[str, Any] = {"context": record.get("context")}
    for group in GROUPS:
        values = record.get(group, {})
        fields = _fields(group, values.get("name"))
        known = {f.name: values.get(f.name, _default(f)) for f in fields if not rule_of(f).runtime}
        key[group] = known or values
    return dict(json.loads(json.dumps(key, sort_keys=True)))


def _fields(group: str, name: Any) -> Sequence[dataclasses.Field[Any]]:
    """Fields of a group's schema; none for a method that is not there any more."""
    try:
        schemas = {"model": ModelConfig, "video": VideoConfig, "task": TaskConfig}
        return dataclasses.fields(schemas[group] if group in schemas else method_schema(str(name)))
    except UserError:
        return ()


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default in (dataclasses.MISSING, REQUIRED) else field.default


def differing(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    """Where two setting keys differ: ``method.positions: float -> v5``."""
    found = []
    for key in sorted(set(a) | set(b)):
        name, old, new = f"{prefix}{key}", a.get(key), b.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differing(old, new, f"{name}.")
        elif old != new:
            found.append(f"{name}: {old} -> {new}")
    return found
