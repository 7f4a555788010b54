"""Stored cells of real identity with known answers: what a run of that setting would have left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cell_folders import SEEN

from harness.settings.cell import Cell
from harness.settings.compose import compose_config
from harness.settings.matrix import build_cells
from harness.store import (
    Answer,
    FrameRecords,
    Manifest,
    QuestionRecord,
    failed_answer,
    write_manifest,
    write_questions,
)

BASE = ("matrix=ablation", "matrix.task=[mlvu]", "matrix.variant=[full]", "matrix.context=[65]", "matrix.frames=[64]")


def one_cell(*words: str) -> Cell:
    """The one cell of `BASE` with other words."""
    again = {word.split("=")[0] for word in words}
    (cell,) = build_cells(compose_config([*(word for word in BASE if word.split("=")[0] not in again), *words]))
    return cell


def write_twin(results: Path, cell: Cell, asked: Sequence[QuestionRecord], said: str, **record: Any) -> Path:
    """Write a cell's folder.

    Args:
        said: one sign per question: a letter, ``+`` the right one, ``-`` a wrong one, ``?`` no letter, ``!`` a failure,
            a space for no answer.
        record: changes of the manifest's ``cell``.
    """
    folder = results / "runs" / cell.id
    write_manifest(folder, Manifest(cell.id, cell.digest, cell.record() | record, status="complete"))
    write_questions(folder, asked)
    FrameRecords(results).keep(SEEN)
    lines = []
    for question, sign in zip(asked, said, strict=True):
        right = question.answer or "A"
        texts = {"+": right, "-": "ABCD"[("ABCD".index(right) + 1) % 4], "?": "I do not know"}
        if sign == "!":
            lines.append(failed_answer(question.question_id, question.video_id, RuntimeError("no frames")))
        elif sign != " ":
            text = texts.get(sign, sign)
            lines.append(Answer(question.question_id, question.video_id, "ok", text=text, frames=SEEN.digest))
    (folder / "answers.jsonl").write_bytes(b"".join(line.to_line(folder.name) for line in lines))
    return folder
