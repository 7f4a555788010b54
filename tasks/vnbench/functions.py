"""VNBench (https://github.com/joez17/VideoNIAH): needles inserted into videos, asked four times with shuffled options.

Rows are those of ``VNBench-main-4try.json``, for example ``{video: "./VNBench/v_x_ord_insert2.mp4", question: "...",
options: ["a", "b", "c", "d"], gt: "b", type: "ord_insert2", try: 0}``. A sample counts as right only if all its four
tries are right.
Protocol: ``official``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from harness.benchmarks.benchmark import Item, Row
from harness.benchmarks.files import Folder
from harness.benchmarks.questions import Answered
from harness.benchmarks.subtitles import ANSWER, lettered


def load(folder: Folder, split: str) -> list[Row]:
    """Four rows per sample."""
    path = folder.file("VNBench-main-4try.json", "the annotation")
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def item(row: Row) -> Item:
    name = PurePosixPath(row["video"]).stem
    options = lettered([str(option) for option in row["options"]])
    return Item(
        question_id=f"{name}_{row['type']}_{row['try']}",
        video_id=name,
        video=(f"videos/{PurePosixPath(row['video']).name}",),
        options=options,
        answer=next((letter for letter, text in options.items() if text == str(row["gt"])), None),
        tags={"task": row["type"].split("_")[0], "type": row["type"], "sample": f"{name}_{row['type']}"},
    )


def prompt(row: Row, protocol: str, folder: Folder) -> str:
    listed = "\n".join(f"{letter}. {text}" for letter, text in item(row).options.items())
    return f"{row['question']}\n{listed}\n{ANSWER}"


def parse_official(text: str, options: Mapping[str, str]) -> str | None:
    """The official ``evaluation/eval.py``: the first in the alphabet of A to D anywhere before the first full stop."""
    sentence = text.split(".")[0]
    return next((letter for letter in "ABCD" if letter in sentence), None)


PARSERS = {"vnbench": parse_official}


def submission(answered: Sequence[Answered], scores: Mapping[str, float]) -> dict[str, Any]:
    """One line per try, as the official ``eval.py`` reads them: it parses ``pred`` itself."""
    lines = [
        {
            "question_id": each.question.question_id,
            "pred": each.letter,
            "gt": each.question.answer,
            "type": each.row["type"],
            "try": each.row["try"],
            "prompt": each.question.prompt,
        }
        for each in answered
    ]
    return {"vnbench_answers.jsonl": lines}
