"""Published numbers as data, and whether a cell was run under the setting of one.

The files ``results/expected/*.yaml`` hold one published table each: rows x columns of scores, with the setting that a
number was published for. The setting of a number is the table's, the column's and the row's; the later one wins. A
key that is left out is not stated by the source; a list means any of its values.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from harness.benchmarks.benchmark import parser_names
from harness.errors import UserError
from harness.evidence.cells import CellResult
from harness.places import find

ASIDE = {"title", "metric", "parser"}
"""Keys of a column that are no setting."""


@dataclass(frozen=True)
class Published:
    """One published number: ``score`` is percent accuracy rounded to ``digits``, measured at ``setting``."""

    table: str
    row: str
    column: str
    title: str
    source: str
    metric: str
    score: float
    digits: int
    setting: dict[str, Any]
    parser: str
    """A parser's name: the one that made the number, so the one that ours meets it with."""
    quoted: bool = False
    """Another model's number that the source quotes; the harness cannot run it."""
    margin: float | None = None
    """Points within which it counts as reproduced; ``report.margin`` when None."""

    @property
    def id(self) -> str:
        """``A.full.mlvu``."""
        return f"{self.table}.{self.row}.{self.column}"

    @property
    def task(self) -> str:
        """Benchmark of the number."""
        return str(self.setting["task"])

    @property
    def rounding(self) -> float:
        """Half a unit of the last published digit, in points."""
        return 0.5 * 10.0**-self.digits

    @property
    def text(self) -> str:
        """The score with the published digits."""
        return f"{self.score:.{self.digits}f}"

    def differences(self, cell: CellResult) -> list[str]:
        """Settings in which the cell is not what the number was published for; empty when all stated ones agree.

        Weights that are not what the model's name promises come first: then nothing else matters.
        """
        found = [cell.mismatch] if cell.mismatch else []
        for key, theirs in self.setting.items():
            ours = cell.setting.get(key, "none")
            allowed = theirs if isinstance(theirs, list) else [theirs]
            if not any(ours == value and isinstance(ours, bool) == isinstance(value, bool) for value in allowed):
                found.append(f"{key}: {_word(ours)} here, {' or '.join(map(_word, allowed))} published")
        if "replicate" not in self.setting and cell.setting["replicate"]:
            found.append(f"replicate: {cell.setting['replicate']} here, the published order of options published")
        if "subset" not in self.setting and cell.setting["subset"] != "none":
            found.append(f"subset: {cell.setting['subset']} here, whole benchmark published")
        return found


@dataclass(frozen=True)
class Claim:
    """A statement that a source makes from its numbers: row ``a`` against row ``b`` on columns.

    direction: ``up`` (a above b), ``down`` or ``none`` (no effect beyond the neutral margin).
    each: one verdict per column instead of one for the mean over the columns.
    """

    id: str
    table: str
    text: str
    a: str
    b: str
    columns: list[str]
    direction: str
    published: float | None = None
    each: bool = False


@dataclass(frozen=True)
class PublishedTable:
    """One published table."""

    id: str
    name: str
    title: str
    source: str
    digits: int
    columns: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]]
    notes: list[str]
    claims: list[Claim]
    parser: str
    setting: dict[str, Any]
    margin: float | None

    @cached_property
    def numbers(self) -> dict[tuple[str, str], Published]:
        """(row id, column id) -> the number; cells of the table that the source leaves empty are absent."""
        numbers = {}
        for row in self.rows:
            for name, score in row["scores"].items():
                column, of_row = self.columns[name], row.get("setting", {})
                of_column = {key: value for key, value in column.items() if key not in ASIDE}
                setting = {**self.setting, **of_row, **of_column, **of_row}  # messages name a row's settings first
                numbers[row["id"], name] = Published(
                    table=self.id,
                    row=row["id"],
                    column=name,
                    title=row.get("title", row["id"]),
                    source=row.get("source", self.source),
                    metric=column["metric"],
                    score=float(score),
                    digits=int(row.get("digits", self.digits)),
                    setting={key: value for key, value in setting.items() if value is not None},
                    parser=column.get("parser", self.parser),
                    quoted=bool(row.get("quoted", False)),
                    margin=self.margin,
                )
        return numbers


def load_tables(folder: Path | str) -> list[PublishedTable]:
    """All published tables in the order of their letters. UserError where there is none, or a file is not one.

    A relative folder that does not exist is looked up among what comes with the product.
    """
    folder = find(folder)
    tables = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            tables.append(_table(yaml.safe_load(path.read_text(encoding="utf-8"))))
        except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise UserError(f"{path} is not a published table ({error!r}); see {folder}/readme_main.yaml") from error
    if not tables:
        raise UserError(f"report.expected={folder} holds no *.yaml; the published tables are in results/expected")
    return sorted(tables, key=lambda table: table.id)


def _table(data: dict[str, Any]) -> PublishedTable:
    columns = set(data["columns"])
    rows = {row["id"] for row in data["rows"]}
    claims = [Claim(table=data["table"], **claim) for claim in data.get("claims", [])]
    for row in data["rows"]:
        if unknown := set(row["scores"]) - columns:
            raise KeyError(f"row {row['id']}: unknown columns {sorted(unknown)}")
    for claim in claims:
        if unknown := ({claim.a, claim.b} - rows) | (set(claim.columns) - columns):
            raise KeyError(f"claim {claim.id}: unknown rows or columns {sorted(unknown)}")
        if claim.direction not in ("up", "down", "none"):
            raise KeyError(f"claim {claim.id}: direction {claim.direction!r} is not up, down or none")
    for parser in (data["parser"], *(about.get("parser", data["parser"]) for about in data["columns"].values())):
        if parser not in parser_names():
            raise KeyError(f"parser {parser!r} is not one of {', '.join(parser_names())}")
    known = {"notes": [], "setting": {}, "margin": None} | data | {"id": data["table"], "claims": claims}
    return PublishedTable(**{field.name: known[field.name] for field in fields(PublishedTable)})


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
