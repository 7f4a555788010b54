"""The questions that an imported file can be about: of an annotation on this disk, or of stored cells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.advice import harness
from harness.benchmarks.benchmark import Benchmark, benchmark, benchmark_names
from harness.benchmarks.files import Folder
from harness.errors import UserError
from harness.evidence.loading import stored_names
from harness.settings.compose import compose_config, options
from harness.store import QuestionRecord, read_manifest, read_questions
from harness.tools.exchange.matching import Known, stem_of


@dataclass(frozen=True)
class Asked:
    """What an imported file asked.

    Attributes:
        benchmark: folder below ``tasks/``.
        split: of it.
        protocol: where a task setting of ours is named; else None.
    """

    benchmark: str
    split: str
    protocol: str | None = None


def which(said: str, title: str) -> Asked:
    """The benchmark and split that a name stands for: a task setting of ours, or a name with a benchmark's in it.

    Args:
        said: ``adaretake_videomme``, ``mlvu_test``, ``Video-MME_64frame`` ...
        title: what it is taken from, for the message.

    Raises:
        UserError: it names none.
    """
    name = said.removeprefix("adaretake_")
    if name in options("task"):
        task = compose_config([f"task={name}"]).task
        return Asked(task.data, task.split, task.protocol if said != name else None)
    squashed = _squashed(said)
    fitting = [each for each in benchmark_names() if _squashed(each) in squashed]
    if not fitting:
        raise UserError(
            f"{title}: {said!r} names no benchmark; say which questions were asked with "
            f"of=<{'|'.join(benchmark_names())}> or a task setting (of=mlvu_test)"
        )
    found = max(fitting, key=len)
    words = set(re.split(r"[^a-z0-9]+", said.lower()))
    splits = list(benchmark(found).counts)
    return Asked(found, next((split for split in splits if split in words), splits[0]))


def _squashed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def known_questions(asked: Asked, data: Path, results: Path, protocol: str | None = None) -> tuple[list[Known], str]:
    """All questions of a split, and where they were read; those that a protocol of ours asks, where one is given.

    The annotation below the data root is taken where it is there. Else those that stored cells asked: their files hold
    no texts, so that imported rows are found by id, or by video and options.

    Raises:
        UserError: neither is there.
    """
    known = benchmark(asked.benchmark)
    folder = Folder(data, asked.benchmark, asked.benchmark)
    try:
        rows = known.load(folder, asked.split)
    except UserError as error:
        stored = _stored(asked, results)
        if stored:
            return stored, f"questions of stored cells below {results / 'runs'}"
        command = harness("prepare", ["profile=published", f"task={_setting(asked, known)}", f"data.root={data}"])
        raise UserError(
            f"the questions of {known.title} ({asked.split}) are neither below {data} nor in a stored cell: {error}\n"
            f"Set data.root to where they are, or get them: {command}"
        ) from error
    found = []
    for row in rows if protocol is None else [row for row in rows if known.evaluated(row, protocol)]:
        item = known.item(row)
        record = QuestionRecord(item.question_id, item.video_id, item.options, item.answer, item.tags)
        found.append(Known(record, stem_of(str(row.get("question") or ""))))
    return found, f"annotation below {data}"


def _setting(asked: Asked, known: Benchmark) -> str:
    return asked.benchmark if asked.benchmark in options("task") else known.name


def _stored(asked: Asked, results: Path) -> list[Known]:
    found: dict[str, Known] = {}
    for folder in (results / "runs" / name for name in stored_names(results / "runs")):
        task = read_manifest(folder).cell["task"]
        if asked.benchmark in (task.get("data"), task["name"]) and task["split"] == asked.split:
            for record in read_questions(folder):
                found.setdefault(record.question_id, Known(record))
    return list(found.values())
