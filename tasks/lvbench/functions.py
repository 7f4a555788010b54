"""LVBench (https://github.com/zai-org/LVBench): 103 videos of an hour, four options inside the question.

``video_info.meta.jsonl`` has one line per video; here every question is a row: the keys of its entry in ``qa`` beside
``key``, ``type`` (of the video) and ``video_info``, for example ``{key: "Cm73ma6Ibcs", type: "sport", uid: "1",
question: "...?\\n(A) x\\n(B) y\\n(C) z\\n(D) w", answer: "D", question_type: ["entity recognition", "reasoning"]}``.
A question may have several types and counts in each.
Protocols: ``release`` (the AdaReTaKe release) and ``lmms_eval`` (lmms-eval 0.7.3).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.benchmarks.benchmark import Item, Row
from harness.benchmarks.files import Folder
from harness.benchmarks.questions import Answered
from harness.benchmarks.subtitles import ANSWER, without_placeholder
from harness.errors import QuestionError


def load(folder: Folder, split: str) -> list[Row]:
    """One row per question, with its video's keys."""
    path = folder.file("video_info.meta.jsonl", "the annotation")
    videos = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [{"key": v["key"], "type": v["type"], "video_info": v["video_info"], **q} for v in videos for q in v["qa"]]


def item(row: Row) -> Item:
    minutes = (row.get("video_info") or {}).get("duration_minutes")
    return Item(
        question_id=str(row["uid"]),
        video_id=row["key"],
        video=(f"videos/{row['key']}",),
        options=dict(re.findall(r"^\(([A-Z])\) ?(.*)$", row["question"], flags=re.MULTILINE)),
        answer=row["answer"],
        tags={"question_type": list(row["question_type"]), "video_type": row["type"]},
        video_s=None if minutes is None else 60.0 * minutes,
        evidence=_evidence(row.get("time_reference") or ""),
    )


def _evidence(reference: str) -> tuple[tuple[float, float], ...]:
    """A time reference such as ``00:15-00:19`` in seconds; nothing where it is of another form."""
    clock = r"((?:\d+:)?\d+:\d+(?:\.\d+)?)"
    found = re.fullmatch(rf"\s*{clock}\s*-\s*{clock}\s*", reference)
    if found is None:
        return ()
    start, stop = (sum(float(x) * 60**i for i, x in enumerate(reversed(t.split(":")))) for t in found.groups())
    return ((start, stop),) if start <= stop else ()


def prompt(row: Row, protocol: str, folder: Folder) -> str:
    question: str = row["question"]
    if protocol == "lmms_eval":
        return f"{question}\nAnswer the question with the option letter"
    if "(E)" in question:
        raise QuestionError(
            f"LVBench question {row['uid']} has a fifth option, and the release's prompt is for four; leave the "
            "question out of the annotation, or ask it with task=lvbench_stock"
        )
    question = question.replace("\n(A)", "\nOptions:\nA.")
    for letter in "BCD":
        question = question.replace(f"\n({letter})", f"\n{letter}.")
    return without_placeholder(f"{question}.\n{ANSWER}")


SUBMITTED = {
    "KIR": "type_key_information_retrieval",
    "EU": "type_event_understanding",
    "Sum": "type_summarization",
    "ER": "type_entity_recognition",
    "Rea": "type_reasoning",
    "TG": "type_temporal_grounding",
    "Overall": "overall",
}


def submission(answered: Sequence[Answered], scores: Mapping[str, float]) -> dict[str, Any]:
    """Letters, every uid among them: the official script leaves absent ones out of the denominator. Scores as
    fractions.
    """
    letters = {str(each.row["uid"]): each.letter for each in answered}
    result = {key: scores[name] / 100 for key, name in SUBMITTED.items() if name in scores}
    return {"lvbench_answers.json": letters, "result.json": result}
