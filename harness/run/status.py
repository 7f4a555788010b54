"""What a worker is doing, as a small file that the display and the supervisor read. It may be lost without harm."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITE_EVERY_S = 0.5


@dataclass
class Counters:
    """Work done since the start, counted where it happens."""

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
class GroupStatus:
    """One group's share of this worker."""

    name: str
    videos: int = 0
    videos_done: int = 0
    answers: int = 0
    answers_done: int = 0
    failed: int = 0
    scored: int = 0  # answered questions with a public gold letter
    correct: int = 0


@dataclass
class Status:
    """A worker's state.

    `state` is "starting", "loading", "running", "done", "interrupted" or "stopped"; the last comes with `error`, the
    message for the user.
    """

    worker: str
    state: str = "starting"
    pid: int = field(default_factory=os.getpid)
    group: str | None = None
    video: str | None = None  # path of the video in work
    runs_on: str | None = None  # model, device, number format and attention backend
    groups: list[GroupStatus] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    error: str | None = None
    at_work: float | None = None  # when the first video was begun
    started: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)


def read_status(path: Path) -> Status | None:
    """The state in a status file; None when there is none yet, or it is being replaced."""
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
        groups = [GroupStatus(**group) for group in record.pop("groups")]
        counters = Counters(**record.pop("counters"))
        return Status(groups=groups, counters=counters, **record)
    except (OSError, ValueError, TypeError, KeyError):
        return None


class Board:
    """Keeps a worker's `Status` and writes it to its file now and then; at once where the supervisor relies on it."""

    def __init__(self, worker: str, path: Path | None = None) -> None:
        self.status = Status(worker)
        self._path = path
        self._written = 0.0
        self.write()

    @property
    def counters(self) -> Counters:
        """This worker's counters."""
        return self.status.counters

    def state(self, state: str, error: str | None = None) -> None:
        """Enter a state."""
        self.status.state, self.status.error = state, error
        self.write()

    def plan(self, groups: list[GroupStatus]) -> None:
        """Say what this worker has before it."""
        self.status.groups = groups
        self.write()

    def video(self, group: str, video: Path) -> None:
        """Start a video."""
        self.status.state, self.status.group, self.status.video = "running", group, str(video)
        self.status.at_work = self.status.at_work or time.time()
        self.write()

    def answered(self, ok: bool, correct: bool | None) -> None:
        """Count one answer; `correct` is None when there is no gold letter."""
        group = self._group()
        group.answers_done += 1
        self.counters.answers += ok
        self.counters.failed += not ok
        group.failed += not ok
        if ok and correct is not None:
            group.scored += 1
            group.correct += correct
        self.write(now=False)

    def video_done(self) -> None:
        """End a video."""
        self._group().videos_done += 1
        self.status.video = None
        self.write(now=False)

    def write(self, now: bool = True) -> None:
        """Write the file, at most every WRITE_EVERY_S unless `now`."""
        moment = time.monotonic()
        if self._path is None or (not now and moment - self._written < WRITE_EVERY_S):
            return
        self._written = moment
        self.status.updated = time.time()
        draft = self._path.with_suffix(".tmp")
        with contextlib.suppress(OSError):  # a full disk is reported by the answers, which matter
            draft.write_text(json.dumps(dataclasses.asdict(self.status)))
            os.replace(draft, self._path)

    def _group(self) -> GroupStatus:
        return next(group for group in self.status.groups if group.name == self.status.group)
