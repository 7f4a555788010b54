"""MLVU (https://github.com/JUNJIE99/MLVU): seven multiple-choice tasks (dev, four options) and nine (test, six).

Rows are those of the official JSON files, one file per task, for example
``{video: "needle_32.mp4", duration: 467.98, question: "...", candidates: ["a", ...], answer: "a", question_type:
"findNeedle"}``, with two keys added: ``folder`` (where its video lies) and, where the file has none,
``question_id``. The two generation tasks of dev have no candidates; they are the split ``generation``, without a right
answer here (`harness.benchmarks.judge` scores them).
Protocols: ``release`` (the AdaReTaKe release) and ``lmms_eval`` (lmms-eval 0.7.3).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

from harness.benchmarks.prompts import choice_prompt, lettered, protocol_of, root_of
from harness.benchmarks.root import find_video, require
from harness.benchmarks.scoring import choice_results

PROTOCOLS = ("release", "lmms_eval")
SPLITS = ("dev", "test", "generation")


def load(root: Path, split: str = "dev") -> list[dict]:
    """All multiple-choice rows of ``mlvu/json/*.json``, or for split ``test`` of ``mlvu/test/json/*.json``.

    Split ``generation`` has the other rows of ``mlvu/json/*.json``.
    The answers of the test split may lie in a file of their own beside the questions; they are joined by id.
    """
    videos = "test/videos" if split == "test" else "videos"
    folder = root / "mlvu" / "test" / "json" if split == "test" else root / "mlvu" / "json"
    rows, answers = [], {}
    for path in sorted(
        require(folder, "the folder of annotations", "mlvu_test" if split == "test" else "mlvu").glob("*.json")
    ):
        for row in json.loads(path.read_text(encoding="utf-8")):
            if bool(row.get("candidates")) != (split == "generation"):
                rows.append({**row, "folder": videos if split == "test" else f"{videos}/{path.stem}"})
            elif split == "test" and "answer" in row and "question_id" in row:
                answers[row["question_id"]] = row["answer"]
    _number(rows)
    return [{**row, "answer": row.get("answer", answers.get(row["question_id"]))} for row in rows]


def _number(rows: list[dict]) -> None:
    """Name the rows that have no id after what they ask, so that an id does not depend on the row's place."""
    seen: Counter[str] = Counter()
    for row in rows:
        if not row.get("question_id"):
            asked = json.dumps([row["video"], row["question"], row.get("candidates")], ensure_ascii=False)
            name = f"{row['question_type']}-{Path(row['video']).stem}-{hashlib.sha1(asked.encode()).hexdigest()[:8]}"
            seen[name] += 1
            row["question_id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"


def question_id(doc: dict) -> str:
    return doc["question_id"]


def video_id(doc: dict) -> str:
    """The file's name without suffix: 216 names recur in several task folders and are the same video."""
    return Path(doc["video"]).stem


def video_path(root: Path, doc: dict) -> Path:
    """In the folder of its task, or, as some copies have it, among all videos."""
    found = find_video(root / "mlvu" / doc["folder"], doc["video"])
    flat = find_video(root / "mlvu" / "videos", doc["video"])
    return flat if flat.exists() and not found.exists() else found


def options(doc: dict) -> dict[str, str]:
    return lettered([str(candidate) for candidate in doc.get("candidates") or []])


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    if not options(doc):
        return doc["question"]
    if protocol_of(lmms_eval_specific_kwargs, PROTOCOLS) == "lmms_eval":
        # lmms-eval's mirror has the options inside the question; their format there is inferred, not read.
        listed = "\n".join(f"({letter}) {text}" for letter, text in options(doc).items())
        # Its test task has no instruction at all.
        closing = "" if doc["folder"].startswith("test") else "\nOnly give the best option.\nBest option: ("
        return f"{doc['question']}\n{listed}{closing}"
    return choice_prompt(doc["question"], options(doc))


def doc_to_visual(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> list[str]:
    return [str(video_path(root_of(lmms_eval_specific_kwargs), doc))]


def doc_to_target(doc: dict) -> str | None:
    """The letter of the first candidate that equals the answer; None where there is none.

    Dev answers are texts. 6 of 2175 are the text of two candidates; the release takes the first, the official
    script the last. Test answers may be letters.
    """
    answer = doc.get("answer")
    listed = options(doc)
    by_text = next((letter for letter, text in listed.items() if text == str(answer)), None)
    return by_text or (str(answer) if answer in listed else None)


def tags(doc: dict) -> dict[str, str | list[str]]:
    return {"question_type": doc["question_type"]}


def duration_s(doc: dict) -> float | None:
    """Seconds of the video, where the annotation has them."""
    return doc.get("duration")


def evaluated(doc: dict, protocol: str) -> bool:
    """Whether the protocol asks this question: the release leaves out two dev rows without a right candidate."""
    unanswerable = doc.get("answer") is not None and bool(options(doc)) and doc_to_target(doc) is None
    return not (protocol == "release" and unanswerable)


READERS = (question_id, video_id, options, doc_to_target, tags)
process_results = choice_results("mlvu", *READERS)
process_results_lmms_eval = choice_results("mlvu", *READERS, parser="lmms_eval")
