"""The `run` verb: answer every question of a matrix, or what is missing of it."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from harness.fetch.prepare import prepare_embedded
from harness.plan import plan as planning
from harness.run.engines import build_engine
from harness.run.opening import Recorded, open_folder, record
from harness.run.progress import Display, summary
from harness.run.status import StatusFile, status_path, take_snapshot
from harness.run.supervise import Supervisor
from harness.run.work import OpenCell, Order, Siblings, check_present, find_work
from harness.run.worker import INTERRUPTED, answer_share, interrupt_on_term, log_to
from harness.settings.groups import Config, EngineConfig, RunConfig
from harness.settings.matrix import build_cells
from harness.store import read_outcomes, set_status

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
