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
from pathlib import Path

from harness.benchmarks.prompts import ANSWER, LETTERS, choice_prompt, lettered, protocol_of, root_of
from harness.benchmarks.root import find_video, require
from harness.benchmarks.scoring import choice_results
from harness.benchmarks.subtitles import json_text

PROTOCOLS = ("release_subtitles", "release", "lmms_eval")
SPLITS = ("val", "test")
ANNOTATIONS = {
    "val": ("lvb_val.json", "validation.parquet"),
    "test": ("lvb_test_wo_gt.json", "lvb_test.json", "test.parquet"),
}
ABSENT = "N/A"


def load(root: Path, split: str = "val") -> list[dict]:
    """All rows of the split, as they are."""
    folder = root / "longvideobench"
    candidates = [folder / name for name in ANNOTATIONS[split]]
    path = next((path for path in candidates if path.exists()), candidates[0])
    require(path, "the annotation", "longvideobench_test" if split == "test" else "longvideobench")
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        return parquet.read_table(path).to_pylist()
    return json.loads(path.read_text(encoding="utf-8"))


def question_id(doc: dict) -> str:
    return doc["id"]


def video_id(doc: dict) -> str:
    return doc["video_id"]


def video_path(root: Path, doc: dict) -> Path:
    return find_video(root / "longvideobench" / "videos", doc["video_path"])


def _listed(doc: dict) -> list[str]:
    """The options in order, "N/A" ones included."""
    if doc.get("candidates"):
        return [str(text) for text in doc["candidates"]]
    return [doc[f"option{i}"] for i in range(5) if doc.get(f"option{i}") is not None]


def options(doc: dict) -> dict[str, str]:
    return {letter: text for letter, text in zip(LETTERS, _listed(doc), strict=False) if text != ABSENT}


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    protocol = protocol_of(lmms_eval_specific_kwargs, PROTOCOLS)
    if protocol == "lmms_eval":
        listed = "\n".join(f"{letter}. {text}" for letter, text in options(doc).items())
        return f"{doc['question']}\n{listed}\n{ANSWER}\n"
    # The release asks only for the fifth option whether it is there.
    present = [text for i, text in enumerate(_listed(doc)) if i < 4 or text != ABSENT]
    prompt = choice_prompt(doc["question"], lettered(present))
    if protocol == "release":
        return prompt
    folder = root_of(lmms_eval_specific_kwargs) / "longvideobench" / "subtitles"
    # The whole file, though a clip may be a part of the source that its subtitles are of (as in the release).
    subtitles = json_text(require(folder / doc["subtitle_path"], "a subtitle file", "longvideobench"))
    return f"Subtitles: {subtitles}\n{prompt}"


def doc_to_visual(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> list[str]:
    return [str(video_path(root_of(lmms_eval_specific_kwargs), doc))]


def doc_to_target(doc: dict) -> str | None:
    choice = doc.get("correct_choice")
    return None if choice is None or choice < 0 else LETTERS[choice]


def tags(doc: dict) -> dict[str, str | list[str]]:
    named = {"duration_group": str(doc["duration_group"]), "question_category": doc["question_category"]}
    return named | ({"topic_category": doc["topic_category"]} if doc.get("topic_category") else {})


def duration_s(doc: dict) -> float | None:
    """Seconds of the video."""
    return doc.get("duration")


def evaluated(doc: dict, protocol: str) -> bool:
    """Whether the protocol asks this question."""
    return True


READERS = (question_id, video_id, options, doc_to_target, tags)
process_results = choice_results("longvideobench", *READERS)
process_results_lmms_eval = choice_results("longvideobench", *READERS, parser="lmms_eval_longvideobench")
