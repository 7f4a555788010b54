"""Answers on disk: one JSON line per answer.

A cell's answers are the union of `answers.jsonl` and `answers.<worker>.jsonl` in its folder. Every line stands alone.
A process killed while appending leaves at most one torn line, the last of its own file; readers pass over it.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from sys import intern
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from harness.advice import aside
from harness.errors import UserError, printable
from harness.store.records import EditedError, NotRecordError, seal, unseal

SCHEMA = 3
OK = "ok"
FAILED = "failed"

_FILE = re.compile(r"answers(\.[A-Za-z0-9_-]+)?\.jsonl")


def now() -> str:
    """The present, in UTC, as ISO 8601 with microseconds (fixed width, so that text order is time order)."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


@dataclass(slots=True)
class Answer:
    """One question answered, or not, in one cell; never changed once made.

    It is not declared frozen, because making a frozen one of so many fields takes five times longer, and a results
    folder may hold a million.
    """

    question_id: str
    video_id: str
    status: str  # "ok" or "failed"
    text: str = ""  # what the model said, unchanged
    video_digest: str | None = None  # of the file that was seen, see `harness.video.digest`
    n_prompt: int | None = None  # tokens of the whole prompt before compression
    n_encoded: int | None = None  # video tokens that the vision tower made
    n_video: int | None = None  # of these, the ones in the prompt
    prefilled: float | None = None  # tokens through the language model before the first new one, mean over layers
    attended: float | None = None  # keys that these looked at, in all, mean over layers
    cache_peak: float | None = None  # most cache slots until then, mean over layers
    cache_length: list[float] = field(default_factory=list)  # [L] cache slots of each layer after the prefill
    host_bytes: int | None = None  # of keys and values that waited in host memory
    moved_bytes: int | None = None  # of these, copied to the accelerator
    chunk_budget: list[int] = field(default_factory=list)  # [K] tokens to keep of each chunk, mean over layers
    kept_digest: str | None = None  # of all choices of tokens; None where nothing was chosen
    kept_margin: float | None = None  # how near the closest of these choices was, see `harness.compress.trace`
    next_position: int | None = None  # position id of the first new token
    sampling_fps: float | None = None
    second_per_grid: float | None = None  # seconds from one pair of frames to the next
    evidence_seen: bool | None = None  # a frame lies in each span that shows the answer; None: the spans are not known
    frames: str | None = None  # name of the record of the frames that were seen, see `harness.store.frames`
    backend: str | None = None  # decoder that made the frames
    seconds: dict[str, float] = field(default_factory=dict)
    n_new: int | None = None  # generated tokens
    peak_memory: int | None = None  # most bytes on the accelerators while this was answered
    error: dict[str, str] | None = None  # {"type", "message"} of a failed answer
    start: str | None = None  # which start of a run gave it: the name of that start's folder of logs
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

    @property
    def reason(self) -> str:
        """Why it failed, in words that may be shown on a terminal; empty for an ok answer."""
        return printable(f"{self.error.get('type')}: {self.error.get('message')}") if self.error else ""

    @property
    def n_cache_mean(self) -> float | None:
        """Cache slots after the prefill, mean over layers."""
        return sum(self.cache_length) / len(self.cache_length) if self.cache_length else None

    def to_line(self) -> bytes:
        """The answer as one line of JSON, newline included."""
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return seal({"schema": record.pop("schema"), **record})


def failed_answer(question_id: str, video_id: str, error: BaseException, **known: Any) -> Answer:
    """The record of a question that could not be answered: the error's type and message."""
    reason = {"type": type(error).__name__, "message": str(error) or repr(error)}
    return Answer(question_id, video_id, FAILED, error=reason, **known)


def answer_files(cell_dir: Path | str) -> list[Path]:
    """The cell's answers files, in name order; empty when there are none."""
    folder = Path(cell_dir)
    return sorted(p for p in folder.glob("answers*.jsonl") if _FILE.fullmatch(p.name))


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
    """Yield (answer, offset behind its line) of the content of the file `path`; a torn last line is passed over.

    Raises UserError naming file and line for any other damage.
    """
    start, number = 0, 0
    while start < len(data):
        number += 1
        stop = data.find(b"\n", start)
        end = len(data) + 1 if stop < 0 else stop + 1
        line = data[start : end - 1]
        try:
            record = unseal(line)
        except NotRecordError:
            if end >= len(data):
                return
            raise UserError(
                f"{path}, line {number} is damaged: {line[:60]!r} is not a record of an answer. Only a torn last line "
                f"can be repaired. {_again(path, number)}"
            ) from None
        except EditedError as error:
            record = error.record
            if record.get("schema") == SCHEMA and "question_id" in record:
                raise UserError(
                    f"{path}, line {number}: {error}. Answers are never edited. {_again(path, number)}"
                ) from None
        try:
            yield _to_answer(record), end
        except ValueError as error:
            raise UserError(
                f"{path}, line {number} {error}. Move the folder away ({aside(path.parent)}) or choose "
                "another one with results=<folder>."
            ) from error
        start = end


def _again(path: Path, number: int) -> str:
    return f"To answer that question again, delete the line: sed -i '{number}d' {shlex.quote(str(path))}"


def _to_answer(record: dict[str, Any]) -> Answer:
    """Raises ValueError saying what is wrong."""
    if "question_id" not in record:
        raise ValueError("is not a record of an answer")
    if record.get("schema") != SCHEMA:
        raise ValueError(f"has schema {record.get('schema')!r}; this version reads and writes schema {SCHEMA}")
    names, wrong, holding = _checked((*record, *map(type, record.values())))
    if wrong:
        raise ValueError(f"is not a record of an answer: {wrong}={record[wrong]!r} is no {_hint(wrong)}")
    record = dict(zip(names, record.values(), strict=True))
    for name, types in holding:
        value = record[name]
        if not types.issuperset(map(type, value.values() if type(value) is dict else value)):
            raise ValueError(f"is not a record of an answer: {name}={value!r} is no {_hint(name)}")
    for name in SHARED:
        if (value := record.get(name)) is not None:
            record[name] = intern(value)
    if seconds := record.get("seconds"):
        record["seconds"] = {intern(stage): value for stage, value in seconds.items()}
    try:
        return Answer(**record)
    except (TypeError, ValueError) as error:
        raise ValueError(f"is not a record of an answer: {error}") from error


SHARED = ("question_id", "video_id", "status", "video_digest", "frames", "backend", "start")
"""Texts that many answers have in common: one object each in memory."""
_NONE = type(None)
_JSON: dict[Any, set[type]] = {t: {t} for t in (str, int, bool, list, dict, _NONE)} | {float: {int, float}}
"""Annotated type -> types under which JSON gives it back; whole numbers are numbers."""


@cache
def _types() -> dict[str, tuple[frozenset[type], frozenset[type]]]:
    """Of every field of an answer: the types that its value may have, and those of the items of a list or of the values
    of a dictionary, which are of one plain type."""
    found = {}
    for name, hint in get_type_hints(Answer).items():
        own: set[type] = set()
        inside: set[type] = set()
        for each in get_args(hint) if isinstance(hint, UnionType) else (hint,):
            own |= _JSON[get_origin(each) or each]
            inside |= _JSON[get_args(each)[-1]] if get_args(each) else set()
        found[name] = frozenset(own), frozenset(inside)
    return found


@lru_cache(maxsize=1024)
def _checked(shape: tuple[Any, ...]) -> tuple[list[str], str | None, list[tuple[str, frozenset[type]]]]:
    """What a record's names, followed by the types of its values, come to: lines of one run have few different ones.

    Returns:
        The names, as the objects by which Python finds a function's arguments at once; a field whose value has a wrong
        type; and what is left to look at: fields with items, and the types of these.
    """
    known, names = _types(), [intern(name) for name in shape[: len(shape) // 2]]
    kinds = [(name, kind) for name, kind in zip(names, shape[len(names) :], strict=True) if name in known]
    wrong = next((name for name, kind in kinds if kind not in known[name][0]), None)
    return names, wrong, [(name, known[name][1]) for name, kind in kinds if kind in (list, dict)]


def _hint(name: str) -> Any:
    return get_type_hints(Answer)[name]
