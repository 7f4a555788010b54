"""The two ends of a bridge: a stored cell, a setting yet to be run, an import, a published number."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.advice import harness
from harness.benchmarks.benchmark import benchmark
from harness.errors import UserError
from harness.evidence.cells import CellResult
from harness.evidence.imported import FOLDER, load_imported
from harness.evidence.loading import bracketed, find_name, load_cells, matching, stored_names
from harness.settings.cell import Cell
from harness.settings.groups import ModelConfig
from harness.settings.matrix import cells_under
from harness.settings.weights import find_weights, weights_identity
from harness.store import read_manifest
from harness.verdicts.expected import Published, load_tables

KEPT = ("profile", "data.root", "model.path", "engine")
"""Settings that a stored cell was started with and its intermediate configurations keep."""


@dataclass(frozen=True)
class End:
    """One end.

    Attributes:
        title: for tables.
        cell: its setting as it would be run now; None where only a part of the setting is known.
        result: its answers; None where there are none yet, or none per question.
        published: the published number.
        declared: the known settings of an end without a cell, in the words of `CellResult.setting`.
    """

    title: str
    cell: Cell | None = None
    result: CellResult | None = None
    published: Published | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For the name of a folder."""
        if self.published is not None:
            return self.published.id
        return self.result.id if self.result is not None else self.cell.id if self.cell is not None else ""

    @property
    def parser(self) -> str:
        """The parser that its score is made with."""
        if self.published is not None:
            return self.published.parser
        if self.result is not None:
            return self.result.parser
        assert self.cell is not None
        return benchmark(self.cell.task.data).protocol(self.cell.task.protocol).parser

    @property
    def benchmark(self) -> str:
        """Name of its benchmark."""
        if self.published is not None:
            return self.published.task
        if self.result is not None:
            return self.result.benchmark
        assert self.cell is not None
        return self.cell.task.data

    @property
    def stale(self) -> str:
        """How versions and weights of the stored answers differ from those of today; empty where they do not."""
        if self.cell is None or self.result is None or self.cell.id == self.result.id:
            return ""
        then, now = self.result.cell, self.cell.versions
        changes = ["weights"] if then.get("weights") != self.cell.weights else []
        before = then.get("versions", {})
        changes += [f"{name} {before.get(name)} -> {of}" for name, of in now.items() if before.get(name) != of]
        return ", ".join(changes) or "identity"


@dataclass(frozen=True)
class Ends:
    """Where the ends of a bridge are looked up.

    Attributes:
        results: the results folder.
        expected: the folder of published tables.
        model: of the command line: where the weights of a model of its name are, and the device.
        words: settings of the command line.
    """

    results: str
    expected: str
    model: ModelConfig
    words: tuple[str, ...]


def find_ends(names: Sequence[str], ends: Ends) -> tuple[End, End]:
    """Both ends. A row of a published table without a column means the benchmark of the other end.

    Raises:
        UserError: not two names, or one that is not known.
    """
    if len(names) != 2:
        raise UserError(f"bridge: name two results, A and B; {len(names)} given: python -m harness bridge A B")
    try:
        of_second = find_end(names[1], ends).benchmark
    except UserError:  # a number that needs the other end's benchmark, or an error that comes up again below
        of_second = ""
    first = find_end(names[0], ends, of_second)
    return first, find_end(names[1], ends, first.benchmark)


def find_end(name: str, ends: Ends, other: str = "") -> End:
    """The end of a name, see `BridgeConfig.cells`.

    Args:
        ends: where to look.
        other: benchmark of the other end, for a row of a published table.

    Raises:
        UserError: nothing has that name, or several have.
    """
    if name.startswith("["):
        return _setting(name, ends)
    runs, imports = (Path(ends.results) / folder for folder in ("runs", FOLDER))
    own, imported = stored_names(runs), stored_names(imports)
    if matching(name, own):
        return stored_end(find_name(name, own, str(runs)), ends)
    if matching(name, imported):
        (result,) = load_imported(ends.results, [find_name(name, imported, str(imports))])
        return End(f"{result.id} (imported)", result=result, declared=result.declared)
    number = _published(name, ends.expected, other)
    if number is not None:
        return End(f"{number.id} ({number.text})", published=number, declared=number.setting)
    raise UserError(
        f"bridge: {name!r} is no cell below {ends.results}/runs, no import and no published number. See them: "
        f"{harness('report', ends.words)}; write a setting in brackets: '[task=mlvu,frames=64,context=1000]'"
    )


def stored_end(name: str, ends: Ends) -> End:
    """A stored cell of ours."""
    (result,) = load_cells(ends.results, [name])
    return End(name, cell=cell_of(result, ends.model), result=result)


def cell_of(result: CellResult, now: ModelConfig) -> Cell:
    """The setting of a stored cell as it would be run now.

    Raises:
        UserError: its method, adapter or benchmark is not there any more.
    """
    cell = Cell.from_record(result.cell)
    if now.name == cell.model.name:
        model = dataclasses.replace(
            cell.model, path=now.path, device=now.device, device_map=now.device_map, attention=now.attention
        )
        cell = dataclasses.replace(cell, model=model)
    return cell.now(Weights([cell])(cell))


class Weights:
    """Digests of weights: those on this machine, else those that stored cells of the same model have."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._known = {cell.model.name: cell.weights for cell in cells if cell.weights != "unknown"}

    def __call__(self, cell: Cell) -> str:
        """The digest of a cell's weights.

        Raises:
            UserError: they are neither on this machine nor known.
        """
        try:
            return weights_identity(find_weights(cell.model.path, cell.model.fetch).resolve())
        except UserError:
            if cell.model.name in self._known:
                return self._known[cell.model.name]
            raise


def inherited(names: Sequence[str], results: str, words: Sequence[str]) -> list[str]:
    """Profile, data, weights and engine that stored cells were started with, where the command line sets none."""
    kept: list[str] = []
    for name in names:
        runs = Path(results) / "runs"
        if name.startswith("[") or not (found := matching(name, stored_names(runs))):
            continue
        then = read_manifest(runs / found[0]).runtime.get("overrides", [])
        given = {word.split("=")[0] for word in (*words, *kept)}
        kept += [word for word in then if (key := word.split("=")[0]).startswith(KEPT) and key not in given]
    return kept


def _setting(name: str, ends: Ends) -> End:
    """A setting in brackets: one cell of the command line with these settings."""
    cells = cells_under(ends.words, bracketed(name))
    if len(cells) > 1:
        listed = "\n  ".join(cell.id for cell in cells)
        raise UserError(
            f"bridge: {name} is {len(cells)} cells; say more, such as task=mlvu,variant=full,context=1000:\n  {listed}"
        )
    stored = cells[0].id in stored_names(Path(ends.results) / "runs")
    return stored_end(cells[0].id, ends) if stored else End(cells[0].id, cell=cells[0])


def _published(name: str, folder: str, other: str) -> Published | None:
    """``B.full.mlvu``, ``B.4.mlvu`` (row by number); without a column the one of the other end's benchmark."""
    letter, _, rest = name.partition(".")
    table = next((table for table in load_tables(folder) if table.id == letter), None)
    if table is None or not rest:
        return None
    rows = {str(k): row["id"] for k, row in enumerate(table.rows, start=1)} | {
        row["id"]: row["id"] for row in table.rows
    }
    whole = {
        f"{key}.{column}": number for (row, column), number in table.numbers.items() for key in rows if rows[key] == row
    }
    if rest in whole:
        return whole[rest]
    fitting = [number for key, number in whole.items() if key.rpartition(".")[0] == rest and number.task == other]
    if len(fitting) == 1:
        return fitting[0]
    raise UserError(
        f"bridge: table {letter} has no number {rest!r}; rows: {', '.join(row['id'] for row in table.rows)}; columns: "
        f"{', '.join(table.columns)}; write {letter}.<row>.<column>"
    )
