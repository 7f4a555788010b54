"""lmms-eval's own files: one of samples per task (``--log_samples``), and one of results next to it.

Formats, as its code writes them (EvolvingLMMs-Lab/lmms-eval):

- 0.2.1 to 0.7: ``<model>/<date>_samples_<task>.jsonl``, one object per question (``EvaluationTracker
  .save_results_samples``): ``doc_id``, ``input`` (the prompt), ``target``, ``filtered_resps``, ``resps`` where it is
  not the same, ``doc_hash``, and what the task's ``process_results`` returned under each metric. ``doc`` and
  ``arguments`` are left out by releases since 0.3. ``<date>_results.json`` next to it holds the setting.
- before: ``<task>.json``, one object with ``args``, ``model_configs`` and ``logs`` (the samples, ``doc`` among them).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.benchmarks.benchmark import Benchmark, benchmark
from harness.evidence.cells import CellResult
from harness.tools.exchange.matching import options_of
from harness.tools.exchange.rows import (
    Exported,
    ImportedFile,
    ImportedRow,
    as_declared,
    checked_object,
    damaged,
    in_our_words,
    json_object,
    parse_arguments,
    read_row,
    text_of,
)

SAMPLES = re.compile(r"(?P<date>.*?)_?samples_(?P<task>.+)\.jsonl")
OWN = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "doc_hash", "prompt_hash", "target_hash"}
OWN |= {"input", "input_media", "token_counts", "submission", "schema", "harness_error"}
"""Members of a sample that are no metric."""
NO_DOCUMENT = hashlib.sha256(b"null").hexdigest()
"""The ``doc_hash`` of every sample of 0.7.3: it hashes the request's document, which is not set."""
_IDS = ("question_id", "id", "uid", "qid", "q_uid")
_VIDEOS = ("videoID", "video_name", "video", "video_id", "videoid", "key", "video_path")
_GOLD = ("answer", "gold", "gt", "target")
_LETTERS = ("pred_answer", "parsed_pred", "letter", "pred")


def recognises(path: Path) -> bool:
    """Whether a file is one of samples, by its name or its content."""
    if path.suffix == ".jsonl":
        return SAMPLES.fullmatch(path.name) is not None
    return path.suffix == ".json" and '"logs"' in text_of(path) and not path.name.endswith("_results.json")


def read(path: Path) -> ImportedFile:
    """The samples of one task.

    Raises:
        UserError: not such a file; the message names the line.
    """
    if path.suffix == ".jsonl":
        named = SAMPLES.fullmatch(path.name)
        samples = list(_lines(path))
        task = named["task"] if named else ""
        results = path.with_name(f"{named['date']}_results.json") if named and named["date"] else None
        beside = [results] if results is not None and results.is_file() else []
        whole = json_object(beside[0]) if beside else {}
        declared = _declared(whole, task)
    else:
        whole = json_object(path)
        if not isinstance(whole.get("logs"), list):
            raise damaged(path, "", "has no list `logs`: it is not a file of samples of lmms-eval")
        samples = [(f"log {i}", checked_object(path, f"log {i}", log)) for i, log in enumerate(whole["logs"])]
        task, beside = path.stem, []
        declared = _declared_before(whole)
    if not samples:
        raise damaged(path, "", "holds no sample")
    rows = [read_row(path, place, partial(_row, path, place, sample)) for place, sample in samples]
    declared |= {"subtitles": True} if "subtitle" in task else {}
    protocol = declared.get("protocol")
    setting = declared.pop("harness_setting", None)
    declared |= setting if isinstance(setting, dict) else {}
    return ImportedFile("lmms_eval", (path, *beside), task, rows, declared, None, protocol)


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        if line.strip():
            yield f"line {number}", json_object(path, line, f"line {number}")


def _row(path: Path, place: str, sample: Mapping[str, Any]) -> ImportedRow:
    if "resps" not in sample and "filtered_resps" not in sample:
        raise damaged(path, place, f"has neither resps nor filtered_resps; it has {', '.join(sample) or 'nothing'}")
    # Where the task strips reasoning, lmms-eval scores what is left: the filtered response.
    text = _text(path, place, sample.get("filtered_resps", sample.get("resps")))
    held = sample.get("doc")
    doc: dict[str, Any] = held if isinstance(held, dict) else {}
    metrics = [value for key, value in sample.items() if key not in OWN and isinstance(value, dict)]
    places = [doc, *metrics]
    return ImportedRow(
        place=place,
        text=text if text or "unparsed" in sample else None,  # an empty answer of ours is one
        ids=tuple(dict.fromkeys(str(of[key]) for of in places for key in _IDS if _named(of.get(key)))),
        video=next((str(of[key]) for key in _VIDEOS for of in places if _named(of.get(key))), ""),
        question=str(doc.get("question") or sample.get("input") or _prompt(sample)),
        options=_options(doc),
        gold=_gold(sample, places),
        letter=next((str(of[key]) for of in metrics for key in _LETTERS if isinstance(of.get(key), str)), None),
        correct=_verdict(sample, metrics),
        error=str(sample["harness_error"]) if sample.get("harness_error") else None,
    )


def _named(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and str(value) != ""


def _text(path: Path, place: str, responses: Any) -> str | None:
    """The response, without the lists of requests and repeats around it; None where it is no text."""
    while isinstance(responses, list) and responses:
        if any(response != responses[0] for response in responses):
            raise damaged(path, place, f"has {len(responses)} different responses (repeats); only one can be taken")
        responses = responses[0]
    return responses if isinstance(responses, str) else None


def _prompt(sample: Mapping[str, Any]) -> str:
    arguments = sample.get("arguments")
    while isinstance(arguments, list) and arguments:
        arguments = arguments[0]
    if isinstance(arguments, dict):
        arguments = next(iter(arguments.values()), "")
    return arguments if isinstance(arguments, str) else ""


def _options(doc: Mapping[str, Any]) -> dict[str, str]:
    listed = doc.get("options") or doc.get("candidates")
    if isinstance(listed, dict):
        return {str(letter): str(text) for letter, text in listed.items()}
    if not isinstance(listed, list):
        listed = [doc[f"option{i}"] for i in range(8) if doc.get(f"option{i}") is not None]
    return options_of(listed)


def _gold(sample: Mapping[str, Any], places: list[Any]) -> str | None:
    choice = next((of["correct_choice"] for of in places if isinstance(of.get("correct_choice"), int)), None)
    if choice is not None:
        return chr(ord("A") + choice) if 0 <= choice < 26 else None
    gold = next((of[key] for key in _GOLD for of in places if isinstance(of.get(key), str)), None)
    if gold is None and str(sample.get("target", "")).strip():
        gold = str(sample["target"])
    return None if gold in ("None", "") else gold


def _verdict(sample: Mapping[str, Any], metrics: list[Any]) -> bool | None:
    """The file's verdict: a metric or a score that is 0 or 1, or whether the two letters agree."""
    numbers = [value for key, value in sample.items() if key not in OWN and isinstance(value, bool | int | float)]
    scores = [of["score"] for of in metrics if isinstance(of.get("score"), bool | int | float)]
    for value in (*scores, *numbers):
        if value in (0, 1):
            return bool(value)
    for of in metrics:
        letter = next((of[key] for key in _LETTERS if isinstance(of.get(key), str)), None)
        if letter is not None and isinstance(of.get("answer"), str):
            return bool(letter == of["answer"])
    return None


def _declared(whole: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The settings in a file of results."""
    config = whole.get("config") or {}
    of_task = (whole.get("configs") or {}).get(task) or {}
    metadata = of_task.get("metadata")
    said = parse_arguments(config.get("model_args")) | (of_task.get("generation_kwargs") or {})
    said |= parse_arguments(config.get("gen_kwargs"))
    declared = in_our_words(said)
    declared |= {"lmms_eval_model": config.get("model"), "limit": config.get("limit")}
    for key in ("lmms_eval_version", "git_hash", "date", "chat_template_sha", "system_instruction_sha"):
        declared[key] = whole.get(key)
    prompts = of_task.get("lmms_eval_specific_kwargs")
    if isinstance(prompts, dict):
        declared |= {key: prompts[key] for key in ("pre_prompt", "post_prompt") if key in prompts}
    if isinstance(metadata, dict):
        declared |= {key: metadata[key] for key in ("protocol", "harness_setting") if key in metadata}
    return as_declared(declared)


def _declared_before(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a file of an old release."""
    args = whole.get("args") or {}
    config = whole.get("model_configs") or whole.get("config") or {}
    said = parse_arguments(args.get("model_args")) | (config.get("generation_kwargs") or {})
    said |= parse_arguments(args.get("gen_kwargs"))
    declared = in_our_words(said) | {"lmms_eval_model": args.get("model"), "limit": args.get("limit")}
    return as_declared(declared | {"date": whole.get("time")})


def write(cell: CellResult, answers: Sequence[Exported]) -> dict[str, bytes]:
    """The file of samples that lmms-eval writes when it scores the cell on our task, and its file of results.

    A failed question has an empty response, as lmms-eval scores it, and ``harness_error``.
    """
    spec = benchmark(cell.benchmark)
    task = f"adaretake_{cell.cell['task']['name']}"
    created = re.sub(r"[-:]", "", cell.manifest.created[:19]).replace("T", "_")
    samples = b"".join(_line(i, exported, spec) for i, exported in enumerate(answers))
    folder = re.sub(r'["<>:/|\\?*\[\]]+', "__", "/".join(_path(cell).split("/")[-2:]))
    results = json.dumps(_results(cell, answers, task, created), indent=2)
    return {
        f"{folder}/{created}_samples_{task}.jsonl": samples,
        f"{folder}/{created}_results.json": (results + "\n").encode("ascii"),
    }


def _path(cell: CellResult) -> str:
    return str(cell.cell["model"].get("path") or cell.cell["model"]["name"])


def _line(i: int, exported: Exported, spec: Benchmark) -> bytes:
    text = exported.answer.text if exported.answer.ok else ""
    sample: dict[str, Any] = {
        "doc_id": i,
        "target": str(exported.record.answer),
        "filtered_resps": text,
        "token_counts": [None],
        "doc_hash": NO_DOCUMENT,
        **_metrics(exported, spec),
        "input": exported.prompt,
    }
    if not exported.answer.ok:
        sample["harness_error"] = exported.answer.reason
    return (json.dumps(sample) + "\n").encode("ascii")


def _metrics(exported: Exported, spec: Benchmark) -> dict[str, Any]:
    """The metrics of `LocalTask.process_results` for the answer."""
    if not exported.record.options:
        return {}
    score = float(bool(exported.correct))
    item = {
        "question_id": exported.record.question_id,
        "video_id": exported.record.video_id,
        "score": score,
        "letter": exported.letter,
        "answer": exported.record.answer,
        "tags": exported.record.tags,
    }
    metrics: dict[str, Any] = {}
    for name in spec.metrics.names(exported.record.tags) if exported.record.answer is not None else []:
        of_questions = spec.metrics.whole.get(name, spec.metrics.within).unit is None
        metrics[name] = {**item, "percent": 100 * score} if of_questions else item
    return metrics | {"unparsed": {**item, "percent": 100.0 * (exported.letter is None)}}


def _results(cell: CellResult, answers: Sequence[Exported], task: str, created: str) -> dict[str, Any]:
    record, setting, spec = cell.cell["task"], cell.setting, benchmark(cell.benchmark)
    arguments = {"pretrained": _path(cell), "max_num_frames": setting["frames"], "fps": setting["fps"]}
    scores = cell.scores() if answers else {}
    return {
        "results": {task: {"alias": task, **{f"{name},none": value for name, value in scores.items()}}},
        "configs": {
            task: {
                "task": task,
                "test_split": record["split"],
                "output_type": "generate_until",
                "generation_kwargs": {"max_new_tokens": record.get("max_new_tokens"), "do_sample": False},
                "metadata": {
                    "version": spec.version,
                    "protocol": cell.protocol,
                    "title": spec.task_title(record["split"], cell.protocol),
                    "harness_setting": {**setting, "method": cell.cell["method"]["name"]},
                },
            }
        },
        "n-samples": {task: {"original": cell.n, "effective": len(answers)}},
        "config": {
            "model": cell.cell["model"]["name"],
            "model_args": ",".join(f"{key}={value}" for key, value in arguments.items()),
            "gen_kwargs": "",
            "limit": None,
        },
        "git_hash": cell.manifest.git.get("commit"),
        "lmms_eval_version": cell.manifest.versions.get("lmms_eval"),
        "date": created,
        "harness_cell": cell.id,
    }
