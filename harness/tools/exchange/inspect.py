"""Inspect's logs (UK AI Security Institute, inspect_ai), in their JSON form: written and read without the package.

One file is one task of one model: ``eval`` (what was run), ``samples`` (id, input, choices, target, output, scores),
``results``; the fields are those of ``inspect_ai.log.EvalLog``, version 2. ``inspect view`` opens them. Logs in the
packed form (``.eval``) are read through the package where it is installed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.benchmarks.benchmark import benchmark
from harness.evidence.cells import CellResult
from harness.tools.exchange.matching import options_of
from harness.tools.exchange.rows import (
    Exported,
    ImportedFile,
    ImportedRow,
    as_declared,
    damaged,
    in_our_words,
    json_object,
    read_row,
)

LOG_VERSION = 2
ParserScores = dict[str, tuple[list[str | None], list[float]]]
"""Parser -> letters and verdicts of a cell's questions."""
SCORES = {"C": True, "I": False, 1: True, 0: False}
"""Inspect's values of right and wrong; others (partial, no answer, numbers between) are neither."""


def recognises(path: Path) -> bool:
    """Whether a file is a log."""
    if path.suffix == ".eval":
        return True
    return path.suffix == ".json" and b'"eval"' in path.read_bytes()[:2000]


def read(path: Path) -> ImportedFile:
    """One log.

    Raises:
        UserError: not a log, or a packed one and inspect_ai is not installed.
    """
    whole = _unpacked(path) if path.suffix == ".eval" else json_object(path)
    spec, samples = whole.get("eval"), whole.get("samples")
    if not isinstance(spec, dict) or not isinstance(samples, list):
        raise damaged(path, "", "is no log of Inspect with samples: `eval` or `samples` is absent")
    if not samples:
        raise damaged(path, "", "holds no sample")
    metadata = spec.get("metadata") or {}
    declared = in_our_words({**(spec.get("model_args") or {}), **(spec.get("model_generate_config") or {})})
    declared |= {"model": spec.get("model"), "date": spec.get("created")}
    declared |= {f"packages.{name}": version for name, version in (spec.get("packages") or {}).items()}
    setting = metadata.get("harness_setting")
    declared |= setting if isinstance(setting, dict) else {}
    rows = [
        read_row(path, f"sample {i}", partial(_row, path, f"sample {i}", sample)) for i, sample in enumerate(samples, 1)
    ]
    return ImportedFile(
        "inspect", (path,), str(spec.get("task") or ""), rows, as_declared(declared), None, metadata.get("protocol")
    )


def _unpacked(path: Path) -> dict[str, Any]:
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise damaged(
            path, "", "is a packed log, and inspect_ai is not installed; install it, or write the log as JSON: "
            f"inspect log convert {path} --to json --output-dir ."
        ) from error  # fmt: skip
    try:
        log: dict[str, Any] = json.loads(read_eval_log(str(path)).model_dump_json())
    except (ValueError, KeyError, OSError) as error:
        raise damaged(path, "", f"cannot be read by inspect_ai ({error})") from error
    return log


def _row(path: Path, place: str, sample: Any) -> ImportedRow:
    if not isinstance(sample, dict) or "id" not in sample:
        raise damaged(path, place, "is no sample: it has no id")
    metadata, output = sample.get("metadata") or {}, sample.get("output") or {}
    error = (sample.get("error") or {}).get("message")
    text = _completion(output)
    if text is None and not error:
        raise damaged(path, place, "has neither an output nor an error")
    score: dict[str, Any] = next(iter((sample.get("scores") or {}).values()), {})
    target = sample.get("target")
    options = metadata.get("options") or options_of(sample.get("choices") or ())
    value = score.get("value")
    return ImportedRow(
        place=place,
        text=text,
        ids=tuple(str(name) for name in (metadata.get("question_id"), sample["id"]) if name is not None),
        video=str(metadata.get("video_id") or metadata.get("video") or ""),
        question=_prompt(sample.get("input")),
        options=options if isinstance(options, dict) else {},
        gold=target if isinstance(target, str) and target else None,
        letter=score.get("answer"),
        correct=SCORES.get(value) if isinstance(value, str | int | float) else None,
        error=error,
    )


def _completion(output: Mapping[str, Any]) -> str | None:
    choices = output.get("choices") or []
    content = choices[0]["message"].get("content") if choices else output.get("completion")
    return _text(content) if content is not None else None


def _prompt(messages: Any) -> str:
    if isinstance(messages, list):
        return "\n".join(_text(message.get("content")) for message in messages if message.get("role") == "user")
    return messages if isinstance(messages, str) else ""


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def write(cell: CellResult, answers: Sequence[Exported]) -> dict[str, bytes]:
    """The log of a cell, every answer scored by every parser of its benchmark; the cell's own comes first."""
    parsers = [cell.parser, *cell.other_parsers]
    places = {question.question_id: place for place, question in enumerate(cell.questions)}
    scored = {parser: (cell.letters(parser), cell.correct(parser).tolist()) for parser in parsers}
    samples = [_sample(cell, exported, places[exported.record.question_id], scored) for exported in answers]
    task, created = cell.cell["task"], cell.manifest.created[:19] + "+00:00"
    spec = {
        "eval_id": _name(cell.id, "eval"),
        "run_id": _name(cell.id, "run"),
        "task_id": _name(cell.id, "task"),
        "created": created,
        "task": f"adaretake_{task['name']}",
        "task_version": benchmark(cell.benchmark).version,
        "dataset": {
            "name": cell.task,
            "samples": len(samples),
            "sample_ids": [sample["id"] for sample in samples],
            "shuffled": False,
        },
        "model": f"{cell.cell['model']['name']}/{cell.method_title.replace(' ', '-')}",
        "config": {},
        "packages": cell.manifest.versions,
        "metadata": {
            "cell": cell.id,
            "protocol": cell.protocol,
            "harness_setting": {**cell.setting, "model": cell.cell["model"]["name"]},
        },
    }
    names = [exported.record.question_id for exported in answers]
    results = {
        "total_samples": cell.n,
        "completed_samples": sum(exported.answer.ok for exported in answers),
        "scores": [_summary(parser, [places[name] for name in names], scored) for parser in parsers],
    }
    log = {
        "version": LOG_VERSION,
        "status": "success",
        "eval": spec,
        "plan": {"name": "plan", "steps": [], "finish": None, "config": {}},  # the viewer wants one before the samples
        "results": results,
        "stats": {"started_at": created, "completed_at": created, "model_usage": {}},
        "samples": samples,
    }
    name = f"{created.replace(':', '-')}_{spec['task']}_{spec['task_id']}".replace("_adaretake_", "_adaretake-")
    return {f"{name}.json": (json.dumps(log, indent=1) + "\n").encode("ascii")}


def _sample(cell: CellResult, exported: Exported, place: int, scored: ParserScores) -> dict[str, Any]:
    record, answer, model = exported.record, exported.answer, cell.cell["model"]["name"]
    prompt = exported.prompt or exported.question
    said = {"role": "assistant", "content": answer.text, "source": "generate", "model": model}
    sample: dict[str, Any] = {
        "id": record.question_id,
        "epoch": 1,
        "input": prompt,
        "choices": list(record.options.values()),
        "target": record.answer or "",
        "messages": [{"role": "user", "content": prompt, "source": "input"}],
        "output": {"model": model, "choices": []},
        "scores": {parser: _score(letters[place], right[place]) for parser, (letters, right) in scored.items()},
        "metadata": {
            "question_id": record.question_id,
            "video_id": record.video_id,
            "options": record.options,
            **{f"tag_{key}": value for key, value in record.tags.items()},
            "cache_slots": answer.n_cache_mean,
            "video_tokens": answer.n_video,
            "seconds": answer.seconds,
        },
    }
    if answer.ok:
        sample["messages"].append(said)
        sample["output"]["choices"] = [{"message": said, "stop_reason": "stop"}]
    else:
        sample["error"] = {"message": answer.reason, "traceback": answer.reason, "traceback_ansi": answer.reason}
    return sample


def _score(letter: str | None, correct: float) -> dict[str, Any]:
    known = not math.isnan(correct)
    return {"value": ("C" if correct else "I") if known else "N", "answer": letter or "", "metadata": {"known": known}}


def _summary(parser: str, places: Sequence[int], scored: ParserScores) -> dict[str, Any]:
    right = [scored[parser][1][place] for place in places]
    known = [value for value in right if not math.isnan(value)]
    metrics = {"accuracy": {"name": "accuracy", "value": sum(known) / len(known)}} if known else {}
    return {"name": parser, "scorer": parser, "scored_samples": len(known), "metrics": metrics}


def _name(cell: str, kind: str) -> str:
    """A name in the form of Inspect's (22 letters and digits), the same at every export."""
    return hashlib.sha256(f"{kind} {cell}".encode()).hexdigest()[:22]
