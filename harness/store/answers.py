"""Answers on disk: one JSON line per answer.

A cell's answers are the union of `answers.jsonl` and `answers.<worker>.jsonl` in its folder. Every line stands alone.
A process killed while appending leaves at most one torn line, the last of its own file; readers pass over it.
"""

from __future__ import annotations

import datetime
import itertools
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

import msgspec

from harness.advice import aside
from harness.errors import UserError, printable
from harness.records import EditedError, NotRecordError, StoreError, hold, seal, sealed_body, sync_folder, unseal

SCHEMA = 4
OK = "ok"
FAILED = "failed"

_FILE = re.compile(r"answers(\.[A-Za-z0-9_-]+)?\.jsonl")


def now() -> str:
    """The present, in UTC, as ISO 8601 with microseconds (fixed width, so that text order is time order)."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    """One question answered, or not, in one cell; never changed once made."""

    question_id: str
    video_id: str
    status: str  # "ok" or "failed"
    text: str = ""  # what the model said, unchanged
    cell: str = ""  # id of the cell, the name of its folder; written by the log
    prompt_digest: str | None = None  # of the text asked, see `harness.store.QuestionRecord`
    ids_digest: str | None = None  # of the token ids of the whole prompt
    positions_digest: str | None = None  # of their position ids
    video_digest: str | None = None  # of the file that was seen, see `harness.digest`
    n_prompt: int | None = None  # tokens of the whole prompt before compression
    n_encoded: int | None = None  # video tokens that the vision encoder made
    n_video: int | None = None  # of these, the ones in the prompt
    prefilled: float | None = None  # tokens through the language model before the first new one, mean over layers
    attended: float | None = None  # keys that these looked at, in all, mean over layers
    cache_peak: float | None = None  # most KV cache entries until then, mean over layers
    cache_length: list[float] = []  # [L] KV cache entries of each layer after the prefill
    host_bytes: int | None = None  # of keys and values that waited in host memory
    moved_bytes: int | None = None  # of these, copied to the accelerator
    chunk_budget: list[int] = []  # [K] tokens to keep of each chunk, mean over layers
    kept_digest: str | None = None  # of all choices of tokens; None where nothing was chosen
    kept_margin: float | None = None  # how near the closest of these choices was, see `harness.compress.trace`
    next_position: int | None = None  # position id of the first new token
    sampling_fps: float | None = None
    second_per_grid: float | None = None  # seconds from one pair of frames to the next
    evidence_seen: bool | None = None  # a frame lies in each span that shows the answer; None: the spans are not known
    frames: str | None = None  # name of the record of the frames that were seen, see `harness.store.frames`
    backend: str | None = None  # decoder that made the frames
    seconds: dict[str, float] = {}
    n_new: int | None = None  # generated tokens
    peak_memory: int | None = None  # most bytes on the accelerators while this was answered
    error: dict[str, str] | None = None  # {"type", "message"} of a failed answer
    start: str | None = None  # which start of a run gave it: the name of that start's folder of logs
    time: str = msgspec.field(default_factory=now)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.status != OK and self.status != FAILED:
            raise ValueError(f"status {self.status!r} of question {self.question_id!r} must be '{OK}' or '{FAILED}'")
        if self.status == FAILED and not self.error:
            raise ValueError(f"question {self.question_id!r} failed without an error to show for it")

    @property
    def ok(self) -> bool:
        """Whether the question was answered."""
        return self.status == OK

    @property
    def reason(self) -> str:
        """Why it failed, in words that may be shown on a terminal; empty for an ok answer."""
        return printable(f"{self.error.get('type')}: {self.error.get('message')}") if self.error else ""

    @property
    def n_cache_mean(self) -> float | None:
        """KV cache entries after the prefill, mean over layers."""
        return sum(self.cache_length) / len(self.cache_length) if self.cache_length else None

    def to_line(self, cell: str) -> bytes:
        """The answer as one line of JSON of a cell's file, newline included."""
        record = {**msgspec.structs.asdict(self), "cell": cell}
        return seal({"schema": record.pop("schema"), **record})


def failed_answer(question_id: str, video_id: str, error: BaseException, **known: Any) -> Answer:
    """The record of a question that could not be answered: the error's type and message."""
    reason = {"type": type(error).__name__, "message": str(error) or repr(error)}
    return Answer(question_id, video_id, FAILED, error=reason, **known)


def answer_files(cell_dir: Path | str) -> list[Path]:
    """The cell's answers files, in name order; empty when there are none.

    Raises UserError for one that is no file, and for answers of the cell under a name that is not read, such as
    `answers (1).jsonl` of a program that copies folders.
    """
    files = []
    for path in sorted(Path(cell_dir).glob("answers*.jsonl")):
        if not _FILE.fullmatch(path.name):
            if path.is_file() and _holds_answers(path):
                names = (path.with_name(f"answers.copy{number}.jsonl") for number in itertools.count())
                free = next(name for name in names if not name.exists())
                raise UserError(
                    f"{path} holds answers under a name that is not read. Have them read, or move them away: "
                    f"mv {shlex.quote(str(path))} {shlex.quote(str(free))}"
                )
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{path} is not a regular file. Put it back, or move it away: {aside(path)}")
    return files


def _holds_answers(path: Path) -> bool:
    with path.open("rb") as stream:
        try:
            return bool(_decode(stream.readline().rstrip(b"\n")).question_id)
        except (ValueError, NotRecordError, EditedError):
            return False


def iter_answers(path: Path | str) -> Iterator[Answer]:
    """Every answer of one file in the order written, repeated questions included.

    Raises UserError on damage other than a torn last line. Never writes, so a live run's file may be read.
    """
    path = Path(path)
    for answer, _ in parse_answers(path, path.read_bytes()):
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


def parse_answers(path: Path, data: bytes) -> Iterator[tuple[Answer, int]]:
    """Yield (answer, offset after its line) of the content of the file `path`; a torn last line is passed over.

    Raises UserError naming file and line for any other damage, and for an answer of another cell.
    """
    start, number, cell = 0, 0, path.absolute().parent.name
    while start < len(data):
        number += 1
        stop = data.find(b"\n", start)
        end = len(data) + 1 if stop < 0 else stop + 1
        line = data[start : end - 1]
        try:
            answer = _decode(line)
        except NotRecordError:
            if end >= len(data):
                return
            raise UserError(
                f"{path}, line {number} is damaged: {line[:60]!r} is not a record of an answer. Only a torn last line "
                f"can be repaired. {_drop(path, number)}"
            ) from None
        except EditedError as error:
            raise UserError(
                f"{path}, line {number}: {error}. Answers are never edited. {_drop(path, number)}"
            ) from None
        except ValueError as error:
            raise UserError(
                f"{path}, line {number} {error}. Move the folder away ({aside(path.parent)}) or choose "
                "another one with results=<folder>."
            ) from error
        if answer.cell != cell:
            raise UserError(
                f"{path}, line {number} is an answer of the cell {answer.cell!r} and not of {cell!r}. Put the file "
                f"back where it was, or move it away ({aside(path)}); then start the same command again."
            )
        yield answer, end
        start = end


def _drop(path: Path, number: int) -> str:
    return f"To answer that question again, delete the line: sed -i '{number}d' {shlex.quote(str(path))}"


_DECODER = msgspec.json.Decoder(Answer)


def _decode(line: bytes) -> Answer:
    """The answer of a line.

    Raises:
        NotRecordError, EditedError: see `harness.records.unseal`.
        ValueError: it is another record; says what is wrong.
    """
    body = sealed_body(line)
    try:
        answer = _DECODER.decode(body + b"}") if body is not None else _convert(line)
    except msgspec.DecodeError:  # wrong types, or text that only Python's own reader takes
        answer = _convert(line)
    if answer.schema != SCHEMA:
        raise ValueError(_other_schema(answer.schema))
    for name in SHARED:
        if (value := getattr(answer, name)) is not None:
            setattr(answer, name, intern(value))
    return answer


def _other_schema(schema: Any) -> str:
    return (
        f"has schema {schema!r}; this version reads and writes schema {SCHEMA}, whose answers also know their cell "
        "and their prompt"
    )


def _convert(line: bytes) -> Answer:
    """The answer of a line that the fast decoder does not take. Raises as `_decode`."""
    try:
        record = unseal(line)
    except EditedError as error:
        record = error.record
        if record.get("schema") == SCHEMA and "question_id" in record:
            raise
    if "question_id" not in record:
        raise ValueError("is not a record of an answer")
    if record.get("schema") != SCHEMA:
        raise ValueError(_other_schema(record.get("schema")))
    try:
        return msgspec.convert(record, Answer)
    except ValueError as error:
        raise ValueError(f"is not a record of an answer: {error}") from error


SHARED = ("question_id", "video_id", "status", "cell", "video_digest", "frames", "backend", "start", "prompt_digest")
"""Texts that many answers have in common: one object each in memory."""


Files = tuple[tuple[str, int, int, int], ...]
"""Name, inode, bytes and time of the last change of every answers file of a cell."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a question, without what was said: all that decides whether it is asked."""

    ok: bool
    start: str | None
    reason: str = ""  # why it failed
    prompt_digest: str | None = None


@dataclass(frozen=True)
class Outcomes:
    """What a cell's answers files said when they were read."""

    of: Mapping[str, Outcome]  # by question id
    files: Files


def outcomes_of(answers: Mapping[str, Answer], files: Files) -> Outcomes:
    """The outcomes of answers that were read from files in that state; equal ones are one object."""
    one: dict[Outcome, Outcome] = {}
    outcomes = ((name, Outcome(a.ok, a.start, a.reason, a.prompt_digest)) for name, a in answers.items())
    return Outcomes({name: one.setdefault(outcome, outcome) for name, outcome in outcomes}, files)


def files_now(cell_dir: Path | str) -> Files:
    """The state of a cell's answers files: equal to that of before where nothing was written since."""
    found = ((path.name, path.stat()) for path in answer_files(cell_dir))
    return tuple((name, of.st_ino, of.st_size, of.st_mtime_ns) for name, of in found)


def read_outcomes(cell_dir: Path | str, known: Outcomes | None = None) -> Outcomes:
    """The outcomes of a cell; `known` ones where its files are as they were. Raises as `read_answers`."""
    files = files_now(cell_dir)
    return known if known is not None and known.files == files else outcomes_of(read_answers(cell_dir), files)


def is_needed(answer: Answer | Outcome | None, retry: str, start: str | None = None) -> bool:
    """Whether a question must still be asked.

    Args:
        answer: what the store holds for it.
        retry: "none" leaves failed questions alone, "failed" asks them again.
        start: a failure of this start of a run counts as tried. Clocks are not compared: they differ and are set.
    """
    if answer is None:
        return True
    return not answer.ok and retry == "failed" and (start is None or answer.start != start)


_WORKER = re.compile(r"[A-Za-z0-9_-]+")


class AnswerLog:
    """Append-only writer of one answers file; it holds the file's lock until closed.

    `worker` names the file `answers.<worker>.jsonl`. Opening repairs a torn last line left by a killed process, and
    that alone.

    Raises StoreError when another process writes the same file, when the file is replaced or changed while it is
    written, or when the disk does not take an answer: the answers before it are safe, and starting the run again goes
    on behind them. Raises UserError on a damaged file.
    """

    def __init__(self, cell_dir: Path | str, worker: str | None = None, wait_s: float = 0.0) -> None:
        if worker is not None and not _WORKER.fullmatch(worker):
            raise UserError(f"worker name {worker!r} is not usable in a file name: letters, digits, '_' and '-' only")
        folder = Path(cell_dir)
        self._cell = folder.absolute().name
        self.path = folder / ("answers.jsonl" if worker is None else f"answers.{worker}.jsonl")
        self._lock = hold(folder / f".{self.path.name}.lock", wait_s)
        self._descriptor = -1
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._end = self._repair()
            sync_folder(folder)
        except OSError as error:
            self.close()
            raise self._refused(error) from error
        except BaseException:
            self.close()
            raise

    def append(self, answer: Answer) -> None:
        """Write one answer; when this returns, it is on the disk."""
        if self._descriptor < 0:
            raise ValueError(f"{self.path} is closed")
        line = answer.to_line(self._cell)
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
        self._check_untouched()

    def close(self) -> None:
        """Release the file; closing twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._lock.__exit__(None, None, None)

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

    def _check_untouched(self) -> None:
        """Raise StoreError when the path names another file by now (an editor replaces), or something else wrote."""
        held = os.fstat(self._descriptor)
        try:
            there = os.stat(self.path)
            same = (there.st_dev, there.st_ino, there.st_size) == (held.st_dev, held.st_ino, self._end)
        except FileNotFoundError:
            same = False
        if not same:
            self.close()
            raise StoreError(
                f"{self.path} was replaced, removed or changed by another program while it was written. Edit answers "
                "only while no run writes them; start the same command again: it answers what is missing."
            )

    def _repair(self) -> int:
        """Drop a torn last line, complete one that lacks only its newline; return the end of the file."""
        data = self.path.read_bytes()
        end = max((end for _, end in parse_answers(self.path, data)), default=0)
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
