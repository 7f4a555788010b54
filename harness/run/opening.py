"""Opening the folders of cells: nobody else writes them, and what they hold belongs to what is about to be asked."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.advice import aside
from harness.errors import UserError
from harness.run.environment import git_state, versions
from harness.run.work import OpenCell
from harness.store import (
    Manifest,
    Outcomes,
    QuestionRecord,
    hold,
    open_cell,
    read_outcomes,
    read_questions,
    write_questions,
)
from harness.store.questions import FILE as QUESTIONS
from harness.store.questions import as_file

if TYPE_CHECKING:
    from harness.benchmarks.questions import Question
    from harness.settings.cell import Cell


def open_folder(
    cell: Cell,
    folder: Path,
    questions: Sequence[Question],
    runtime: Mapping[str, Any],
    locks: contextlib.ExitStack,
    *,
    recorded: Recorded | None = None,
    known: Outcomes | None = None,
    keep_others: bool = False,
) -> OpenCell:
    """Take a cell's folder for this process, write its manifest and questions.

    Args:
        cell: what is answered in it.
        folder: of its records; made where it is absent.
        questions: what is asked.
        runtime: how it is run, for the manifest.
        locks: holds the folder until it is closed.
        recorded: the questions as they are recorded; siblings share them.
        known: the cell's outcomes, which count where nothing has been written since.
        keep_others: recorded questions that are not asked this time stay recorded.

    Raises:
        UserError: the folder is in use, holds something foreign, or a question has changed since it was answered.
    """
    locks.enter_context(hold(folder / ".lock"))
    open_cell(folder, make_manifest(cell, runtime))
    outcomes, recorded = read_outcomes(folder, known), recorded or record(questions)
    path = folder / QUESTIONS
    if path.is_file() and path.read_bytes() != recorded.content:
        held = {r.question_id: r for r in read_questions(folder)} if outcomes.of or keep_others else {}
        for name, asked in recorded.records.items():
            if name in outcomes.of and name in held and held[name].prompt_digest != asked.prompt_digest:
                raise UserError(
                    f"question {name} of {folder.name} reads differently from when it was answered: "
                    f"its annotations or prompt have changed. Put the data back, or move the old answers away "
                    f"({aside(folder)}) and answer anew."
                )
        others = [asked for name, asked in held.items() if name not in recorded.records] if keep_others else []
        write_questions(folder, [*others, *recorded.records.values()])
    elif not path.is_file():
        write_questions(folder, recorded.records.values())
    return OpenCell(cell, folder, questions, outcomes)


@dataclass(frozen=True)
class Recorded:
    """Questions as a cell records them: by id, and as the content of the file."""

    records: dict[str, QuestionRecord]
    content: bytes


def record(questions: Sequence[Question]) -> Recorded:
    """Questions as a cell records them."""
    records = {
        q.question_id: QuestionRecord(
            q.question_id, q.video_id, dict(q.options), q.answer, dict(q.tags), prompt_digest(q)
        )
        for q in questions
    }
    return Recorded(records, as_file(records.values()))


def make_manifest(cell: Cell, runtime: Mapping[str, Any]) -> Manifest:
    """The manifest of a cell that starts now."""
    return Manifest(
        cell_id=cell.id,
        digest=cell.digest,
        cell=cell.record(),
        versions=versions(),
        git=git_state(),
        runtime=dict(runtime),
    )


def prompt_digest(question: Question) -> str:
    """Digest of what is asked: prompt and options. A changed annotation file shows here."""
    text = repr((question.prompt, sorted(question.options.items())))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
