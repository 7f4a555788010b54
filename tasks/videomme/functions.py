"""Video-MME (https://github.com/MME-Benchmarks/Video-MME): 900 videos, three questions each, four options.

Rows are those of the hub's parquet file, for example
``{videoID: "AbC_d1E2f3G", question_id: "001-1", duration: "short", question: "...", options: ["A. x.", ...],
answer: "C"}``.
Protocols: ``release`` and ``release_subtitles`` (the AdaReTaKe release), ``lmms_eval`` (lmms-eval 0.7.3, no subtitles).
"""

from __future__ import annotations

from pathlib import Path

from harness.benchmarks.prompts import ANSWER, protocol_of, root_of
from harness.benchmarks.root import find_video, require
from harness.benchmarks.scoring import choice_results
from harness.benchmarks.subtitles import cut_to_tokens, srt_text

PROTOCOLS = ("release", "release_subtitles", "lmms_eval")
SPLITS = ("test",)
LMMS_EVAL_HEAD = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)


def load(root: Path, split: str = "test") -> list[dict]:
    """All rows of the annotation, as they are."""
    import pyarrow.parquet as parquet

    return parquet.read_table(require(root / "videomme" / f"{split}.parquet", "the annotation", "videomme")).to_pylist()


def question_id(doc: dict) -> str:
    return doc["question_id"]


def video_id(doc: dict) -> str:
    return doc["videoID"]


def video_path(root: Path, doc: dict) -> Path:
    return find_video(root / "videomme" / "videos", doc["videoID"])


def options(doc: dict) -> dict[str, str]:
    """Letter to text; the rows' options start with their letter."""
    return {option[0]: option[2:].strip() for option in doc["options"]}


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    protocol = protocol_of(lmms_eval_specific_kwargs, PROTOCOLS)
    listed = "\n".join(doc["options"])
    if protocol == "lmms_eval":
        return f"{LMMS_EVAL_HEAD}\n{doc['question']}\n{listed}\n\n{ANSWER}"
    prompt = f"{doc['question']}\nOptions:\n{listed}\n{ANSWER}"
    if protocol == "release_subtitles":
        subtitles = _subtitles(root_of(lmms_eval_specific_kwargs), doc, prompt)
        prompt = f"This video's subtitles are listed below:\n{subtitles}\n{prompt}" if subtitles else prompt
    return prompt


def _subtitles(root: Path, doc: dict, prompt: str) -> str:
    folder = require(root / "videomme" / "subtitles", "the folder of subtitles", "videomme_subtitles")
    path = folder / f"{doc['videoID']}.srt"
    # The release counts the question's tokens with its placeholder of the video; 744 of 900 videos have subtitles.
    return cut_to_tokens(srt_text(path), f"<video>{prompt}") if path.exists() else ""


def doc_to_visual(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> list[str]:
    return [str(video_path(root_of(lmms_eval_specific_kwargs), doc))]


def doc_to_target(doc: dict) -> str | None:
    return doc["answer"]


def tags(doc: dict) -> dict[str, str | list[str]]:
    return {key: doc[key] for key in ("duration", "domain", "sub_category", "task_type")}


def duration_s(doc: dict) -> float | None:
    """Seconds of the video: the annotation has its group only, so the group's rough mean (254 h over 900 videos)."""
    return {"short": 80.0, "medium": 520.0, "long": 2450.0}.get(doc["duration"])


def evaluated(doc: dict, protocol: str) -> bool:
    """Whether the protocol asks this question."""
    return True


READERS = (question_id, video_id, options, doc_to_target, tags)
process_results = choice_results("videomme", *READERS)
process_results_lmms_eval = choice_results("videomme", *READERS, parser="lmms_eval")
