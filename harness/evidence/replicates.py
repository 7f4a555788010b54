"""Which cells are replicates of one another: a reproduction repeated with what is random in it drawn anew."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from harness.benchmarks.questions import as_published
from harness.evidence.cells import CellResult
from harness.evidence.loading import key_of, newest

RANDOM: dict[str, tuple[str, ...]] = {
    "replicate": ("task.replicate", "method.seed"),
    "numerics": ("model.dtype", "model.numerics"),
    "prompt": ("task.name", "task.protocol"),
}
"""What a reproduction may draw anew -> the settings in which such cells differ."""


@dataclass(frozen=True)
class Replicates:
    """Cells alike but for one kind of chance, in the order of the tables; ``kind`` is a key of `RANDOM`."""

    kind: str
    cells: tuple[CellResult, ...]


def replicates(cells: Sequence[CellResult]) -> list[Replicates]:
    """Every set of two cells or more that differ in one kind of chance only.

    Of cells of one setting the newest counts. A cell may stand in one set of each kind.
    """
    found = []
    for kind in RANDOM:
        sets: dict[str, list[CellResult]] = defaultdict(list)
        for cell in newest(cells):
            sets[family(cell, kind)].append(cell)
        found += [Replicates(kind, tuple(each)) for each in sets.values() if len(each) > 1]
    return found


def family(cell: CellResult, kind: str) -> str:
    """The cell's setting without what this kind of chance draws: equal for replicates of one another."""
    return cell.once(("family", kind), lambda: _family(cell, kind))


def _family(cell: CellResult, kind: str) -> str:
    kept = {}
    for group, values in key_of(cell).items():
        whole = not isinstance(values, dict)
        kept[group] = values if whole else {k: v for k, v in values.items() if f"{group}.{k}" not in RANDOM[kind]}
    return json.dumps([cell.benchmark, kept], sort_keys=True)


def published_letters(cell: CellResult, parser: str | None = None) -> list[str | None]:
    """`CellResult.letters` as letters of the published order of the options."""
    asked = [(question.question_id, question.options) for question in cell.questions]
    return as_published(cell.letters(parser), asked, cell.cell["task"].get("replicate", 0))
