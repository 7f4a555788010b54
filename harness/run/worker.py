"""One worker: a process with one model, its own share of the videos and its own answers files.

Started by an engine as `python -m harness.run.worker <order> <index> <attempt>`, or called in place with `work`.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.plan.cell import Cell
from harness.run.answer import Loop, Streak, release_memory
from harness.run.environment import device_name, git_state, versions
from harness.run.frames import Frames
from harness.run.status import Board, GroupStatus
from harness.run.work import GroupWork, WorkOrder, for_worker, load_order, still_needed
from harness.store import AnswerLog, note_start

log = logging.getLogger(__name__)

STOPPED = 3  # exit status: the run as a whole must stop; the reason is in the status file
INTERRUPTED = 130
LOCK_WAIT_S = 10.0  # for the last worker of a killed run to be gone
PARENT = "ADARETAKE_PARENT"
"""Environment variable: process id that a local worker must not outlive."""


def status_path(logs: Path, index: int, attempt: int) -> Path:
    """Where a worker's status lies."""
    return logs / f"status-{index}.{attempt}.json"


def worker_log(logs: Path, index: int) -> Path:
    """Where a worker's log lies; its restarts append to it."""
    return logs / f"worker-{index}.log"


def log_to(path: Path) -> logging.Handler:
    """Send the harness's log to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("harness")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.propagate = False
    return handler


def resolve(dotted: str) -> Callable[..., Any]:
    """`package.module:name` -> the object."""
    module, _, name = dotted.partition(":")
    return getattr(importlib.import_module(module), name)


def work(order_path: Path | str, index: int = 0, attempt: int = 0) -> int:
    """Answer one worker's share of an order.

    Returns:
        0 when all of it was asked (failures are in the store), STOPPED when the run cannot go on (see the status
        file), INTERRUPTED after Ctrl-C or SIGTERM.
    """
    order = load_order(Path(order_path))
    board = Board(str(index), status_path(order.logs, index, attempt))
    handler = log_to(worker_log(order.logs, index))
    try:
        _answer_all(order, index, board)
    except UserError as error:
        log.error("stopped: %s", error, exc_info=error.__cause__)
        board.state("stopped", str(error))
        return STOPPED
    except KeyboardInterrupt:
        log.info("interrupted")
        board.state("interrupted")
        return INTERRUPTED
    except BaseException:
        log.exception("worker failed")
        raise
    finally:
        log.info("counters %s", dataclasses.asdict(board.counters))
        logging.getLogger("harness").removeHandler(handler)
        handler.close()
    board.state("done")
    return 0


def _answer_all(order: WorkOrder, index: int, board: Board) -> None:
    groups = [still_needed(group, order.run.retry, order.start) for group in for_worker(order, index)]
    groups = [group for group in groups if group.videos]
    board.plan([GroupStatus(group.name, len(group.videos), answers=group.asks) for group in groups])
    if not groups:
        return
    if order.threads:
        import torch

        torch.set_num_threads(order.threads)
    streak = Streak(order.run.max_consecutive_failures)
    name = None if order.workers == 1 else str(index)
    models = _Models(resolve(order.responder))
    for group in groups:
        cell = group.cells[0].cell
        board.state("loading")
        responder = models.of(cell)
        answer_group(group, responder, resolve(order.frames)(cell, order.run), board, streak, order.start, name)


def answer_group(
    group: GroupWork,
    responder: Any,
    frames: Frames,
    board: Board,
    streak: Streak,
    start: str,
    name: str | None = None,
) -> None:
    """Answer what a group still needs, into the answers files of the worker `name`.

    Raises:
        UserError: as `Loop.run`.
    """
    from harness.benchmarks.parse import parse_letter

    board.status.runs_on = note_environment(group, responder)
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(AnswerLog(each.folder, name, wait_s=LOCK_WAIT_S)) for each in group.cells]
        Loop(group, responder, logs, frames, board, parse_letter, streak, start).run()


class _Models:
    """The model in use; the next one is loaded after the last one has left the device."""

    def __init__(self, load: Callable[[Cell], Any]) -> None:
        self._load, self._key, self._held = load, None, None

    def of(self, cell: Cell) -> Any:
        key = (cell.weights, repr(cell.model))
        if key != self._key:
            self._held = None
            release_memory()
            self._held, self._key = self._load(cell), key
        return self._held


def note_environment(group: GroupWork, responder: Any) -> str:
    """Record in each cell's manifest what it is about to be answered with; returns it in words."""
    adapter = getattr(responder, "adapter", None)
    attention = getattr(adapter, "attention_backend", None)
    device = device_name(adapter.device) if adapter else "unknown"
    for each in group.cells:
        note_start(each.folder, versions=versions(), git=git_state(), attention_backend=attention, device=device)
    model = group.cells[0].cell.model
    words = f"{model.name} on {device}, {model.dtype}, attention {attention or 'unknown'}"
    log.info(words)
    return words


def interrupt_on_term() -> None:
    """Make SIGTERM (a scheduler's stop) end a run like Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def die_with_parent() -> None:
    """Let the kernel end this process with the one that started it, even when that one is killed with -9."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != int(parent):  # it was gone before the line above
        raise SystemExit(INTERRUPTED)


if __name__ == "__main__":
    die_with_parent()
    interrupt_on_term()
    sys.exit(work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
