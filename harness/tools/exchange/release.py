"""Result files of the AdaReTaKe and ReTaKe releases (read only).

``<output_dir>/anno_id2result.json`` maps a question's place in the release's own annotation to the letter that its
``trimm_results`` found ("" for none); ``anno_id2meta.json`` next to it holds that annotation's ``meta`` with the right
letter (``retake/infer_eval.py`` of SCZwangxiao/video-ReTaKe and of iLearn-Lab/ACL25-AdaReTaKe). Neither keeps the text
that was generated. ``meta`` is made by ``scripts/utils/build_*_dataset.py``: with ``question_id`` for Video-MME and
LongVideoBench; MLVU has the video's name and a printed type of question alone. Questions without frames are in neither
file. The first release of ReTaKe writes ``infer_results.csv`` (question_id, answer) in place of the meta. A yaml of the
run's settings (``configs/``) is read where there is one next to them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.tools.exchange.rows import ImportedFile, ImportedRow, damaged, json_object, scalar, text_of

RESULTS, META, TABLE = "anno_id2result.json", "anno_id2meta.json", "infer_results.csv"
_IDS = ("question_id", "uid", "id")
QUESTION_TYPES = {
    "Plot QA": "plotQA", "Needle QA": "findNeedle", "Ego Reasoning": "ego", "Action Count": "count",
    "Action Order": "order", "Anomaly Recognition": "anomaly_reco", "Topic Reasoning": "topic_reasoning",
    "Sub-Scene Captioning": "subPlot", "Video Summary": "summary",
}  # fmt: skip
"""MLVU's types of questions: the release's printed names and the annotation's."""
_OUR_WORDS = {
    "model_name": "model", "scaling_factor": "yarn_factor", "sample_fps": "fps", "max_num_frames": "frames",
    "longsize_resolution": "long_side", "method": "method", "attn_implementation": "attention",
}  # fmt: skip
"""Keys of the release's settings -> our words."""


def recognises(path: Path) -> bool:
    """Whether a file is one of answers."""
    return path.name == RESULTS


def read(path: Path) -> ImportedFile:
    """The answers of one run of a release.

    Raises:
        UserError: damaged, or without the file of questions.
    """
    beside = path.with_name(META)
    if not beside.is_file() and (table := path.with_name(TABLE)).is_file():
        return _read_first(path, table)
    if not beside.is_file():
        raise damaged(path, "", f"needs {META} (or {TABLE}) of the same run next to it: it holds the questions")
    answers, metas = json_object(path), json_object(beside)
    if not answers:
        raise damaged(path, "", "holds no answer")
    rows = [_row(path, place, letter, metas.get(place)) for place, letter in answers.items()]
    settings = sorted(file for file in path.parent.iterdir() if file.suffix in (".yaml", ".yml"))
    declared = _declared(settings[0]) if len(settings) == 1 else {}
    task = declared.pop("dataset_name", "") or _benchmark(metas)
    return ImportedFile("release", (path, beside, *settings[:1]), str(task), rows, declared, "release")


def _read_first(path: Path, table: Path) -> ImportedFile:
    """The answers of the first ReTaKe release: letters by place, and a table of ids and letters in the same order."""
    answers, lines = json_object(path), list(csv.DictReader(io.StringIO(text_of(table))))
    letters = [answers.get(str(place)) for place in range(len(lines))]
    if not lines or {"question_id", "answer"} - lines[0].keys() or letters != [line["answer"] for line in lines]:
        raise damaged(table, "", f"is not the table of question_id and answer of {path.name}")
    rows = [
        ImportedRow(f"row {number}", line["answer"], (line["question_id"],), letter=line["answer"])
        for number, line in enumerate(lines, start=1)
    ]
    of_videomme = all(re.fullmatch(r"\d{3}-\d", line["question_id"]) for line in lines)
    return ImportedFile("release", (path, table), "videomme" if of_videomme else "", rows, {}, "release")


def _row(path: Path, place: str, letter: Any, meta: Any) -> ImportedRow:
    where = f"question {place}"
    if not isinstance(letter, str):
        raise damaged(path, where, f"the answer is {letter!r}, not a letter")
    if not isinstance(meta, dict):
        raise damaged(path.with_name(META), where, f"is {'absent' if meta is None else 'no object'}")
    kind, gold = meta.get("question_type"), meta.get("answer")
    right = None if gold in (None, "None") else str(gold)
    return ImportedRow(
        place=where,
        text=letter,
        ids=tuple(str(meta[key]) for key in _IDS if meta.get(key) is not None),
        video=str(meta.get("video") or ""),
        gold=right,
        tags={"question_type": QUESTION_TYPES.get(kind, kind)} if isinstance(kind, str) else {},
        letter=letter,
        correct=None if right is None else letter.lower() == right.lower(),
    )


def _benchmark(metas: Mapping[str, Any]) -> str:
    """The benchmark whose builder made the file, by the keys that only this builder writes."""
    first = next((meta for meta in metas.values() if isinstance(meta, dict)), {})
    if "question_category" in first:
        return "longvideobench"
    if "sub_category" in first:
        return "videomme"
    kind = first.get("question_type")
    return "lvbench" if isinstance(kind, list) else "mlvu" if isinstance(kind, str) and "video" in first else ""


def _declared(path: Path) -> dict[str, Any]:
    """The run's settings as its yaml has them."""
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise damaged(path, "", f"is not a yaml of settings ({error})") from error
    if not isinstance(said, dict):
        return {}
    keys = [key for key in (*_OUR_WORDS, "dataset_name", "do_sample") if key in said]
    declared = {_OUR_WORDS.get(key, key): scalar(said[key]) for key in keys}
    video = said.get("longvideo_kwargs")
    cache = video.get("kvcache_compression_kwargs") if isinstance(video, dict) else None
    if isinstance(cache, dict):
        if "max_input_length" in cache:
            declared["context"] = scalar(cache["max_input_length"])
        declared |= {f"release.{key}": scalar(value) for key, value in cache.items() if key != "max_input_length"}
    return declared
