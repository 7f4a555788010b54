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
from harness.evidence.loading import bracketed, find_name, is_stored, load_cells, matching, stored_names
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
        name: id of a cell or of a published number.
        title: for tables.
        benchmark: name of its benchmark.
        parser: the parser of its score.
        cell: its setting as it would be run now; None where only a part of the setting is known.
        result: its answers; None where there are none yet, or none per question.
        published: the published number.
        declared: the known settings of an end without a cell, in the words of `CellResult.setting`.
    """

    name: str
    title: str
    benchmark: str
    parser: str
    cell: Cell | None = None
    result: CellResult | None = None
    published: Published | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)

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
    stored, imported = stored_names(runs), stored_names(imports)
    if matching(name, stored):
        return _stored(find_name(name, stored, str(runs)), ends)
    if matching(name, imported):
        (result,) = load_imported(ends.results, [find_name(name, imported, str(imports))])
        title = f"{result.id} (imported)"
        return End(result.id, title, result.benchmark, result.parser, result=result, declared=result.declared)
    number = _published(name, ends.expected, other)
    if number is not None:
        title = f"{number.id} ({number.text})"
        return End(number.id, title, number.task, number.parser, published=number, declared=number.setting)
    raise UserError(
        f"bridge: {name!r} is no cell below {ends.results}/runs, no import and no published number. See them: "
        f"{harness('report', ends.words)}; write a setting in brackets: '[task=mlvu,frames=64,context=1000]'"
    )


def _stored(name: str, ends: Ends) -> End:
    """A stored cell of ours, with its setting as it would be run now.

    Raises:
        UserError: its method, adapter or benchmark is not there any more.
    """
    (result,) = load_cells(ends.results, [name])
    cell, now = Cell.from_record(result.cell), ends.model
    if now.name == cell.model.name:
        here = {key: getattr(now, key) for key in ("path", "device", "device_map", "attention")}
        cell = dataclasses.replace(cell, model=dataclasses.replace(cell.model, **here))
    cell = cell.now(weights_of(cell, [cell]))
    return End(name, name, result.benchmark, result.parser, cell=cell, result=result)


def weights_of(cell: Cell, known: Sequence[Cell]) -> str:
    """The digest of a cell's weights: of those on this machine, else of a known cell of the same model.

    Raises:
        UserError: there is neither.
    """
    try:
        return weights_identity(find_weights(cell.model.path, cell.model.fetch).resolve())
    except UserError:
        for other in known:
            if other.model.name == cell.model.name and other.weights != "unknown":
                return other.weights
        raise


def inherited(names: Sequence[str], results: str, words: Sequence[str]) -> list[str]:
    """Profile, data, weights and engine that stored cells were started with, where the command line sets none."""
    kept: list[str] = []
    runs = Path(results) / "runs"
    stored = stored_names(runs)
    for cell in [cells[0] for name in names if not name.startswith("[") and (cells := matching(name, stored))]:
        keys = {word.split("=")[0] for word in (*words, *kept)}
        of_start = read_manifest(runs / cell).runtime.get("overrides", [])
        kept += [word for word in of_start if (key := word.split("=")[0]).startswith(KEPT) and key not in keys]
    return kept


def _setting(name: str, ends: Ends) -> End:
    """A setting in brackets: one cell of the command line with these settings."""
    cells = cells_under(ends.words, bracketed(name))
    if len(cells) > 1:
        listed = "\n  ".join(cell.id for cell in cells)
        raise UserError(
            f"bridge: {name} is {len(cells)} cells; say more, such as task=mlvu,variant=full,context=1000:\n  {listed}"
        )
    (cell,) = cells
    if is_stored(ends.results, cell.id):
        return _stored(cell.id, ends)
    parser = benchmark(cell.task.data).protocol(cell.task.protocol).parser
    return End(cell.id, cell.id, cell.task.data, parser, cell=cell)


def _published(name: str, folder: str, other: str) -> Published | None:
    """``B.full.mlvu``, ``B.4.mlvu`` (row by number); ``B.full`` is the number of the other end's benchmark."""
    letter, _, rest = name.partition(".")
    table = next((table for table in load_tables(folder) if table.id == letter), None)
    if table is None or not rest:
        return None
    ids = [row["id"] for row in table.rows]
    keys = {row: (row, str(place)) for place, row in enumerate(ids, start=1)}
    named = {(key, column): number for (row, column), number in table.numbers.items() for key in keys[row]}
    numbers = [number for (row, column), number in named.items() if rest == f"{row}.{column}"]
    numbers += [number for (row, _), number in named.items() if rest == row and number.task == other]
    if len(numbers) == 1:
        return numbers[0]
    raise UserError(
        f"bridge: table {letter} has no number {rest!r}; rows: {', '.join(ids)}; columns: "
        f"{', '.join(table.columns)}; write {letter}.<row>.<column>"
    )
