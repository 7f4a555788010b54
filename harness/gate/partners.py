"""Which cells of two results folders belong together, and what each pair was answered with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.evidence.cells import CellResult
from harness.evidence.choose import key_of
from harness.gate.compare import LADDER, NEAR
from harness.settings.cell import key_differences

OF_START = ("device", "attention_backend", "instruction_set")


@dataclass(frozen=True)
class Partners:
    """A cell of folder A and one of folder B; ``settings`` are the lines in which what was asked of them differs."""

    a: CellResult
    b: CellResult
    settings: list[str]

    @property
    def name(self) -> str:
        """The id in A, and that in B where it is another."""
        return self.a.id if self.a.id == self.b.id else f"{self.a.id} / {self.b.id}"

    @property
    def environment(self) -> list[str]:
        """What answered them, where it differs: ``torch: 2.11.0 -> 2.12.0``; several values where a cell has them."""
        return key_differences(environment(self.a), environment(self.b))


def match(
    a: Sequence[CellResult], b: Sequence[CellResult]
) -> tuple[list[Partners], list[CellResult], list[CellResult]]:
    """Cells of the same setting; of the others those that are the same row of a table, the most alike first.

    Another context or another number of frames is another row, never the same one changed.

    Returns:
        The pairs, in the order of `a`, and what is left of `a` and of `b`.
    """
    of_setting = {repr(key_of(cell)): cell for cell in b}
    found = [Partners(x, y, []) for x in a if (y := of_setting.get(repr(key_of(x)))) is not None]
    rest_a = [cell for cell in a if all(cell is not pair.a for pair in found)]
    rest_b = [cell for cell in b if all(cell is not pair.b for pair in found)]
    near = []
    for x in rest_a:
        for y in rest_b:
            if _row(x) == _row(y):
                lines = key_differences(key_of(x), key_of(y))
                if not any(line.startswith(LADDER) for line in lines):
                    near.append((len(lines), x.id, y.id, Partners(x, y, lines)))
    for *_, pair in sorted(near, key=lambda entry: entry[:3]):
        if any(cell is pair.a for cell in rest_a) and any(cell is pair.b for cell in rest_b):
            found.append(pair)
            rest_a = [cell for cell in rest_a if cell is not pair.a]
            rest_b = [cell for cell in rest_b if cell is not pair.b]
    order = {cell.id: place for place, cell in enumerate(a)}
    return sorted(found, key=lambda pair: order[pair.a.id]), rest_a, rest_b


def _row(cell: CellResult) -> tuple[Any, ...]:
    key = key_of(cell)
    return tuple(key.get(group, {}).get(name) for group, name in (path.split(".") for path in NEAR))


def environment(cell: CellResult) -> dict[str, str]:
    """What answered a cell: libraries, commit, device, weights, declared versions; of all its starts."""
    manifest = cell.manifest
    starts = [vars(manifest), *manifest.starts]
    found: dict[str, set[str]] = {}
    for start in starts:
        versions = start.get("versions") or {}
        said = {**versions, "commit": (start.get("git") or {}).get("commit"), **{n: start.get(n) for n in OF_START}}
        for name, value in said.items():
            found.setdefault(name, set()).add(str(value))
    of_cell = {f"declared {name}": version for name, version in cell.cell.get("versions", {}).items()}
    of_cell |= {"weights": cell.cell.get("weights")}
    return {name: ", ".join(sorted(values)) for name, values in found.items()} | {k: str(v) for k, v in of_cell.items()}
