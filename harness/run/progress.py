"""Shows how far a run is: live on a terminal and as a page, a line now and then elsewhere. Reads the status files."""

from __future__ import annotations

import html
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.errors import printable
from harness.run.status import Snapshot, take_snapshot
from harness.run.work import Order

PAGE_EVERY_S = 3.0
FEW = 12
"""Cells that a terminal shows, of those in work; the page has all."""
WORKER = ("worker", "state", "memory", "cells", "video")
"""What is told of each worker."""


@dataclass(frozen=True)
class Share:
    """How much of something is done; ``failed`` of these."""

    name: str
    done: int
    asks: int
    failed: int = 0


@dataclass(frozen=True)
class LiveScene:
    """What there is to see: the whole, groups of siblings, cells (``at_work``: their names), workers, last answers."""

    whole: Share
    seconds: float
    groups: list[Share]
    cells: list[Share]
    at_work: frozenset[str]
    workers: list[dict[str, str]]
    answers: list[dict[str, Any]]
    failures: list[dict[str, Any]]

    @property
    def rate(self) -> float:
        """Answers per second since the first worker was at work."""
        return self.whole.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def headline(self) -> str:
        """The whole in one line."""
        left = str(timedelta(seconds=int((self.whole.asks - self.whole.done) / self.rate))) if self.rate else "-"
        return (
            f"{self.whole.done:,} of {self.whole.asks:,} answers, {self.whole.failed:,} failed, {self.rate:.2f}/s, "
            f"{timedelta(seconds=int(self.seconds))} gone, {left} to go"
        )


def asks_of(order: Order) -> dict[str, int]:
    """Questions that an order asks of each cell, by its id."""
    found: dict[str, int] = {}
    for siblings in order.siblings:
        asks = Counter(ask.cell for video in siblings.videos for ask in video.asks)
        found |= {cell.id: asks[place] for place, cell in enumerate(siblings.cells)}
    return found


def scene_of(snapshot: Snapshot, order: Order, asks: Mapping[str, int]) -> LiveScene:
    """What a snapshot of an order's workers shows; `asks` as `asks_of` counts them."""
    cells = []
    for name, asked in asks.items():
        answered, failed = snapshot.cells.get(name, [0, 0])
        cells.append(Share(name, answered + failed, asked, failed))
    current = {worker.siblings for worker in snapshot.workers if worker.state == "running"}
    at_work = [cell.id for siblings in order.siblings if siblings.name in current for cell in siblings.cells]
    workers = [
        {
            "worker": worker.worker,
            "state": worker.state,
            "video": (worker.video or "").rpartition("/")[2],
            "memory": f"{worker.memory[0] / 2**30:.1f} of {worker.memory[1] / 2**30:.0f} GiB" if worker.memory else "-",
            "cells": worker.siblings or "-",
        }
        for worker in snapshot.workers
    ]
    groups = [
        Share(siblings.name, snapshot.done[siblings.name], sum(asks[cell.id] for cell in siblings.cells))
        for siblings in order.siblings
    ]
    whole = Share("all", sum(g.done for g in groups), sum(g.asks for g in groups), snapshot.counters.failed)
    return LiveScene(
        whole, snapshot.seconds, groups, cells, frozenset(at_work), workers, snapshot.answers, snapshot.failures
    )


def view(scene: LiveScene, height: int = 50) -> RenderableType:
    """The scene for a terminal of so many lines: what does not fit is left out from below."""
    parts: list[RenderableType] = [Text(scene.headline, style="bold")]
    bars = Table.grid(padding=(0, 1))
    for share in scene.groups:
        bars.add_row(
            Text(share.name), ProgressBar(max(share.asks, 1), share.done, width=30), f"{share.done}/{share.asks}"
        )
    parts.append(bars)
    parts.append(_table(WORKER, [[worker[name] for name in WORKER] for worker in scene.workers]))
    shown = [share for share in scene.cells if share.name in scene.at_work]
    room = max(0, min(FEW, height - len(scene.groups) - len(scene.workers) - 18))
    rows = [[s.name, f"{s.done}/{s.asks}", str(s.failed)] for s in shown[:room]]
    more = [[f"and {len(shown) - room} more", "", ""]] if len(shown) > room else []
    parts.append(_table(["cells in work", "done", "failed"], rows + more))
    for title, entries in (("last answers", scene.answers), ("last failures", scene.failures)):
        if entries:
            parts.append(
                _table([title, "question", "text"], [[e["cell"], e["question"], _one_line(e)] for e in entries])
            )
    return Group(*parts)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(printable(text)) for text in row))
    return table


def _one_line(entry: dict[str, Any]) -> str:
    return " ".join(str(entry["text"]).split())


class LivePage:
    """The scene as a page that loads itself again; it is replaced whole, and trouble with it is said once.

    Args:
        path: of the page.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._written, self._warned = path, 0.0, False

    @property
    def due(self) -> bool:
        """Whether it is old enough to be written anew."""
        return time.monotonic() - self._written >= PAGE_EVERY_S

    def write(self, scene: LiveScene, running: bool) -> None:
        """Write it; a page of a run that is over does not load itself again."""
        self._written = time.monotonic()
        draft = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(page(scene, running), encoding="utf-8")
            os.replace(draft, self._path)
        except OSError as error:
            if not self._warned:
                log.warning("%s cannot be written (%s); the run goes on without it", self._path, error)
            self._warned = True


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 24px auto; max-width: 1100px; padding: 0 16px; color: #1f2733; }
h1 { font-size: 20px; } h2 { font-size: 15px; margin: 28px 0 6px; color: #5d6b7a; }
table { border-collapse: collapse; width: 100%; } th { font-weight: 600; color: #5d6b7a; } progress { width: 160px; }
td, th { text-align: left; padding: 3px 12px 3px 0; overflow-wrap: anywhere; border-bottom: 1px solid #e8ebef; }
"""


def page(scene: LiveScene, running: bool) -> str:
    """The scene as HTML without script; nothing is loaded from anywhere."""
    refresh = f'<meta http-equiv="refresh" content="{PAGE_EVERY_S:.0f}">' if running else ""
    state = "running" if running else "ended"
    shares = [
        [s.name, _Raw(f'<progress max="{max(s.asks, 1)}" value="{s.done}"></progress>'), f"{s.done}/{s.asks}", s.failed]
        for s in sorted(scene.cells, key=lambda share: (share.name not in scene.at_work, share.done >= share.asks))
    ]
    blocks: list[tuple[str, Sequence[str], Sequence[Sequence[Any]]]] = [
        ("Workers", WORKER, [[worker[name] for name in WORKER] for worker in scene.workers]),
        ("Cells", ["cell", "", "done", "failed"], shares),
        ("Last answers", ["cell", "question", "answer", "seconds"], [_told(e) for e in scene.answers]),
        ("Last failures", ["cell", "question", "reason", "seconds"], [_told(e) for e in scene.failures]),
    ]
    body = "".join(_block(*block) for block in blocks if block[2])
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{refresh}'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{scene.whole.done} of '
        f"{scene.whole.asks}: {state}</title><style>{STYLE}</style></head><body><h1>{state}: "
        f"{html.escape(scene.headline)}</h1><p>written {moment}</p>{body}</body></html>\n"
    )


class _Raw(str):
    """Text that is HTML already."""


def _told(entry: dict[str, Any]) -> list[str]:
    return [entry["cell"], entry["question"], _one_line(entry), f"{entry['seconds']:.2f}"]


def _block(title: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    lines = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<h2>{title}</h2><table><tr>{head}</tr>{lines}</table>"


def _cell(value: Any) -> str:
    return value if isinstance(value, _Raw) else html.escape(printable(str(value)))


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
