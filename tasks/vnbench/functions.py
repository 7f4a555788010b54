"""VNBench (https://github.com/joez17/VideoNIAH): needles inserted into videos, asked four times with shuffled options.

Rows are those of ``VNBench-main-4try.json``, for example ``{video: "./VNBench/v_x_ord_insert2.mp4", question: "...",
options: ["a", "b", "c", "d"], gt: "b", type: "ord_insert2", try: 0}``. A sample counts as right only if all its four
tries are right (see `harness.benchmarks.metrics.circular_accuracy`).
Protocol: ``official``.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from harness.benchmarks.prompts import ANSWER, lettered, protocol_of, root_of
from harness.benchmarks.root import find_video, require
from harness.benchmarks.scoring import choice_results

PROTOCOLS = ("official",)
SPLITS = ("test",)


def load(root: Path, split: str = "test") -> list[dict]:
    """All rows of the annotation, as they are: four per sample."""
    path = require(root / "vnbench" / "VNBench-main-4try.json", "the annotation", "vnbench")
    return json.loads(path.read_text(encoding="utf-8"))


def _name(doc: dict) -> str:
    return PurePosixPath(doc["video"]).stem


def question_id(doc: dict) -> str:
    return f"{_name(doc)}_{doc['type']}_{doc['try']}"


def video_id(doc: dict) -> str:
    return _name(doc)


def video_path(root: Path, doc: dict) -> Path:
    return find_video(root / "vnbench" / "videos", PurePosixPath(doc["video"]).name)


def options(doc: dict) -> dict[str, str]:
    return lettered([str(option) for option in doc["options"]])


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    protocol_of(lmms_eval_specific_kwargs, PROTOCOLS)
    listed = "\n".join(f"{letter}. {text}" for letter, text in options(doc).items())
    return f"{doc['question']}\n{listed}\n{ANSWER}"


def doc_to_visual(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> list[str]:
    return [str(video_path(root_of(lmms_eval_specific_kwargs), doc))]


def doc_to_target(doc: dict) -> str | None:
    return next((letter for letter, text in options(doc).items() if text == str(doc["gt"])), None)


def tags(doc: dict) -> dict[str, str | list[str]]:
    return {"task": doc["type"].split("_")[0], "type": doc["type"], "sample": f"{_name(doc)}_{doc['type']}"}


def duration_s(doc: dict) -> float | None:
    """Not in the annotation."""
    return None


def evaluated(doc: dict, protocol: str) -> bool:
    """Whether the protocol asks this question."""
    return True


READERS = (question_id, video_id, options, doc_to_target, tags)
process_results = choice_results("vnbench", *READERS)
