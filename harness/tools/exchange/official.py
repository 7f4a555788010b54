"""Files of answers that the benchmarks' own scripts read.

Video-MME (``eval_your_results.py``): a list of videos, each with ``questions`` of ``question_id``, ``question``,
``options``, ``answer`` and ``response``. MLVU (``test_res.json``): a list of ``question_id``, ``question_type`` and the
letter as ``option``. Neither says anything of the setting.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from harness.tools.exchange.matching import options_of
from harness.tools.exchange.rows import ImportedFile, ImportedRow, damaged, read_row, text_of


def recognises(path: Path) -> bool:
    """Whether a file is one of these, by its content."""
    if path.suffix != ".json":
        return False
    text = text_of(path)
    listed = text.lstrip().startswith("[")
    return listed and (
        '"questions"' in text and '"response"' in text or '"question_type"' in text and '"option"' in text
    )


def read(path: Path) -> ImportedFile:
    """The answers of one file.

    Raises:
        UserError: it is of neither form; the message names the row.
    """
    try:
        content = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise damaged(path, "", f"is not JSON ({error})") from error
    if not isinstance(content, list) or not content or not all(isinstance(row, dict) for row in content):
        raise damaged(path, "", "is not a list of videos or of answers")
    if "questions" in content[0]:
        rows = [
            read_row(
                path, f"video {v}, question {q}", partial(_of_videomme, f"video {v}, question {q}", video, question)
            )
            for v, video in enumerate(content, start=1)
            for q, question in enumerate(video["questions"], start=1)
        ]
        return ImportedFile("official", (path,), "videomme", rows, {}, "release")
    rows = [read_row(path, f"row {i}", partial(_of_mlvu, f"row {i}", row)) for i, row in enumerate(content, start=1)]
    return ImportedFile("official", (path,), "mlvu_test", rows, {}, "release")


def _of_videomme(place: str, video: dict[str, Any], question: dict[str, Any]) -> ImportedRow:
    return ImportedRow(
        place=place,
        text=_text(question.get("response")),
        ids=(str(question["question_id"]),),
        video=str(video.get("videoID") or ""),
        question=str(question.get("question") or ""),
        options=options_of(question.get("options") or ()),
        gold=_text(question.get("answer")),
    )


def _of_mlvu(place: str, row: dict[str, Any]) -> ImportedRow:
    return ImportedRow(
        place=place, text=_text(row["option"]), ids=(str(row["question_id"]),), letter=_text(row["option"])
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
