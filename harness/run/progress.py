"""Shows how far a run is: a live table on a terminal, a line now and then elsewhere. Reads the status files."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from harness.run.status import Counters, GroupStatus, Status, read_status
from harness.run.work import WorkOrder

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
REFRESH_S = 0.5


@dataclass
class Snapshot:
    """All workers of a start, added up."""

    groups: list[GroupStatus]
    workers: list[Status]  # the latest start of each
    counters: Counters = field(default_factory=Counters)
    seconds: float = 0.0  # since the first worker was at work

    @property
    def total(self) -> GroupStatus:
        """All groups added up."""
        return add_up("all", self.groups)

    @property
    def per_second(self) -> float:
        """Answers per second since the start."""
        return self.total.answers_done / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining_s(self) -> float | None:
        """Seconds still to go at the rate so far; None before the first answer."""
        rate = self.per_second
        return (self.total.answers - self.total.answers_done) / rate if rate else None


def add_up(name: str, groups: Iterable[GroupStatus]) -> GroupStatus:
    """One status over several."""
    whole = GroupStatus(name)
    for group in groups:
        for key in ("videos", "videos_done", "answers", "answers_done", "failed", "scored", "correct"):
            setattr(whole, key, getattr(whole, key) + getattr(group, key))
    return whole


def take_snapshot(order: WorkOrder) -> Snapshot:
    """Read the status files of a start."""
    statuses = [status for path in sorted(order.logs.glob("status-*.json")) if (status := read_status(path))]
    groups = []
    for group in order.groups:
        whole = add_up(group.name, (g for status in statuses for g in status.groups if g.name == group.name))
        whole.videos, whole.answers = len(group.videos), group.asks
        groups.append(whole)
    latest: dict[str, Status] = {}
    for status in sorted(statuses, key=lambda s: s.started):
        latest[status.worker] = status
    snapshot = Snapshot(groups, list(latest.values()))
    for status in statuses:
        snapshot.counters.add(status.counters)
    begun = [status.at_work for status in statuses if status.at_work]
    if begun:
        snapshot.seconds = max(status.updated for status in statuses) - min(begun)
    return snapshot


def clock(seconds: float | None) -> str:
    """h:mm:ss, or a dash."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def accuracy(group: GroupStatus) -> str:
    """Running accuracy of what this start has answered, in percent, or a dash."""
    return f"{100 * group.correct / group.scored:.1f} %" if group.scored else "-"


def heartbeat(snapshot: Snapshot) -> str:
    """One line."""
    total = snapshot.total
    at_work = sorted({status.group for status in snapshot.workers if status.group and status.state == "running"})
    states = ", ".join(status.state for status in snapshot.workers)
    return (
        f"[{clock(snapshot.seconds)}] {' + '.join(at_work) or states or 'waiting for workers'}: "
        f"videos {total.videos_done}/{total.videos}, answers {total.answers_done}/{total.answers}, "
        f"{snapshot.per_second:.2f}/s, ETA {clock(snapshot.remaining_s)}, accuracy {accuracy(total)}, "
        f"failed {total.failed}"
    )


def summary(snapshot: Snapshot) -> str:
    """The counters of a finished start, as one line."""
    c = snapshot.counters
    reused = f", {c.videos_reused} taken from the feature store" if c.videos_reused else ""
    return (
        f"{c.answers} answers given, {c.failed} failed; {c.videos_decoded} videos decoded, {c.videos_encoded} encoded"
        f"{reused} ({c.frames} frames in {c.encoder_windows} encoder windows); waited {c.seconds_waiting:.1f} s for "
        f"frames, encoded {c.seconds_encoding:.1f} s, answered {c.seconds_answering:.1f} s"
    )


class Progress:
    """Context manager: shows an order's progress until it is left. Display trouble never disturbs the run.

    Args:
        order: what is being done.
        stream: where to; a live display when it is a terminal.
        every_s: seconds between two plain lines.
    """

    def __init__(self, order: WorkOrder, stream: TextIO | None = None, every_s: float = HEARTBEAT_S) -> None:
        self._order, self._stream, self._every_s = order, stream or sys.stdout, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _show(self) -> None:
        try:
            if self._stream.isatty():
                self._live()
            else:
                self._lines()
        except Exception:
            log.exception("the progress display ended; the run goes on")

    def _lines(self) -> None:
        said: set[str] = set()
        due = time.monotonic() + self._every_s
        while not self._stop.wait(min(1.0, self._every_s)):
            snapshot = take_snapshot(self._order)
            lines = sorted({status.runs_on for status in snapshot.workers if status.runs_on} - said)
            said.update(lines)
            if time.monotonic() >= due:
                due += self._every_s
                lines.append(heartbeat(snapshot))
                log.info(lines[-1])
            for line in lines:
                print(line, file=self._stream, flush=True)

    def _live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        noted = time.monotonic()
        with Live(console=Console(file=self._stream), auto_refresh=False, transient=True) as live:
            while not self._stop.wait(REFRESH_S):
                snapshot = take_snapshot(self._order)
                live.update(render(snapshot), refresh=True)
                if time.monotonic() - noted >= self._every_s:
                    log.info(heartbeat(snapshot))
                    noted = time.monotonic()


def render(snapshot: Snapshot):
    """The live display: a row per group, a row per worker."""
    from rich.console import Group
    from rich.table import Table

    groups = Table(box=None, pad_edge=False)
    for name in ("group", "videos", "answers", "accuracy", "failed"):
        groups.add_column(name, justify="left" if name == "group" else "right")
    for group in snapshot.groups:
        groups.add_row(
            group.name,
            f"{group.videos_done}/{group.videos}",
            f"{group.answers_done}/{group.answers}",
            accuracy(group),
            str(group.failed),
        )
    workers = Table(box=None, pad_edge=False)
    for name in ("worker", "state", "answers", "video", "runs on"):
        workers.add_column(name)
    for status in snapshot.workers:
        done = sum(group.answers_done for group in status.groups)
        video = Path(status.video).name if status.video else ""
        share = f"{done}/{sum(g.answers for g in status.groups)}"
        workers.add_row(status.worker, status.state, share, video, status.runs_on or "")
    return Group(groups, workers, heartbeat(snapshot))
