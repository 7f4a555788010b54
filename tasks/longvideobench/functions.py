"""LongVideoBench (https://github.com/longvideobench/LongVideoBench): referred reasoning, four or five options.

Rows are those of ``lvb_val.json`` and ``lvb_test_wo_gt.json`` (options in ``candidates``) or of the hub's parquet files
(``option0`` to ``option4``, "N/A" where absent), for example ``{id: "86CxyhFV9MI_0", video_id: "86CxyhFV9MI",
video_path: "86CxyhFV9MI.mp4", subtitle_path: "86CxyhFV9MI_en.json", question: "...", candidates: [...],
correct_choice: 1, duration_group: 15, question_category: "TOS"}``. The test split has no right answers.
Protocols: ``release_subtitles`` and ``release`` (the AdaReTaKe release with and without subtitles), ``lmms_eval``
(lmms-eval 0.7.3 ``longvideobench_val_v``, without subtitles).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.benchmarks.benchmark import Item, Row
from harness.benchmarks.files import Folder
from harness.benchmarks.parse import first_capital
from harness.benchmarks.questions import Answered
from harness.benchmarks.subtitles import ANSWER, LETTERS, choice_prompt, json_text, lettered, without_placeholder

ANNOTATIONS = {
    "val": ("lvb_val.json", "validation.parquet"),
    "test": ("lvb_test_wo_gt.json", "lvb_test.json", "test.parquet"),
}
ABSENT = "N/A"


def load(folder: Folder, split: str) -> list[Row]:
    names = ANNOTATIONS[split]
    path = folder.file(next((name for name in names if folder.place(name).exists()), names[0]), "the annotation")
    rows: list[Row]
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        rows = parquet.read_table(path).to_pylist()
    else:
        rows = json.loads(path.read_text(encoding="utf-8"))
    return rows


def item(row: Row) -> Item:
    choice = row.get("correct_choice")
    tags = {"duration_group": str(row["duration_group"]), "question_category": row["question_category"]}
    if row.get("topic_category"):
        tags["topic_category"] = row["topic_category"]
    return Item(
        question_id=row["id"],
        video_id=row["video_id"],
        video=(f"videos/{row['video_path']}",),
        options={letter: text for letter, text in lettered(_listed(row)).items() if text != ABSENT},
        answer=None if choice is None or choice < 0 else LETTERS[choice],
        tags=tags,
        video_s=row.get("duration"),
    )


def _listed(row: Row) -> list[str]:
    """The options in order, "N/A" ones included."""
    if row.get("candidates"):
        return [str(text) for text in row["candidates"]]
    return [row[f"option{i}"] for i in range(5) if row.get(f"option{i}") is not None]


def prompt(row: Row, protocol: str, folder: Folder) -> str:
    if protocol == "lmms_eval":
        listed = "\n".join(f"{letter}. {text}" for letter, text in lettered(_listed(row)).items() if text != ABSENT)
        return f"{row['question']}\n{listed}\n{ANSWER}\n"
    # The release asks only for the fifth option whether it is there.
    present = [text for i, text in enumerate(_listed(row)) if i < 4 or text != ABSENT]
    asked = choice_prompt(row["question"], lettered(present))
    if protocol == "release_subtitles":
        # The whole file, though a clip may be a part of the source that its subtitles are of (as in the release).
        subtitles = json_text(folder.file(f"subtitles/{row['subtitle_path']}", "a subtitle file"))
        asked = f"Subtitles: {subtitles}\n{asked}"
    return without_placeholder(asked)


def parse_lmms_eval(text: str, options: Mapping[str, str]) -> str | None:
    """lmms-eval 0.7.3 on LongVideoBench; where it draws a random letter, this is None."""
    return first_capital(text, "ABCDE")


PARSERS = {"lmms_eval_longvideobench": parse_lmms_eval}


def submission(answered: Sequence[Answered], scores: Mapping[str, float]) -> dict[str, Any]:
    """The board parses raw texts itself."""
    return {"longvideobench_test_for_submission.json": {each.row["id"]: each.text for each in answered}}
