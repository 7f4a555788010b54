"""MLVU (https://github.com/JUNJIE99/MLVU): seven multiple-choice tasks (dev, four options) and nine (test, six).

Rows are those of the official JSON files, for example
``{video: "needle_32.mp4", duration: 467.98, question: "...", candidates: ["a", ...], answer: "a", question_type:
"findNeedle"}``, with two keys added: ``folder`` (where its video lies) and, where the file has none,
``question_id``. The two generation tasks of dev have no candidates; they are the split ``generation``, without a right
answer here (``tasks/mlvu/judge.py`` scores them).
Protocols: ``release`` (the AdaReTaKe release) and ``lmms_eval`` (lmms-eval 0.7.3).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.benchmarks.benchmark import Item, Row
from harness.benchmarks.files import Folder
from harness.benchmarks.questions import Answered
from harness.benchmarks.subtitles import choice_prompt, lettered, without_placeholder

OPEN_TYPES = ("subPlot", "summary")
"""Types of questions without candidates."""


def load(folder: Folder, split: str) -> list[Row]:
    """The multiple-choice rows of ``json/*.json``, of split ``test`` those of ``test/json/*.json``; of split
    ``generation`` the other rows of ``json/*.json``.
    """
    if split == "test":
        rows = _merged(_files(folder, "test/json"))
        return [{**row, "folder": "test/videos"} for row in rows]
    rows = [
        {"candidates": [], **row, "folder": f"videos/{path.stem}"}
        for path, listed in _files(folder, "json")
        for row in listed
        if (not row.get("candidates") and row["question_type"] in OPEN_TYPES) == (split == "generation")
    ]
    _number(rows)
    return rows


def _files(folder: Folder, name: str) -> list[tuple[Path, list[Row]]]:
    paths = sorted(folder.file(name, "the folder of annotations").glob("*.json"))
    return [(path, json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def _merged(files: Iterable[tuple[Path, list[Row]]]) -> list[Row]:
    """Each multiple-choice question of the test split once.

    The hub has a question up to three times: in ``test_multi_choice_tasks.json``, with its answer in
    ``test-ground-truth/test_mcq_gt.json``, and in ``MLVU_Test/test_question.json``. The row with the answer counts; an
    answer whose row has nothing but the id is joined by that.
    """
    found: dict[str, Row] = {}
    answers: dict[str, Any] = {}
    for path, rows in files:
        for row in rows:
            name = row.get("question_id")
            if name and row.get("answer") is not None:
                answers[name] = row["answer"]
            if not row.get("candidates"):
                continue
            known = found.setdefault(name or f"{path.name} {len(found)}", row)
            if _asked(known) != _asked(row):
                raise ValueError(f"{path.name} asks another question {name} than a file before it")
            if known.get("answer") is None and row.get("answer") is not None:
                found[name or ""] = row
    rows = list(found.values())
    _number(rows)
    return [{**row, "answer": row.get("answer", answers.get(row["question_id"]))} for row in rows]


def _asked(row: Row) -> tuple[str, ...]:
    return (Path(row["video"]).name, row["question"].strip(), *(str(text).strip() for text in row["candidates"]))


def _number(rows: list[Row]) -> None:
    """Name the rows that have no id after what they ask, so that an id does not depend on the row's place."""
    seen: Counter[str] = Counter()
    for row in rows:
        if not row.get("question_id"):
            asked = json.dumps([row["video"], row["question"], row.get("candidates")], ensure_ascii=False)
            digest = hashlib.sha1(asked.encode(errors="replace")).hexdigest()[:8]
            name = f"{row['question_type']}-{Path(row['video']).stem}-{digest}"
            seen[name] += 1
            row["question_id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"


def item(row: Row) -> Item:
    """The video is named after its file: 216 names recur in several task folders and are the same video. It lies in the
    folder of its task or, as in some copies, among all videos.
    """
    options = lettered([str(candidate) for candidate in row.get("candidates") or []])
    return Item(
        question_id=row["question_id"],
        video_id=Path(row["video"]).stem,
        video=(f"{row['folder']}/{row['video']}", f"videos/{row['video']}"),
        options=options,
        answer=_letter(row.get("answer"), options),
        tags={"question_type": row["question_type"]},
        video_s=row.get("duration"),
    )


def _letter(answer: Any, options: Mapping[str, str]) -> str | None:
    """The letter of the first candidate that equals the answer; None where there is none.

    Dev answers are texts. 6 of 2175 are the text of two candidates; the release takes the first, the official
    script the last. Test answers may be letters.
    """
    by_text = next((letter for letter, text in options.items() if text == str(answer)), None)
    return by_text or (str(answer) if answer in options else None)


def prompt(row: Row, protocol: str, folder: Folder) -> str:
    options = item(row).options
    if protocol == "lmms_eval" and options:
        # lmms-eval's mirror has the options inside the question; their format there is inferred, not read.
        listed = "\n".join(f"({letter}) {text}" for letter, text in options.items())
        # Its test task has no instruction at all.
        closing = "" if row["folder"].startswith("test") else "\nOnly give the best option.\nBest option: ("
        return f"{row['question']}\n{listed}{closing}"
    return without_placeholder(choice_prompt(row["question"], options) if options else row["question"])


def evaluated(row: Row, protocol: str) -> bool:
    """Whether the protocol asks this question: the release leaves out two dev rows without a right candidate."""
    asked = item(row)
    unanswerable = row.get("answer") is not None and bool(asked.options) and asked.answer is None
    return not (protocol == "release" and unanswerable)


def submission(answered: Sequence[Answered], scores: Mapping[str, float]) -> dict[str, Any]:
    """One entry per question; ``question_type`` is the annotation's own, not a display name."""
    listed = [
        {"question_id": each.row["question_id"], "question_type": each.row["question_type"], "option": each.letter}
        for each in answered
    ]
    return {"mlvu_test_submission.json": listed}
