"""A cell of ours as the writers of other formats see it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.advice import aside
from harness.benchmarks.questions import Question, load_asked
from harness.errors import UserError
from harness.evidence.cells import CellResult
from harness.settings.groups import TaskConfig
from harness.store import Answer, QuestionRecord, write_atomic

LEDGER = ".written.json"


@dataclass(frozen=True)
class Exported:
    """One question of a cell and its answer.

    `row` and `asked` are of the annotation, None where it is not on this disk: a cell's own files hold no texts of
    questions. `letter` and `correct` are by the cell's parser; `correct` is None without a right answer.
    """

    record: QuestionRecord
    answer: Answer
    letter: str | None
    correct: bool | None
    row: Mapping[str, Any] | None
    asked: Question | None

    @property
    def prompt(self) -> str:
        """The text that was asked; empty where it is not known."""
        return self.asked.prompt if self.asked else ""

    @property
    def question(self) -> str:
        """The question alone; empty where it is not known."""
        return str((self.row or {}).get("question", ""))


def exported(cell: CellResult, data: Path) -> list[Exported]:
    """The answered questions of a cell, in the order asked; failures are among them, missing answers are not."""
    known = {question.question_id: (row, question) for row, question in _annotation(cell, data)}
    found = []
    parts = zip(cell.questions, cell.letters(), cell.correct().tolist(), strict=True)
    for record, letter, correct in parts:
        answer = cell.answers.get(record.question_id)
        row, asked = known.get(record.question_id, (None, None))
        if answer is not None:
            right = None if math.isnan(correct) else bool(correct)
            found.append(Exported(record, answer, letter, right, row, asked))
    return found


def _annotation(cell: CellResult, data: Path) -> list[tuple[Any, Question]]:
    """Rows and questions of what the cell asked; none where the annotation is not there, or is another one."""
    task = cell.cell["task"]
    named = {name: task.get(name) for name in ("name", "split", "protocol", "subset")}
    try:
        listed = load_asked(TaskConfig(data=cell.benchmark, **named), data)
    except UserError:
        return []
    own = {record.question_id: record.options for record in cell.questions}
    same = all(own.get(asked.question_id, asked.options) == asked.options for _, asked in listed)
    return listed if same else []


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files below a folder, each whole or not at all; one that lies there is replaced only if it is as it was
    written here before.

    Raises:
        UserError: a file was not written here, or was changed since.
    """
    ledger = folder / LEDGER
    try:
        known: dict[str, list[str]] = json.loads(ledger.read_text(encoding="utf-8")) if ledger.exists() else {}
        if not isinstance(known, dict) or not all(isinstance(each, list) for each in known.values()):
            raise ValueError("it is no list of digests by file")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{ledger} is damaged ({error}); move the folder away: {aside(folder)}") from error
    for name in files:
        path = folder / name
        if path.exists() and _digest(path.read_bytes()) not in known.get(name, []):
            raise UserError(
                f"{path} is not as an export wrote it, and is left alone; move it away ({aside(path)}) or "
                "choose another folder with output=<folder>"
            )
    digests = {name: [_digest(content)] for name, content in files.items()}
    either = {name: known.get(name, []) + new for name, new in digests.items()}  # of an export that is interrupted
    write_atomic(ledger, json.dumps(known | either, indent=1) + "\n")
    for name, content in files.items():
        write_atomic(folder / name, content)
    write_atomic(ledger, json.dumps(known | digests, indent=1) + "\n")
    return [folder / name for name in files]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
