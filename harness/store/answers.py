"""Answers on disk: one JSON line per answer, appended and fsynced as it comes.

A cell's answers are the union of `answers.jsonl` and `answers.<worker>.jsonl` in its folder. Every line stands alone.
A process killed while appending leaves at most one torn line, the last of its own file; readers pass over it and the
next writer of that file removes it, and it alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.store.atomic import StoreError, sync_folder
from harness.store.lock import lock_descriptor

SCHEMA = 1
OK = "ok"
FAILED = "failed"

_WORKER = re.compile(r"[A-Za-z0-9_-]+")
_FILE = re.compile(r"answers(\.[A-Za-z0-9_-]+)?\.jsonl")


def now() -> str:
    """The present, in UTC, as ISO 8601 with microseconds (fixed width, so that text order is time order)."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class Answer:
    """One question answered, or not, in one cell."""

    question_id: str
    video_id: str
    status: str  # "ok" or "failed"
    text: str = ""  # what the model said, unchanged
    letter: str | None = None  # anchored parse of the text; None when nothing was found
    n_prompt: int | None = None  # tokens of the whole prompt before compression
    n_video: int | None = None  # video tokens among them
    n_cache_mean: float | None = None  # cache slots after the prefill, mean over layers
    cache_length: list[int] = field(default_factory=list)  # [L] the same per layer
    chunk_budget: list[int] = field(default_factory=list)  # [K] tokens to keep of each chunk, mean over layers
    sampling_fps: float | None = None
    frame_indices: list[int] = field(default_factory=list)  # on the sampling grid of the policy
    timestamps: list[float] = field(default_factory=list)  # seconds
    backend: str | None = None  # decoder that made the frames
    seconds: dict[str, float] = field(default_factory=dict)
    n_new: int | None = None  # generated tokens
    peak_memory: int | None = None  # most bytes on the accelerators while this was answered
    error: dict[str, str] | None = None  # {"type", "message"} of a failed answer
    time: str = field(default_factory=now)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.status not in (OK, FAILED):
            raise ValueError(f"status {self.status!r} of question {self.question_id!r} must be '{OK}' or '{FAILED}'")
        if self.status == FAILED and not self.error:
            raise ValueError(f"question {self.question_id!r} failed without an error to show for it")

    @property
    def ok(self) -> bool:
        """Whether the question was answered."""
        return self.status == OK

    def to_line(self) -> bytes:
        """The answer as one line of JSON, newline included."""
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        record = {"schema": record.pop("schema"), **record}
        return json.dumps(record, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def failed_answer(question_id: str, video_id: str, error: BaseException, **known: Any) -> Answer:
    """The record of a question that could not be answered: the error's type and message."""
    reason = {"type": type(error).__name__, "message": str(error) or repr(error)}
    return Answer(question_id, video_id, FAILED, error=reason, **known)


class AnswerLog:
    """Append-only writer of one answers file; it holds the file's lock until closed.

    `worker` names the file `answers.<worker>.jsonl`. Opening repairs a torn last line left by a killed process.

    Raises StoreError when another process writes the same file, or when the disk does not take an answer: the answers
    before it are safe, and starting the run again goes on behind them. Raises UserError on a damaged file.
    """

    def __init__(self, cell_dir: Path | str, worker: str | None = None, wait_s: float = 0.0) -> None:
        if worker is not None and not _WORKER.fullmatch(worker):
            raise UserError(f"worker name {worker!r} is not usable in a file name: letters, digits, '_' and '-' only")
        folder = Path(cell_dir)
        self.path = folder / ("answers.jsonl" if worker is None else f"answers.{worker}.jsonl")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise self._refused(error) from error
        try:
            lock_descriptor(self._descriptor, self.path, wait_s)
            self._end = self._repair()
            sync_folder(folder)
        except BaseException:
            self.close()
            raise

    def append(self, answer: Answer) -> None:
        """Write one answer; when this returns, it is on the disk."""
        if self._descriptor is None:
            raise ValueError(f"{self.path} is closed")
        line = answer.to_line()
        try:
            self._write(line)
            os.fsync(self._descriptor)
        except OSError as error:
            self._drop_tail()
            raise self._refused(error) from error
        except BaseException:  # Ctrl-C between two writes: leave whole lines only
            self._drop_tail()
            raise
        self._end += len(line)

    def close(self) -> None:
        """Release the file; closing twice is fine."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # a nearly full disk takes a part and refuses the rest
            view = view[os.write(self._descriptor, view) :]

    def _drop_tail(self) -> None:
        """Cut back to the last whole answer and close: nothing may be appended behind a torn line."""
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError:
            pass  # the torn line stays; readers pass over it and the next start repairs it
        finally:
            self.close()

    def _repair(self) -> int:
        """Drop a torn last line, complete one that lacks only its newline; return the end of the file."""
        with open(self.path, "rb") as stream:
            data = stream.read()
        end = max((end for _, end in _parse(self.path, data)), default=0)
        if end == len(data) + 1:  # whole answer, newline lost
            self._write(b"\n")
        elif end < len(data):
            os.ftruncate(self._descriptor, end)
        if end != len(data):
            os.fsync(self._descriptor)
        return end

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot append to {self.path}: {error.strerror or error}. Answers before this one are safe. Free space "
            f"there (df -h {self.path.parent}), then start the same command again: it answers only what is missing."
        )


def _parse(path: Path, data: bytes) -> Iterator[tuple[Answer, int]]:
    """Yield (answer, offset behind its line) of a file's content; a torn last line is passed over.

    Raises UserError naming file and line for any other damage.
    """
    start, number = 0, 0
    while start < len(data):
        number += 1
        stop = data.find(b"\n", start)
        end = len(data) + 1 if stop < 0 else stop + 1
        line = data[start : end - 1]
        try:
            record = json.loads(line)
        except ValueError:  # not JSON, or not UTF-8
            if end >= len(data):
                return
            raise UserError(
                f"{path}, line {number} is damaged: {line[:60]!r} is not a record of an answer. Only a torn last line "
                f"can be repaired. To answer that question again, delete the line: sed -i '{number}d' {path}"
            ) from None
        yield _to_answer(record, path, number), end
        start = end


def _to_answer(record: object, path: Path, number: int) -> Answer:
    where = f"{path}, line {number}"
    away = f"Move the folder away (mv {path.parent} {path.parent}.old) or choose another one with results=<folder>."
    if not isinstance(record, dict) or "question_id" not in record:
        raise UserError(f"{where} is not a record of an answer. {away}")
    schema = record.get("schema")
    if schema != SCHEMA:
        raise UserError(f"{where} has schema {schema!r}; this version reads and writes schema {SCHEMA}. {away}")
    try:
        return Answer(**record)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} is not a record of an answer: {error}. {away}") from error


def answer_files(cell_dir: Path | str) -> list[Path]:
    """The cell's answers files, in name order; empty when there are none."""
    folder = Path(cell_dir)
    return sorted(p for p in folder.glob("answers*.jsonl") if _FILE.fullmatch(p.name))


def iter_answers(path: Path | str) -> Iterator[Answer]:
    """Every answer of one file in the order written, repeated questions included.

    Raises UserError on damage other than a torn last line. Never writes, so a live run's file may be read.
    """
    path = Path(path)
    for answer, _ in _parse(path, path.read_bytes()):
        yield answer


def read_answers(cell_dir: Path | str) -> dict[str, Answer]:
    """The cell's state: question id -> its answer. Within and across files an ok answer wins over a failed one, and
    among equals the last.

    Raises UserError on damage other than one torn last line per file.
    """
    merged: dict[str, Answer] = {}
    for path in answer_files(cell_dir):
        own: dict[str, Answer] = {}
        for answer in iter_answers(path):
            held = own.get(answer.question_id)
            if held is None or answer.ok or not held.ok:
                own[answer.question_id] = answer
        for question_id, answer in own.items():
            held = merged.get(question_id)
            if held is None or (answer.ok, answer.time) >= (held.ok, held.time):
                merged[question_id] = answer
    return merged
