"""The `run` verb: answer every question of a matrix, or what is missing of it."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from harness.errors import UserError
from harness.fetch.prepare import prepare_embedded
from harness.plan import plan as planning
from harness.run.engines import Engine, Handle, build_engine
from harness.run.progress import Display, summary
from harness.run.status import Status, StatusFile, read_status, status_path, take_snapshot
from harness.run.work import (
    OpenCell,
    Order,
    Recorded,
    Siblings,
    check_present,
    find_work,
    open_folder,
    record,
    share_of,
)
from harness.run.worker import INTERRUPTED, STOPPED, answer_share, interrupt_on_term, log_to, worker_log
from harness.settings.groups import Config, EngineConfig, RunConfig
from harness.settings.matrix import build_cells
from harness.store import Answer, AnswerLog, is_needed, read_answers, read_outcomes, set_status

POLL_S = 0.2
PATIENCE_S = 20.0
"""How long an interrupted worker may take to end by itself."""
DEATHS_PER_VIDEO = 2
"""A video in whose work a worker died this often is stored as failed."""
DEATHS_AT_START = 2
"""A slot in which a share died this often before its first video is given up."""
RECORDER = "supervisor"
"""Name of the answers file that takes the failures of videos that killed their worker."""


@dataclass
class _Share:
    index: int
    attempt: int = -1
    deaths_at_start: int = 0


@dataclass
class Supervisor:
    """Carries out an order on an engine.

    Raises (from `run`):
        UserError: a worker had to stop the run (its message), or no worker can be kept alive.
        KeyboardInterrupt: passed on after the workers have ended.
    """

    engine: Engine
    order: Order
    deaths: Counter[str] = field(default_factory=Counter)  # video -> workers that died on it

    def run(self) -> None:
        """Start the workers and return when every share is done."""
        waiting = [_Share(i) for i in range(self.order.workers) if share_of(self.order, i)]
        free = list(range(min(self.engine.workers, len(waiting))))
        running: dict[int, tuple[_Share, Handle]] = {}  # slot -> what runs in it
        fruitless = 0  # deaths in a row without an answer between them
        try:
            while waiting or running:
                while waiting and free:
                    share, slot = waiting.pop(0), free.pop(0)
                    share.attempt += 1
                    running[slot] = share, self.engine.start(self.order, share.index, share.attempt, slot)
                time.sleep(POLL_S)
                for slot, (share, handle) in list(running.items()):
                    code = handle.poll()
                    if code is None:
                        continue
                    del running[slot]
                    status = read_status(status_path(self.order.logs, share.index, share.attempt))
                    if code == STOPPED:
                        raise UserError(status.error if status and status.error else self._see(share))
                    if code == 0:
                        free.append(slot)
                        continue
                    fruitless = 0 if status and status.counters.answers else fruitless + 1
                    if self._died(share, code, status):
                        free.append(slot)
                    waiting.append(share)
                    if fruitless >= max(self.order.run.max_consecutive_failures, 2 * self.engine.workers):
                        raise UserError(f"{fruitless} workers in a row died without an answer. {self._see(share)}")
                if waiting and not free and not running:
                    raise UserError(f"no worker could be started. {self._see(waiting[0])}")
        finally:
            self._end([handle for _, handle in running.values()])

    def _died(self, share: _Share, code: int, status: Status | None) -> bool:
        """Take note of a death; return whether the slot may be used again."""
        log.warning("worker %d ended with status %d at video %s", share.index, code, status and status.video)
        if code == INTERRUPTED:  # someone stopped this worker alone: nobody's fault
            return True
        if status is None or status.video is None:
            share.deaths_at_start += 1
            return share.deaths_at_start < DEATHS_AT_START
        self.deaths[status.video] += 1
        if self.deaths[status.video] >= DEATHS_PER_VIDEO:
            self._give_up(status.video, code)
        return True

    def _give_up(self, video: str, code: int) -> None:
        """Store what is still missing of a video as failed."""
        error = {
            "type": "WorkerDied",
            "message": f"{DEATHS_PER_VIDEO} workers died on this video, the last with status {code} (negative: a "
            "signal). Check the file (python -m harness verify) and host memory, then run again with run.retry=failed",
        }
        order = self.order
        for siblings in order.siblings:
            asks = [ask for work in siblings.videos if str(work.path) == video for ask in work.asks]
            for place, folder in enumerate(siblings.folders):
                answers = read_answers(folder)
                own = [ask.question for ask in asks if ask.cell == place]
                missing = [q for q in own if is_needed(answers.get(q.question_id), order.run.retry, order.start)]
                if missing:
                    with AnswerLog(folder, RECORDER) as record:
                        for q in missing:
                            asked: dict[str, Any] = {"prompt_digest": q.digest, "error": error, "start": order.start}
                            record.append(Answer(q.question_id, q.video_id, "failed", **asked))

    def _see(self, share: _Share) -> str:
        where = worker_log(self.order.logs, share.index)
        return f"The reason is at the end of {where}; see also: python -m harness doctor"

    def _end(self, handles: list[Handle]) -> None:
        for handle in handles:
            handle.stop()
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and any(handle.poll() is None for handle in handles):
            time.sleep(0.05)
        for handle in handles:
            if handle.poll() is None:
                handle.kill()


log = logging.getLogger(__name__)

SOME_FAILED = 1


def main(config: Config) -> int:
    """Print the plan, then carry it out.

    Returns:
        0 when every question is answered, 1 when some are stored as failed, 130 after Ctrl-C or SIGTERM.

    Raises:
        UserError: something keeps the matrix from running, or had to stop it; what is answered stays answered.
    """
    console = Console(soft_wrap=True)
    prepare_embedded(config.profile, config.data)
    problems: list[str] = []
    cells = build_cells(config, problems)
    plan = planning.make_plan(
        cells, config.results, config.data.root, config.run, words=config.words, problems=problems
    )
    planning.print_plan(plan, console)
    return answer(Execution.of(config), plan, console)


@dataclass(frozen=True)
class Execution:
    """How and where a run is carried out.

    Attributes:
        run: limits of memory, what is retried.
        engine: what starts the workers.
        device: `model.device`.
        results: the results folder.
        page: the live page of the run.
        words: settings of the command line.
    """

    run: RunConfig
    engine: EngineConfig
    device: str
    results: str
    page: Path
    words: tuple[str, ...]

    @classmethod
    def of(cls, config: Config) -> Execution:
        """The execution that a configuration asks for."""
        page = config.report.folder(config.results) / "live.html"
        return cls(config.run, config.engine, config.model.device, config.results, page, tuple(config.words))

    @property
    def runtime(self) -> dict[str, Any]:
        """For the manifests of cells."""
        return {"overrides": list(self.words), "run": vars(self.run), "engine": vars(self.engine)}


def answer(execution: Execution, plan: planning.Plan, console: Console) -> int:
    """Carry a plan out; returns and raises as `main`."""
    planning.report_problems(plan)
    with handle_term(), contextlib.ExitStack() as locks:
        siblings, cells = open_groups(execution, plan.groups, locks)
        try:
            interrupted = carry_out(execution, siblings)
        finally:
            left = conclude(cells)
    left.tell(console)
    if interrupted:
        console.print("interrupted: the same command goes on where this one stopped")
        return INTERRUPTED
    return SOME_FAILED if left.failed or left.missing else 0


def open_groups(
    execution: Execution, groups: Sequence[planning.GroupPlan], locks: contextlib.ExitStack
) -> tuple[list[Siblings], list[OpenCell]]:
    """Take the folders of all cells for this process, and collect what is missing.

    Returns:
        The siblings with their missing questions, and all cells.

    Raises:
        UserError: a folder is in use, holds something foreign, its questions have changed since, or videos are absent.
    """
    found, opened = [], []
    recorded: dict[int, Recorded] = {}  # the cells of a task share the list of their questions
    for planned in groups:
        own = []
        for cell in planned.group.cells:
            folder, asked = planning.cell_folder(execution.results, cell).absolute(), planned.questions[cell.id]
            if id(asked) not in recorded:
                recorded[id(asked)] = record(asked)
            as_recorded, known = recorded[id(asked)], planned.outcomes[cell.id]
            own.append(open_folder(cell, folder, asked, execution.runtime, locks, recorded=as_recorded, known=known))
        found.append(find_work(planned.group.name, own, execution.run, lengths(planned)))
        opened += own
    check_present(found)
    return found, opened


def lengths(planned: planning.GroupPlan) -> dict[Path, float]:
    """Frames that the model sees of each video whose length is known; a longer one counts a little more at the same
    number of frames.
    """
    video = planned.group.cells[0].video
    return {path: min(s * video.fps, video.max_frames) + s * 1e-3 for path, s in planned.seconds.items()}


def carry_out(execution: Execution, siblings: Sequence[Siblings], stream: TextIO | None = None) -> bool:
    """Answer what is missing, and say so on `stream` (standard output).

    Returns:
        Whether it was interrupted.

    Raises:
        UserError: what had to stop it.
    """
    siblings = [each for each in siblings if each.videos]
    if not siblings:
        return False
    stream = stream or sys.stdout
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    logs = Path(execution.results).absolute() / "logs" / f"{stamp}-{os.getpid()}"
    with log_to(logs / "run.log"):
        engine = build_engine(execution.engine, execution.device)
        order = Order(tuple(siblings), execution.run, logs, engine.workers, execution.engine.threads)
        print(f"log: {os.path.relpath(logs)}", file=stream, flush=True)
        try:
            with Display(order, stream, page=execution.page):
                if engine.in_place:
                    answer_share(order, 0, StatusFile(status_path(logs, 0, 0), "0"))
                else:
                    Supervisor(engine, order).run()
            return False
        except KeyboardInterrupt:
            return True
        finally:
            line = summary(take_snapshot(logs))
            log.info(line)
            print(line, file=stream, flush=True)
            engine.close()


@dataclass(frozen=True)
class Tally:
    """What a start left in the store."""

    questions: int
    answered: int
    failed: int
    reasons: Counter[str]

    @property
    def missing(self) -> int:
        """Neither answered nor failed."""
        return self.questions - self.answered - self.failed

    def tell(self, console: Console) -> None:
        """Print how it ended, with the reasons of failures."""
        console.print(f"{self.answered:,} of {self.questions:,} questions answered, {self.failed:,} failed")
        for reason, count in self.reasons.most_common(5):
            console.print(f"  {count} x {reason}", markup=False, highlight=False)
        if self.failed:
            console.print("ask the failed ones again with the same command and run.retry=failed")


def conclude(cells: Sequence[OpenCell]) -> Tally:
    """Count what the store holds now, and write each cell's status."""
    total, answered, reasons = 0, 0, Counter[str]()
    for cell in cells:
        of = read_outcomes(cell.folder, cell.outcomes).of
        held = [of[q.question_id] for q in cell.questions if q.question_id in of]
        bad = [outcome.reason for outcome in held if not outcome.ok]
        total += len(cell.questions)
        answered += len(held) - len(bad)
        reasons.update(bad)
        missing = len(held) < len(cell.questions)
        set_status(cell.folder, "interrupted" if missing else "failed" if bad else "complete")
    return Tally(total, answered, reasons.total(), reasons)


@contextlib.contextmanager
def handle_term() -> Iterator[None]:
    """While inside, SIGTERM ends the run as Ctrl-C does; behind that this process is ending, and deaf to more."""
    before = signal.getsignal(signal.SIGTERM)
    interrupt_on_term()
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, before)
