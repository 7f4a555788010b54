"""What is left to do, as plain data: which questions of which video in which cell, and who takes which video.

Nothing here loads a model or opens a video.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.benchmarks.questions import check_prompts
from harness.errors import UserError
from harness.run.environment import git_state, versions
from harness.store import (
    Manifest,
    Outcomes,
    QuestionRecord,
    hold,
    is_needed,
    open_cell,
    read_outcomes,
    read_questions,
    write_questions,
)
from harness.store.manifest import QUESTIONS_FILE as QUESTIONS
from harness.store.manifest import as_file

if TYPE_CHECKING:
    from harness.benchmarks.questions import Question
    from harness.settings.cell import Cell
    from harness.settings.groups import RunConfig


@dataclass(frozen=True)
class OpenCell:
    """A cell whose folder belongs to this process: what is asked, and what the folder held when it was opened."""

    cell: Cell
    folder: Path
    questions: Sequence[Question]
    outcomes: Outcomes


@dataclass(frozen=True)
class WorkItem:
    """One question for one of the siblings (`cell` is its place among them)."""

    cell: int
    question: Question


@dataclass(frozen=True)
class VideoWork:
    """One video and all that is to be asked about it while its features are in memory."""

    path: Path
    asks: tuple[WorkItem, ...]
    size: float  # for ordering and sharding: frames, or bytes of the file where its length is not known


@dataclass(frozen=True)
class Siblings:
    """Cells that see the same features, each with the folder of its records, and what is left of their videos."""

    name: str
    cells: tuple[Cell, ...]
    folders: tuple[Path, ...]
    videos: tuple[VideoWork, ...]

    @property
    def asks(self) -> int:
        """Answers to give."""
        return sum(len(video.asks) for video in self.videos)


@dataclass(frozen=True)
class Order:
    """Everything that the workers of one start need."""

    siblings: tuple[Siblings, ...]
    run: RunConfig
    logs: Path  # folder of this start's log and status files
    workers: int = 1
    threads: int | None = None  # of the CPU, per worker

    @property
    def start(self) -> str:
        """Names this start of the run: failures of it are not tried again by a restarted worker."""
        return self.logs.name


def find_work(
    name: str, cells: Sequence[OpenCell], run: RunConfig, length: Mapping[Path, float] | None = None
) -> Siblings:
    """Collect what is missing of sibling cells, by video.

    Args:
        name: for the log and the progress display.
        cells: the siblings.
        run: `retry`, see `is_needed`; without `sharing` every question of every cell is its own video to decode and
            encode, as in a harness without sharing, for measurements.
        length: of each video, in frames; where one is not known, the bytes of the files stand for all.

    Returns:
        The siblings with their videos longest first; within a video question by question, each in all cells that
        need it.
    """
    asks: dict[Path, list[WorkItem]] = {}
    order: dict[tuple[Path, str], int] = {}
    for place, cell in enumerate(cells):
        for question in cell.questions:
            if is_needed(cell.outcomes.of.get(question.question_id), run.retry):
                order.setdefault((question.video, question.question_id), len(order))
                asks.setdefault(question.video, []).append(WorkItem(place, question))
    size = length if length and all(path in length for path in asks) else {path: file_size(path) for path in asks}
    videos = []
    for path, of_video in asks.items():
        of_video.sort(key=lambda ask: (order[ask.question.video, ask.question.question_id], ask.cell))
        batches = [tuple(of_video)] if run.sharing else [(ask,) for ask in of_video]
        videos += [VideoWork(path, batch, float(size[path])) for batch in batches]
    videos.sort(key=lambda video: -video.size)
    return Siblings(name, tuple(c.cell for c in cells), tuple(c.folder for c in cells), tuple(videos))


def file_size(path: Path) -> float:
    """Bytes of a video file, as a measure of its length; 1 when it is absent (opening it says so later)."""
    try:
        return max(1.0, float(path.stat().st_size))
    except OSError:
        return 1.0


def check_present(siblings: Iterable[Siblings]) -> None:
    """Before any model is loaded: are the videos there?

    Raises:
        UserError: more than a tenth of the videos are absent, so the folder is wrong or incomplete. Fewer are
            stored as failed answers, each with its reason.
    """
    paths = {video.path for group in siblings for video in group.videos}
    absent = sorted(path for path in paths if not path.exists())
    if len(absent) * 10 > len(paths):
        raise UserError(
            f"{len(absent)} of {len(paths)} videos are absent, the first is {absent[0]}. Check data.root, or get them "
            "with the same settings: python -m harness prepare"
        )


def shard(videos: Sequence[VideoWork], workers: int) -> list[tuple[VideoWork, ...]]:
    """Split videos among workers: longest first, each to the worker with the least so far.

    The work in a video counts once for its frames and once more per answer, scaled by its size.

    Returns:
        One tuple per worker, disjoint and complete, each longest first; empty where there are fewer videos.
    """
    shards: list[list[VideoWork]] = [[] for _ in range(workers)]
    loads = [0.0] * workers
    for video in sorted(videos, key=_load, reverse=True):
        least = loads.index(min(loads))
        shards[least].append(video)
        loads[least] += _load(video)
    return [tuple(sorted(own, key=lambda video: -video.size)) for own in shards]


def _load(video: VideoWork) -> float:
    return video.size * (1 + len(video.asks))


def share_of(order: Order, worker: int) -> list[Siblings]:
    """One worker's videos; siblings without any are left out."""
    own = [dataclasses.replace(s, videos=shard(s.videos, order.workers)[worker]) for s in order.siblings]
    return [siblings for siblings in own if siblings.videos]


def still_needed(siblings: Siblings, order: Order) -> Siblings:
    """The siblings without what has been answered, or tried, since the order was made."""
    outcomes = [read_outcomes(folder).of for folder in siblings.folders]
    videos = []
    for video in siblings.videos:
        asks = tuple(
            ask
            for ask in video.asks
            if is_needed(outcomes[ask.cell].get(ask.question.question_id), order.run.retry, order.start)
        )
        if asks:
            videos.append(dataclasses.replace(video, asks=asks))
    return dataclasses.replace(siblings, videos=tuple(videos))


def open_folder(
    cell: Cell,
    folder: Path,
    questions: Sequence[Question],
    runtime: Mapping[str, Any],
    locks: contextlib.ExitStack,
    *,
    recorded: Recorded | None = None,
    known: Outcomes | None = None,
    keep_others: bool = False,
) -> OpenCell:
    """Take a cell's folder for this process, write its manifest and questions.

    Args:
        cell: what is answered in it.
        folder: of its records; made where it is absent.
        questions: what is asked.
        runtime: how it is run, for the manifest.
        locks: holds the folder until it is closed.
        recorded: the questions as they are recorded; siblings share them.
        known: the cell's outcomes, which count where nothing has been written since.
        keep_others: recorded questions that are not asked this time stay recorded.

    Raises:
        UserError: the folder is in use, holds something foreign, or a question has changed since it was answered.
    """
    locks.enter_context(hold(folder / ".lock"))
    open_cell(folder, make_manifest(cell, runtime))
    outcomes, recorded = read_outcomes(folder, known), recorded or record(questions)
    path = folder / QUESTIONS
    check_prompts(folder, questions, {name: outcome.prompt_digest for name, outcome in outcomes.of.items()})
    if path.is_file() and path.read_bytes() != recorded.content:
        held = read_questions(folder) if keep_others else []
        others = [asked for asked in held if asked.question_id not in recorded.records]
        write_questions(folder, [*others, *recorded.records.values()])
    elif not path.is_file():
        write_questions(folder, recorded.records.values())
    return OpenCell(cell, folder, questions, outcomes)


@dataclass(frozen=True)
class Recorded:
    """Questions as a cell records them: by id, and as the content of the file."""

    records: dict[str, QuestionRecord]
    content: bytes


def record(questions: Sequence[Question]) -> Recorded:
    """Questions as a cell records them."""
    records = {
        q.question_id: QuestionRecord(q.question_id, q.video_id, dict(q.options), q.answer, dict(q.tags), q.digest)
        for q in questions
    }
    return Recorded(records, as_file(records.values()))


def make_manifest(cell: Cell, runtime: Mapping[str, Any]) -> Manifest:
    """The manifest of a cell that starts now."""
    return Manifest(
        cell_id=cell.id,
        digest=cell.digest,
        cell=cell.record(),
        versions=versions(),
        git=git_state(),
        runtime=dict(runtime),
    )
