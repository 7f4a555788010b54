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
from pathlib import Path

from harness.benchmarks.prompts import ANSWER, protocol_of, root_of
from harness.benchmarks.root import find_video, require
from harness.benchmarks.scoring import choice_results
from harness.errors import UserError

PROTOCOLS = ("release", "lmms_eval")
SPLITS = ("test",)


def load(root: Path, split: str = "test") -> list[dict]:
    """One row per question, with its video's keys."""
    path = require(root / "lvbench" / "video_info.meta.jsonl", "the annotation", "lvbench")
    videos = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [{"key": v["key"], "type": v["type"], "video_info": v["video_info"], **q} for v in videos for q in v["qa"]]


def question_id(doc: dict) -> str:
    return str(doc["uid"])


def video_id(doc: dict) -> str:
    return doc["key"]


def video_path(root: Path, doc: dict) -> Path:
    return find_video(root / "lvbench" / "videos", doc["key"])


def options(doc: dict) -> dict[str, str]:
    return dict(re.findall(r"^\(([A-Z])\) ?(.*)$", doc["question"], flags=re.MULTILINE))


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    question = doc["question"]
    if protocol_of(lmms_eval_specific_kwargs, PROTOCOLS) == "lmms_eval":
        return f"{question}\nAnswer the question with the option letter"
    if "(E)" in question:
        raise UserError(
            f"LVBench question {doc['uid']} has a fifth option, and the release's prompt is for four; leave the "
            "question out of the annotation, or ask it with task=lvbench_stock"
        )
    question = question.replace("\n(A)", "\nOptions:\nA.")
    for letter in "BCD":
        question = question.replace(f"\n({letter})", f"\n{letter}.")
    return f"{question}.\n{ANSWER}"


def doc_to_visual(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> list[str]:
    return [str(video_path(root_of(lmms_eval_specific_kwargs), doc))]


def doc_to_target(doc: dict) -> str | None:
    return doc["answer"]


def tags(doc: dict) -> dict[str, str | list[str]]:
    return {"question_type": list(doc["question_type"]), "video_type": doc["type"]}


def duration_s(doc: dict) -> float | None:
    """Seconds of the video, where the annotation has its minutes."""
    minutes = (doc.get("video_info") or {}).get("duration_minutes")
    return None if minutes is None else 60.0 * minutes


def evaluated(doc: dict, protocol: str) -> bool:
    """Whether the protocol asks this question."""
    return True


READERS = (question_id, video_id, options, doc_to_target, tags)
process_results = choice_results("lvbench", *READERS)
process_results_lmms_eval = choice_results("lvbench", *READERS, parser="lmms_eval")
