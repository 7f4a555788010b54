"""The questions of a cell as asked, so that what is missing and every score can be recomputed without the data."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.advice import harness
from harness.errors import UserError
from harness.store.manifest import read_manifest
from harness.store.records import seal, unseal, write_atomic

SCHEMA = 2
FILE = "questions.jsonl"


@dataclass(frozen=True)
class QuestionRecord:
    """One question of a cell."""

    question_id: str
    video_id: str
    options: dict[str, str] = field(default_factory=dict)  # letter -> text
    answer: str | None = None  # gold letter; None when it is not public
    tags: dict[str, Any] = field(default_factory=dict)  # duration group, question type, ...
    prompt_digest: str | None = None  # of the text asked: a changed prompt is noticed on the next start


def as_file(questions: Iterable[QuestionRecord]) -> bytes:
    """The content of a cell's file of questions.

    Raises UserError when two questions share an id.
    """
    lines: list[bytes] = []
    seen: set[str] = set()
    for question in questions:
        if question.question_id in seen:
            raise UserError(
                f"question id {question.question_id!r} occurs twice: ids must be unique within a task. "
                "Check the task's question_id() against its annotations (python -m harness verify)."
            )
        seen.add(question.question_id)
        lines.append(seal({"schema": SCHEMA, **vars(question)}))
    return b"".join(lines)


def write_questions(cell_dir: Path | str, questions: Iterable[QuestionRecord]) -> None:
    """Write the cell's questions in their order, atomically; an equal file is left alone.

    Raises UserError when two questions share an id.
    """
    content = as_file(questions)
    path = Path(cell_dir) / FILE
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)


def read_questions(cell_dir: Path | str) -> list[QuestionRecord]:
    """The cell's questions in the order asked.

    Raises UserError when the file is absent, empty, damaged, edited or of another schema.
    """
    path = Path(cell_dir) / FILE
    if not path.is_file():
        raise UserError(f"{path} is absent: {written_anew(cell_dir)}")
    questions = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = unseal(line)
            if (schema := record.pop("schema", None)) != SCHEMA:
                raise ValueError(f"schema {schema!r}, this version reads {SCHEMA}")
            questions.append(QuestionRecord(**record))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path}, line {number} is not a question record ({error}); {written_anew(cell_dir)}"
            ) from error
    if not questions:
        raise UserError(f"{path} is empty, and no cell asks nothing; {written_anew(cell_dir)}")
    return questions


def written_anew(cell_dir: Path | str) -> str:
    """What writes the file of questions anew, in words: the run that made the cell; answers stay."""
    try:
        words = read_manifest(cell_dir).runtime.get("overrides", ())
    except UserError:
        words = ()
    path = shlex.quote(str(Path(cell_dir) / FILE))
    return f"it is written anew from the annotations: rm -f {path} && {harness('run', words)}"
