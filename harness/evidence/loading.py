"""Reading the cells of a results folder."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.advice import aside
from harness.errors import UserError
from harness.evidence.asked import AskedOnce
from harness.evidence.cells import SCORE, CellResult
from harness.store import FrameRecords, read_answers, read_manifest
from harness.store.questions import FILE as QUESTIONS
from harness.store.questions import written_anew
from harness.store.records import EditedError, NotRecordError, unseal


def load_cells(results: Path | str, patterns: Sequence[str] = ()) -> list[CellResult]:
    """All cells below ``results/runs``, in the order of the tables; arguments and errors as of `cell_names`.

    Raises:
        UserError: a folder that is damaged.
    """
    return sorted(each_cell(results, cell_names(results, patterns)), key=_place)


def cell_names(results: Path | str, patterns: Sequence[str] = ()) -> list[str]:
    """Ids of the cells below ``results/runs``, sorted; nothing of them is read.

    Args:
        results: the results folder.
        patterns: cell ids, ``*`` allowed; empty for all.

    Raises:
        UserError: a pattern that matches nothing.
    """
    root = Path(results) / "runs"
    names = sorted(path.parent.name for path in root.glob("*/manifest.json"))
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            known = "\n  ".join(names) or f"none: {root} has no cell yet (python -m harness run)"
            raise UserError(f"{pattern!r} matches no cell; there are\n  {known}")
    return [name for name in names if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def each_cell(results: Path | str, names: Iterable[str]) -> Iterator[CellResult]:
    """The cells of these ids, each read when it is asked for.

    Raises:
        UserError: a folder that is damaged.
    """
    frames, asked = FrameRecords(results), AskedOnce()
    return (_load(Path(results) / "runs" / name, frames, asked) for name in names)


def _load(folder: Path, frames: FrameRecords, asked: AskedOnce) -> CellResult:
    answers, manifest, own = read_answers(folder), read_manifest(folder), asked.of(folder)
    if lost := sorted(answers.keys() - own.ids):
        raise UserError(
            f"{folder / QUESTIONS} lacks {len(lost)} questions that are answered (the first: {lost[0]}): it was cut "
            f"short; {written_anew(folder)}\nWhere the annotations have lost them, move it away: {aside(folder)}"
        )
    frames.check(answers.values())
    return CellResult(folder, manifest, own, answers, frames, _read_score(folder))


def _read_score(folder: Path) -> dict[str, Any] | None:
    """Content of ``score.json``; None where there is none or it is not as it was written: it is made again."""
    try:
        return unseal((folder / SCORE).read_bytes())
    except (OSError, NotRecordError, EditedError):
        return None


def _place(cell: CellResult) -> tuple[Any, ...]:
    """Order of the tables: toy first, then model, benchmark, frames, context (uncompressed first), the ablation's own
    order."""
    setting, order = cell.setting, ("no_both", "no_layer", "no_temporal", "full", "")
    context = setting["context"] if isinstance(setting["context"], int) else 0
    where = (not cell.toy, setting["model"], cell.benchmark, cell.task, setting["frames"], setting["fps"], context)
    method = (setting.get("semantics", ""), setting["method"], order.index(cell.variant))
    return (*where, *method, cell.id)
