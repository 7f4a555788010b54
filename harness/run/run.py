"""The `run` verb: answer every question of a matrix, or what is missing of it."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from harness.benchmarks.questions import Question
from harness.config import Config
from harness.errors import UserError
from harness.plan import plan as planning
from harness.plan.cell import Cell
from harness.run.engines import build_engine
from harness.run.environment import git_state, versions
from harness.run.progress import Progress, summary, take_snapshot
from harness.run.supervise import Supervisor
from harness.run.work import CellWork, GroupWork, WorkOrder, build_group, check_files, record_questions, save_order
from harness.run.worker import INTERRUPTED, STOPPED, interrupt_on_term, log_to, status_path, work
from harness.store import Manifest, hold, open_cell, read_answers, set_status

log = logging.getLogger(__name__)

SOME_FAILED = 1


@dataclass(frozen=True)
class Outcome:
    """What a start left in the store."""

    questions: int
    answered: int
    failed: int
    reasons: Counter[str]

    @property
    def missing(self) -> int:
        """Neither answered nor failed."""
        return self.questions - self.answered - self.failed


def main(config: Config) -> int:
    """Print the plan, then carry it out.

    Returns:
        0 when every question is answered, 1 when some are stored as failed, 130 after Ctrl-C or SIGTERM.

    Raises:
        UserError: something keeps the matrix from running, or had to stop it; what is answered stays answered.
    """
    console = Console(soft_wrap=True)
    prepare_toy(config)
    plan = planning.make_plan(config)
    planning.show(plan, console)
    planning.report_problems(plan)
    with handle_term(), contextlib.ExitStack() as locks:
        groups, questions = open_groups(config, plan.groups, locks)
        try:
            interrupted = carry_out(config, groups) if any(group.videos for group in groups) else False
        finally:
            outcome = conclude(groups, questions)
    tell(outcome, console)
    if interrupted:
        console.print("interrupted: the same command goes on where this one stopped")
        return INTERRUPTED
    return SOME_FAILED if outcome.failed or outcome.missing else 0


def prepare_toy(config: Config) -> None:
    """Make the embedded toy's videos and annotations when they are not there; other data is never fetched here.

    A toy that someone built with another seed or size is used as it is.
    """
    if config.profile != "toy" or config.data.source is not None:
        return
    manifest = Path(config.data.root) / "manifest.json"
    build = json.loads(manifest.read_text()) if manifest.exists() else {}
    if build.get("complete") and (build["build"]["seed"], build["build"]["scale"]) != (0, 1.0):
        return
    from harness.fetch import prepare

    prepare.main(config)


def open_groups(
    config: Config, groups: Sequence[planning.GroupPlan], locks: contextlib.ExitStack
) -> tuple[list[GroupWork], dict[Path, list[Question]]]:
    """Take the cells' folders for this process, write manifests and questions, and collect what is missing.

    Returns:
        The groups with their missing questions, and each cell folder's questions.

    Raises:
        UserError: a folder is in use, holds something foreign, or its questions have changed since.
    """
    opened, questions = [], {}
    for planned in groups:
        group = planned.group
        cells = [CellWork(cell, planning.cell_folder(config, cell).absolute()) for cell in group.cells]
        answers = []
        for each in cells:
            locks.enter_context(hold(each.folder / ".lock"))
            open_cell(each.folder, make_manifest(each.cell, config))
            questions[each.folder] = planned.questions[each.cell.id]
            answers.append(record_questions(each, questions[each.folder]))
        opened.append(
            build_group(
                group.name,
                cells,
                [questions[each.folder] for each in cells],
                answers,
                retry=config.run.retry,
                sharing=config.run.sharing,
                length=lengths(planned),
            )
        )
    check_files(opened)
    return opened, questions


def make_manifest(cell: Cell, config: Config) -> Manifest:
    """The manifest of a cell that starts now."""
    return Manifest(
        cell_id=cell.id,
        digest=cell.digest,
        cell=cell.record(),
        versions=versions(),
        git=git_state(),
        runtime={"overrides": list(config.overrides), "run": vars(config.run), "engine": vars(config.engine)},
    )


def lengths(planned: planning.GroupPlan) -> dict[Path, float]:
    """Frames that the model sees of each video whose length is known; a longer one counts a little more at the same
    number of frames.
    """
    video = planned.group.cells[0].video
    return {path: min(s * video.fps, video.max_frames) + s * 1e-3 for path, s in planned.seconds.items()}


def carry_out(config: Config, groups: Sequence[GroupWork]) -> bool:
    """Answer what is missing.

    Returns:
        Whether it was interrupted.
    """
    logs = new_logs(config)
    handler = log_to(logs / "run.log")
    engine = build_engine(config.engine, config.model.device)
    order = WorkOrder(
        groups=tuple(group for group in groups if group.videos),
        run=config.run,
        start=logs.name,
        logs=logs,
        workers=engine.workers,
        threads=config.engine.threads,
    )
    path = save_order(order)
    print(f"log: {os.path.relpath(logs)}", flush=True)
    try:
        with Progress(order):
            if engine.in_place:
                code = work(path)
                if code == STOPPED:
                    raise UserError(read_reason(order))
                return code == INTERRUPTED
            Supervisor(engine, order, path).run()
            return False
    except KeyboardInterrupt:
        return True
    finally:
        line = summary(take_snapshot(order))
        log.info(line)
        print(line, flush=True)
        engine.close()
        logging.getLogger("harness").removeHandler(handler)
        handler.close()


def new_logs(config: Config) -> Path:
    """The folder of a start's log, status and order files."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path(config.results).absolute() / "logs" / f"{stamp}-{os.getpid()}"


def read_reason(order: WorkOrder) -> str:
    """Why the worker in this process stopped the run."""
    from harness.run.status import read_status

    status = read_status(status_path(order.logs, 0, 0))
    return (status and status.error) or f"the run stopped; see {order.logs}"


def conclude(groups: Sequence[GroupWork], questions: dict[Path, list[Question]]) -> Outcome:
    """Count what the store holds now, and write each cell's status."""
    total, answered, failed, reasons = 0, 0, 0, Counter()
    for each in (cell for group in groups for cell in group.cells):
        answers = read_answers(each.folder)
        held = [answers[q.question_id] for q in questions[each.folder] if q.question_id in answers]
        bad = [answer for answer in held if not answer.ok]
        total += len(questions[each.folder])
        answered += len(held) - len(bad)
        failed += len(bad)
        reasons.update(f"{a.error['type']}: {a.error['message']}" for a in bad)
        missing = len(questions[each.folder]) - len(held)
        set_status(each.folder, "interrupted" if missing else "failed" if bad else "complete")
    return Outcome(total, answered, failed, reasons)


def tell(outcome: Outcome, console: Console) -> None:
    """Print how it ended, with the reasons of failures."""
    console.print(f"{outcome.answered:,} of {outcome.questions:,} questions answered, {outcome.failed:,} failed")
    for reason, count in outcome.reasons.most_common(5):
        console.print(f"  {count} x {reason}", markup=False, highlight=False)
    if outcome.failed:
        console.print("ask the failed ones again with the same command and run.retry=failed")


@contextlib.contextmanager
def handle_term() -> Iterator[None]:
    """While inside, SIGTERM ends the run as Ctrl-C does."""
    before = signal.getsignal(signal.SIGTERM)
    interrupt_on_term()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
