"""Video-MME (https://github.com/MME-Benchmarks/Video-MME): 900 videos, three questions each, four options.

Rows are those of the hub's parquet file, for example
``{videoID: "AbC_d1E2f3G", question_id: "001-1", duration: "short", question: "...", options: ["A. x.", ...],
answer: "C"}``.
Protocols: ``release`` and ``release_subtitles`` (the AdaReTaKe release), ``lmms_eval`` (lmms-eval 0.7.3, no subtitles).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.benchmarks.benchmark import Item, Row
from harness.benchmarks.files import Folder
from harness.benchmarks.questions import Answered
from harness.benchmarks.subtitles import ANSWER, cut_to_tokens, srt_text, without_placeholder

LMMS_EVAL_HEAD = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
SECONDS = {"short": 80.0, "medium": 520.0, "long": 2450.0}
"""Rough mean of each group (254 h over 900 videos): the annotation has no lengths."""


def load(folder: Folder, split: str) -> list[Row]:
    import pyarrow.parquet as parquet

    rows: list[Row] = parquet.read_table(folder.file(f"{split}.parquet", "the annotation")).to_pylist()
    return rows


def item(row: Row) -> Item:
    """The rows' options start with their letter."""
    return Item(
        question_id=row["question_id"],
        video_id=row["videoID"],
        video=(f"videos/{row['videoID']}",),
        options={option[0]: option[2:].strip() for option in row["options"]},
        answer=row["answer"],
        tags={key: row[key] for key in ("duration", "domain", "sub_category", "task_type")},
        video_s=SECONDS.get(row["duration"]),
    )


def prompt(row: Row, protocol: str, folder: Folder) -> str:
    listed = "\n".join(row["options"])
    if protocol == "lmms_eval":
        return f"{LMMS_EVAL_HEAD}\n{row['question']}\n{listed}\n\n{ANSWER}"
    asked = without_placeholder(f"{row['question']}\nOptions:\n{listed}\n{ANSWER}")
    subtitles = _subtitles(row, asked, folder) if protocol == "release_subtitles" else ""
    return without_placeholder(
        f"This video's subtitles are listed below:\n{subtitles}\n{asked}" if subtitles else asked
    )


def _subtitles(row: Row, asked: str, folder: Folder) -> str:
    folder.file("subtitles", "the folder of subtitles")
    path = folder.place(f"subtitles/{row['videoID']}.srt")
    # The release counts the question's tokens with its placeholder of the video; 744 of 900 videos have subtitles.
    return cut_to_tokens(srt_text(path), f"<video>{asked}") if path.exists() else ""


def submission(answered: Sequence[Answered], scores: Mapping[str, float]) -> dict[str, Any]:
    """One entry per video with its questions, in the annotation's order."""
    videos: dict[str, Row] = {}
    for each in answered:
        entry = {key: each.row[key] for key in ("video_id", "duration", "domain", "sub_category")}
        questions = videos.setdefault(each.row["video_id"], {**entry, "questions": []})["questions"]
        asked = {key: each.row[key] for key in ("question_id", "task_type", "question", "options", "answer")}
        questions.append({**asked, "response": each.letter})
    return {"videomme_submission.json": list(videos.values())}
