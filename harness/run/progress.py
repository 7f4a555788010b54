"""Shows how far a run is: live on a terminal and as a page, a line now and then elsewhere. Reads the status files."""

from __future__ import annotations

import logging
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live

from harness.run.live import LivePage, asks_of, scene_of, view
from harness.run.status import Snapshot, take_snapshot
from harness.run.work import Order

log = logging.getLogger(__name__)

LINE_EVERY_S = 10.0
REFRESH_S = 2.0  # a view takes 6 ms of a processor, so this is 0.3 % of one


class Display:
    """Context manager: shows an order's progress until it is left. Display trouble never disturbs the run.

    It reads the small status files of the workers, never the answers.

    Args:
        order: what is being done.
        stream: where to; a live view when it is a terminal.
        every_s: seconds between two plain lines; those go to the log as well.
        page: where the same is written as a page that refreshes itself; None for no page.
    """

    def __init__(
        self, order: Order, stream: TextIO | None = None, every_s: float = LINE_EVERY_S, page: Path | None = None
    ) -> None:
        self._order, self._every_s = order, every_s
        self._console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
        self._page, self._asks = None if page is None else LivePage(page), asks_of(order)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> Display:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _show(self) -> None:
        try:
            if self._console.is_terminal:
                with Live(console=self._console, auto_refresh=False, transient=True) as live:
                    self._watch(live)
            else:
                self._watch(None)
            if self._page:
                self._page.write(scene_of(take_snapshot(self._order.logs), self._order, self._asks), running=False)
        except Exception:
            log.exception("the progress display ended; the run goes on")
        log.info("the progress display took %.2f s of a processor", time.thread_time())

    def _watch(self, live: Live | None) -> None:
        said: set[str] = set()
        due = time.monotonic() + self._every_s
        while not self._stop.wait(min(REFRESH_S, self._every_s)):
            snapshot = take_snapshot(self._order.logs)
            for words in sorted({status.runs_on for status in snapshot.workers if status.runs_on} - said):
                said.add(words)
                self._console.print(words, markup=False)
            page_due = self._page is not None and self._page.due
            if live or page_due:
                scene = scene_of(snapshot, self._order, self._asks)
                if live:
                    live.update(view(scene, self._console.height), refresh=True)
                if self._page and page_due:
                    self._page.write(scene, running=True)
            if time.monotonic() < due:
                continue
            due += self._every_s
            line = plain_line(snapshot, self._order)
            log.info(line)
            if not live:
                self._console.print(line, markup=False)


def plain_line(snapshot: Snapshot, order: Order) -> str:
    """One line for a log."""
    done, asks = sum(snapshot.done.values()), sum(siblings.asks for siblings in order.siblings)
    videos = sum(len(siblings.videos) for siblings in order.siblings)
    at_work = sorted({w.siblings for w in snapshot.workers if w.siblings and w.state == "running"})
    states = ", ".join(worker.state for worker in snapshot.workers)
    rate = done / snapshot.seconds if snapshot.seconds > 0 else 0.0
    left = str(timedelta(seconds=int((asks - done) / rate))) if rate else "-"
    return (
        f"[{timedelta(seconds=int(snapshot.seconds))}] {' + '.join(at_work) or states or 'waiting for workers'}: "
        f"videos {snapshot.counters.videos_done}/{videos}, answers {done}/{asks}, {rate:.2f}/s, ETA {left}, "
        f"failed {snapshot.counters.failed}"
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
