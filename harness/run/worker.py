"""One worker: one model, its own share of the videos and its own answers files.

An engine starts it in a process of its own (`work`), or the command answers in place (`answer_share`).
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import logging
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.run.answer import load_model
from harness.run.environment import device_name, git_state, instruction_set, versions
from harness.run.failures import Streak, release_memory
from harness.run.frames import Frames
from harness.run.loop import Loop
from harness.run.status import StatusFile, status_path
from harness.run.work import Order, Siblings, share_of, still_needed
from harness.settings.cell import Cell
from harness.store import AnswerLog, note_start

log = logging.getLogger(__name__)

STOPPED = 3  # exit status: the run as a whole must stop; the reason is in the status file
INTERRUPTED = 130
LOCK_WAIT_S = 10.0  # for the last worker of a killed run to be gone


def worker_log(logs: Path, index: int) -> Path:
    """Where a worker's log lies; its restarts append to it."""
    return logs / f"worker-{index}.log"


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """While inside, the harness's log goes to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("harness")
    before = root.level, root.propagate
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.propagate = False
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.level, root.propagate = before
        handler.close()


def work(order: Order, index: int = 0, attempt: int = 0) -> int:
    """Answer one worker's share of an order.

    Returns:
        0 when all of it was asked (failures are in the store), STOPPED when the run cannot go on (see the status
        file), INTERRUPTED after Ctrl-C or SIGTERM.
    """
    with log_to(worker_log(order.logs, index)):
        status = StatusFile(status_path(order.logs, index, attempt), str(index))
        try:
            answer_share(order, index, status)
        except UserError as error:
            log.error("stopped: %s", error, exc_info=error.__cause__)
            status.enter("stopped", error=str(error))
            return STOPPED
        except KeyboardInterrupt:
            log.info("interrupted")
            status.enter("interrupted")
            return INTERRUPTED
        except BaseException:
            log.exception("worker failed")
            raise
        finally:
            log.info("counters %s", dataclasses.asdict(status.counters))
        return 0


def answer_share(order: Order, index: int, status: StatusFile) -> None:
    """Answer one worker's share of an order, in this process.

    Raises:
        UserError: as `Loop.run`.
        KeyboardInterrupt: passed on.
    """
    if order.threads:
        import torch

        torch.set_num_threads(order.threads)
    streak = Streak(order.run.max_consecutive_failures)
    name = None if order.workers == 1 else str(index)
    held: tuple[Any, Any] = (None, None)  # the model in use, and which it is
    for siblings in share_of(order, index):
        siblings = still_needed(siblings, order)
        if not siblings.videos:
            continue
        cell = siblings.cells[0]
        status.enter("loading")
        if held[0] != (cell.weights, cell.model):
            held = None, None  # the last model leaves the device before the next one comes
            release_memory()
            held = (cell.weights, cell.model), load_model(cell)
        status.enter("loading", runs_on=note_environment(siblings, held[1]))
        with contextlib.ExitStack() as stack:
            logs = [stack.enter_context(AnswerLog(folder, name, wait_s=LOCK_WAIT_S)) for folder in siblings.folders]
            Loop(
                siblings,
                held[1],
                logs,
                Frames(siblings.cells, order.run),
                status,
                streak,
                order.start,
            ).run()
    status.enter("done")


def note_environment(siblings: Siblings, adapter: Any) -> str:
    """Record in each cell's manifest what it is about to be answered with; returns it in words."""
    device, attention = device_name(adapter.device), adapter.attention_backend
    for folder in siblings.folders:
        note_start(
            folder,
            versions=versions(),
            git=git_state(),
            attention_backend=attention,
            device=device,
            instruction_set=instruction_set(),
        )
    model: Cell = siblings.cells[0]
    words = f"{model.model.name} on {device}, {model.model.dtype}, attention {attention}"
    log.info(words)
    return words


def interrupt_on_term() -> None:
    """Make SIGTERM (a scheduler's stop) end a run like Ctrl-C does. Only the first: `timeout` and others send two, and
    the second would break off what the first one puts in order."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def die_with_parent() -> None:
    """Let the kernel end this process with the one that started it, even when that one is killed with -9."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal; whoever started this one says stop
    interrupt_on_term()
    parent, *share = pickle.load(sys.stdin.buffer)  # written by the engine `local`
    if os.getppid() != parent:  # it was gone before its death could end this process
        sys.exit(INTERRUPTED)
    ended = work(*share)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left that could be broken off
    sys.exit(ended)
