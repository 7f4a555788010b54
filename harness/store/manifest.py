"""The manifest of a cell: what it is, and what it was answered with."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.advice import aside, harness
from harness.errors import UserError
from harness.records import EditedError, NotRecordError, seal, unseal, write_atomic
from harness.store.answers import answer_files, now

SCHEMA_VERSION = 2
FILE = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """Written before a cell's first answer."""

    cell_id: str
    digest: str  # of the identity; the cell id ends with it
    cell: dict[str, Any]  # the resolved identity: everything that can change an answer
    versions: dict[str, str] = field(default_factory=dict)  # of the libraries that matter
    git: dict[str, Any] = field(default_factory=dict)  # {"commit": str | None, "dirty": bool | None}
    attention_backend: str | None = None
    device: str | None = None
    instruction_set: str | None = None  # that torch uses on the CPU; the last bits of a sum depend on it
    created: str = field(default_factory=now)
    status: str = "started"  # "started", "complete", "failed" (some questions failed), "interrupted"
    runtime: dict[str, Any] = field(default_factory=dict)  # knobs of the start that cannot change an answer
    starts: list[dict[str, Any]] = field(default_factory=list)  # later starts under other versions, code or device
    schema_version: int = SCHEMA_VERSION


def _away(folder: Path) -> str:
    return f"Move it away ({aside(folder)}), or write elsewhere with results=<folder>."


def write_manifest(cell_dir: Path | str, manifest: Manifest) -> None:
    """Write the cell's manifest atomically."""
    record = {f.name: getattr(manifest, f.name) for f in dataclasses.fields(manifest)}
    write_atomic(Path(cell_dir) / FILE, seal({"schema_version": record.pop("schema_version"), **record}, indent=2))


def read_manifest(cell_dir: Path | str) -> Manifest:
    """The cell's manifest.

    Raises UserError when it is absent, is not one of ours, was edited, or was written by another schema version.
    """
    folder = Path(cell_dir)
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder} has no {FILE}: it is not the folder of a cell. {_away(folder)}")
    edited = ""
    try:
        record = unseal(path.read_bytes())
    except NotRecordError as error:
        raise UserError(f"{path} is not a manifest of this harness ({error}). {_away(folder)}") from error
    except EditedError as error:
        record, edited = error.record, str(error)
    version = record.get("schema_version")
    if version is None:
        raise UserError(f"{path} is not a manifest of this harness (no schema_version). {_away(folder)}")
    if version != SCHEMA_VERSION:
        age = "an older" if isinstance(version, int) and version < SCHEMA_VERSION else "another"
        raise UserError(
            f"{path} has schema version {version!r}, written by {age} version of this harness; this one reads and "
            f"writes {SCHEMA_VERSION}. {_away(folder)}"
        )
    if edited:
        raise UserError(f"{path} was edited: {edited}. A manifest says what was run; put it back. {_away(folder)}")
    try:
        return Manifest(**record)
    except TypeError as error:
        raise UserError(f"{path} is not a manifest of this harness ({error}). {_away(folder)}") from error


def open_cell(cell_dir: Path | str, manifest: Manifest) -> Manifest:
    """Start or resume the cell in `cell_dir`; return what now stands in its manifest.

    A new folder gets `manifest`. An existing one must hold the same identity; only its status and runtime change.

    Raises UserError when answers of another identity, or without a manifest, are in the way.
    """
    folder = Path(cell_dir)
    if not (folder / FILE).is_file():
        if any(p.stat().st_size for p in answer_files(folder)):
            raise UserError(f"{folder} holds answers but no {FILE}: nobody can say what they answer. {_away(folder)}")
        write_manifest(folder, manifest)
        return manifest
    held = read_manifest(folder)
    if held.digest != manifest.digest:
        raise UserError(
            f"{folder} holds answers of another identity (digest {held.digest}, this run has {manifest.digest}); old "
            f"answers are never matched to a new setting. {_away(folder)}"
        )
    resumed = dataclasses.replace(held, status=manifest.status, runtime=manifest.runtime)
    if resumed != held:
        write_manifest(folder, resumed)
    return resumed


def set_status(cell_dir: Path | str, status: str) -> None:
    """Record how the cell's last start ended."""
    manifest = read_manifest(cell_dir)
    if manifest.status != status:
        write_manifest(cell_dir, dataclasses.replace(manifest, status=status))


def note_start(
    cell_dir: Path | str,
    *,
    versions: dict[str, str],
    git: dict[str, Any],
    attention_backend: str | None,
    device: str | None,
    instruction_set: str | None = None,
) -> None:
    """Record what the cell is answered with, once the model is loaded and before its first answer.

    The first start's values stand in the manifest itself; each other combination met later is added to `starts`.
    """
    manifest = read_manifest(cell_dir)
    start: dict[str, Any] = {
        "versions": versions,
        "git": git,
        "attention_backend": attention_backend,
        "device": device,
        "instruction_set": instruction_set,
    }
    if manifest.device is None:
        write_manifest(cell_dir, dataclasses.replace(manifest, **start))
        return
    known = [{k: getattr(manifest, k) for k in start}, *({k: s.get(k) for k in start} for s in manifest.starts)]
    if start not in known:
        write_manifest(cell_dir, dataclasses.replace(manifest, starts=[*manifest.starts, {**start, "time": now()}]))


SCHEMA = 2
QUESTIONS_FILE = "questions.jsonl"


@dataclass(frozen=True)
class QuestionRecord:
    """One question of a cell."""

    question_id: str
    video_id: str
    options: dict[str, str] = field(default_factory=dict)  # letter -> text
    answer: str | None = None  # gold letter; None when it is not public
    tags: dict[str, Any] = field(default_factory=dict)  # duration group, question type, ...
    prompt_digest: str | None = None  # of the text asked: a changed prompt is noticed on the next start


def as_file(questions: Iterable[QuestionRecord]) -> bytes:
    """The content of a cell's file of questions.

    Raises UserError when two questions share an id.
    """
    lines: list[bytes] = []
    seen: set[str] = set()
    for question in questions:
        if question.question_id in seen:
            raise UserError(
                f"question id {question.question_id!r} occurs twice: ids must be unique within a task. "
                "Check the task's question_id() against its annotations (python -m harness verify)."
            )
        seen.add(question.question_id)
        lines.append(seal({"schema": SCHEMA, **vars(question)}))
    return b"".join(lines)


def write_questions(cell_dir: Path | str, questions: Iterable[QuestionRecord]) -> None:
    """Write the cell's questions in their order, atomically; an equal file is left alone.

    Raises UserError when two questions share an id.
    """
    content = as_file(questions)
    path = Path(cell_dir) / QUESTIONS_FILE
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)


def read_questions(cell_dir: Path | str) -> list[QuestionRecord]:
    """The cell's questions in the order asked.

    Raises UserError when the file is absent, empty, damaged, edited or of another schema.
    """
    path = Path(cell_dir) / QUESTIONS_FILE
    if not path.is_file():
        raise UserError(f"{path} is absent: {written_anew(cell_dir)}")
    questions = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = unseal(line)
            if (schema := record.pop("schema", None)) != SCHEMA:
                raise ValueError(f"schema {schema!r}, this version reads {SCHEMA}")
            questions.append(QuestionRecord(**record))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path}, line {number} is not a question record ({error}); {written_anew(cell_dir)}"
            ) from error
    twice = [name for name, n in Counter(question.question_id for question in questions).items() if n > 1]
    if twice:
        raise UserError(
            f"{path} has {len(twice)} questions more than once (the first: {twice[0]}); {written_anew(cell_dir)}"
        )
    if not questions:
        raise UserError(f"{path} is empty, and no cell asks nothing; {written_anew(cell_dir)}")
    return questions


def written_anew(cell_dir: Path | str) -> str:
    """What writes the file of questions anew, in words: the run that made the cell; answers stay."""
    try:
        words = read_manifest(cell_dir).runtime.get("overrides", ())
    except UserError:
        words = ()
    path = shlex.quote(str(Path(cell_dir) / QUESTIONS_FILE))
    return f"it is written anew from the annotations: rm -f {path} && {harness('run', words)}"
