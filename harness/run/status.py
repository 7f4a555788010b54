"""What a worker is doing, as a small file that the display and the supervisor read. It may be lost without harm."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.run.environment import accelerator_memory

if TYPE_CHECKING:
    from harness.store import Answer

WRITE_EVERY_S = 0.5
LAST = 5
"""Answers, and failures, that a status tells of."""
SHOWN = 120
"""Characters of an answer or a reason in it."""


@dataclass
class Counters:
    """Work done since the start, counted where it happens."""

    videos_done: int = 0
    videos_decoded: int = 0
    videos_encoded: int = 0
    videos_reused: int = 0  # features taken from run.feature_dir
    frames: int = 0
    encoder_windows: int = 0
    answers: int = 0
    failed: int = 0
    seconds_waiting: float = 0.0  # for frames
    seconds_encoding: float = 0.0
    seconds_answering: float = 0.0

    def add(self, other: Counters) -> None:
        """Add another worker's."""
        for f in dataclasses.fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))


@dataclass
class Status:
    """A worker's state.

    `state` is "starting", "loading", "running", "done", "interrupted" or "stopped"; the last comes with `error`, the
    message for the user.
    """

    worker: str
    state: str = "starting"
    pid: int = field(default_factory=os.getpid)
    siblings: str | None = None  # name of the cells in work
    video: str | None = None  # path of the video in work
    runs_on: str | None = None  # model, device, number format and attention backend
    done: dict[str, int] = field(default_factory=dict)  # name of siblings -> questions answered or failed
    cells: dict[str, list[int]] = field(default_factory=dict)  # id of a cell -> questions answered, and failed
    answers: list[dict[str, Any]] = field(default_factory=list)  # the last ones: cell, question, text, seconds, time
    failures: list[dict[str, Any]] = field(default_factory=list)  # the last ones: cell, question, text (why), time
    memory: tuple[int, int] | None = None  # bytes in use on the accelerators that this process sees, and in all
    counters: Counters = field(default_factory=Counters)
    error: str | None = None
    at_work: float | None = None  # when the first video was begun
    started: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)


def status_path(logs: Path, index: int, attempt: int) -> Path:
    """Where a worker's status lies."""
    return logs / f"status-{index}.{attempt}.json"


def read_status(path: Path) -> Status | None:
    """The state in a status file; None when there is none yet, or it is being replaced."""
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
        return Status(**{**record, "counters": Counters(**record["counters"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


class StatusFile:
    """Keeps a worker's `Status` and writes it to its file now and then; at once where the supervisor relies on it."""

    def __init__(self, path: Path, worker: str) -> None:
        self.status = Status(worker)
        self._path, self._written = path, 0.0
        self.write()

    @property
    def counters(self) -> Counters:
        """This worker's counters."""
        return self.status.counters

    def enter(self, state: str, **facts: str | None) -> None:
        """Enter a state, with what is known by now: `error` or `runs_on`."""
        self.status = dataclasses.replace(self.status, state=state, **facts)  # type: ignore[arg-type]
        self.write()

    def begin(self, siblings: str, video: Path) -> None:
        """Start a video."""
        self.status.at_work = self.status.at_work or time.time()
        self.enter("running", siblings=siblings, video=str(video))

    def answered(self, cell: str, answer: Answer) -> None:
        """Count one answer of a cell among the siblings in work."""
        name, ok = str(self.status.siblings), answer.ok
        self.status.done[name] = self.status.done.get(name, 0) + 1
        self.status.cells.setdefault(cell, [0, 0])[not ok] += 1
        last = self.status.answers if ok else self.status.failures
        text, spent = (answer.text if ok else answer.reason)[:SHOWN], sum(answer.seconds.values())
        last.append({"cell": cell, "question": answer.question_id, "text": text, "seconds": spent, "time": time.time()})
        del last[:-LAST]
        self.counters.answers += ok
        self.counters.failed += not ok
        self.write(now=False)

    def end(self) -> None:
        """End a video."""
        self.counters.videos_done += 1
        self.status.video = None
        self.write(now=False)

    def write(self, now: bool = True) -> None:
        """Write the file, at most every WRITE_EVERY_S unless `now`."""
        moment = time.monotonic()
        if not now and moment - self._written < WRITE_EVERY_S:
            return
        self._written = moment
        self.status.updated = time.time()
        self.status.memory = accelerator_memory()
        draft = self._path.with_suffix(".tmp")
        with contextlib.suppress(OSError):  # a full disk is reported by the answers, which matter
            draft.write_text(json.dumps(dataclasses.asdict(self.status)))
            os.replace(draft, self._path)


@dataclass
class Snapshot:
    """All workers of a start, added up."""

    workers: list[Status]  # the latest start of each
    done: Counter[str] = field(default_factory=Counter)  # name of siblings -> questions answered or failed
    cells: dict[str, list[int]] = field(default_factory=dict)  # id of a cell -> questions answered, and failed
    answers: list[dict[str, Any]] = field(default_factory=list)  # the last ones of all workers, the newest first
    failures: list[dict[str, Any]] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    seconds: float = 0.0  # since the first worker was at work


def take_snapshot(logs: Path) -> Snapshot:
    """Read the status files of a start, those of dead workers too."""
    found = [status for path in sorted(logs.glob("status-*.json")) if (status := read_status(path))]
    found.sort(key=lambda status: status.started)
    snapshot = Snapshot(list({status.worker: status for status in found}.values()))
    for status in found:
        snapshot.counters.add(status.counters)
        snapshot.done.update(status.done)
        for cell, (answered, failed) in status.cells.items():
            before = snapshot.cells.get(cell, [0, 0])
            snapshot.cells[cell] = [before[0] + answered, before[1] + failed]
    for name in ("answers", "failures"):
        told = [entry for status in found for entry in getattr(status, name)]
        setattr(snapshot, name, sorted(told, key=lambda entry: -entry["time"])[:LAST])
    begun = [status.at_work for status in found if status.at_work]
    if begun:
        snapshot.seconds = max(status.updated for status in found) - min(begun)
    return snapshot
