"""What is left to do, as plain picklable data: which questions of which video in which cell, and who takes which video.

Nothing here loads a model or opens a video.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.store import (
    Answer,
    QuestionRecord,
    is_needed,
    read_answers,
    read_questions,
    write_atomic,
    write_questions,
)

if TYPE_CHECKING:
    from harness.benchmarks.questions import Question
    from harness.config import RunConfig
    from harness.plan.cell import Cell


@dataclass(frozen=True)
class Ask:
    """One question for one cell of the group (`cell` is its place among the group's cells)."""

    cell: int
    question: Question


@dataclass(frozen=True)
class VideoWork:
    """One video and all that is to be asked about it while its features are in memory."""

    video_id: str
    path: Path
    asks: tuple[Ask, ...]
    size: float  # for ordering and sharding: frames, or bytes of the file where its length is not known


@dataclass(frozen=True)
class CellWork:
    """A cell and the folder of its records."""

    cell: Cell
    folder: Path


@dataclass(frozen=True)
class GroupWork:
    """Sibling cells and what is left of their videos, longest first."""

    name: str
    cells: tuple[CellWork, ...]
    videos: tuple[VideoWork, ...]
    answered: int = 0  # questions x cells that need nothing

    @property
    def asks(self) -> int:
        """Answers to give."""
        return sum(len(video.asks) for video in self.videos)


@dataclass(frozen=True)
class WorkOrder:
    """Everything a worker needs; it is pickled, and read by each worker."""

    groups: tuple[GroupWork, ...]
    run: RunConfig
    start: str  # names this start: failures of it are not tried again by a restarted worker
    logs: Path  # folder of this start's log and status files
    workers: int = 1
    threads: int | None = None  # of the CPU, per worker
    responder: str = "harness.run.respond:load_responder"  # cell -> Responder
    frames: str = "harness.run.frames:VideoFrames"  # (cell, run settings) -> Frames


def prompt_digest(question: Question) -> str:
    """Digest of what is asked: prompt and options. A changed annotation file shows here."""
    text = repr((question.prompt, sorted(question.options.items())))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def record_questions(
    cell: CellWork, questions: Sequence[Question], others: Sequence[QuestionRecord] = ()
) -> dict[str, Answer]:
    """Write the cell's questions; return its stored answers.

    Args:
        cell: which cell.
        questions: what is asked.
        others: questions of the same cell that are not asked this time, but stay recorded.

    Raises:
        UserError: an answered question now reads differently: its old answer would be scored against a new question.
    """
    answers = read_answers(cell.folder)
    records = [
        QuestionRecord(q.question_id, q.video_id, dict(q.options), q.answer, dict(q.tags), prompt_digest(q))
        for q in questions
    ]
    if answers:
        held = {r.question_id: r.prompt_digest for r in read_questions(cell.folder)}
        for record in records:
            name, new = record.question_id, record.prompt_digest
            if name in answers and held.get(name, new) != new:
                raise UserError(
                    f"question {name} of {cell.folder.name} reads differently from when it was answered: "
                    f"its annotations or prompt have changed. Put the data back, or move the old answers away "
                    f"(mv {cell.folder} {cell.folder}.old) and answer anew."
                )
    asked = {record.question_id for record in records}
    write_questions(cell.folder, [*(r for r in others if r.question_id not in asked), *records])
    return answers


def build_group(
    name: str,
    cells: Sequence[CellWork],
    questions: Sequence[Sequence[Question]],
    answers: Sequence[Mapping[str, Answer]],
    *,
    retry: str = "none",
    sharing: bool = True,
    length: Mapping[Path, float] | None = None,
) -> GroupWork:
    """Collect what is missing, by video.

    Args:
        name: for the log and the progress display.
        cells: the siblings.
        questions: each cell's questions, in order.
        answers: each cell's stored answers.
        retry: see `is_needed`.
        sharing: False makes every question of every cell its own video to decode and encode, as a harness without
            sharing does; for measurements.
        length: of each video, in frames; where one is not known, the bytes of the files stand for all.

    Returns:
        The group with its videos longest first; within a video question by question, each in all cells that need it.
    """
    asks: dict[Path, list[Ask]] = {}
    answered = 0
    order: dict[tuple[Path, str], int] = {}
    for place, (of_cell, held) in enumerate(zip(questions, answers, strict=True)):
        for question in of_cell:
            if is_needed(held.get(question.question_id), retry):
                order.setdefault((question.video, question.question_id), len(order))
                asks.setdefault(question.video, []).append(Ask(place, question))
            else:
                answered += 1
    size = length if length and all(path in length for path in asks) else {path: file_size(path) for path in asks}
    videos = []
    for path, of_video in asks.items():
        of_video.sort(key=lambda ask: (order[ask.question.video, ask.question.question_id], ask.cell))
        batches = [tuple(of_video)] if sharing else [(ask,) for ask in of_video]
        videos += [VideoWork(batch[0].question.video_id, path, batch, float(size[path])) for batch in batches]
    videos.sort(key=lambda video: -video.size)
    return GroupWork(name, tuple(cells), tuple(videos), answered)


def file_size(path: Path) -> float:
    """Bytes of a video file, as a measure of its length; 1 when it is absent (opening it says so later)."""
    try:
        return max(1.0, float(path.stat().st_size))
    except OSError:
        return 1.0


def check_files(groups: Iterable[GroupWork]) -> None:
    """Before any model is loaded: are the videos there?

    Raises:
        UserError: more than a tenth of the videos are absent, so the folder is wrong or incomplete. Fewer are
            stored as failed answers, each with its reason.
    """
    paths = {video.path for group in groups for video in group.videos}
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


def for_worker(order: WorkOrder, worker: int) -> list[GroupWork]:
    """One worker's videos of each group; groups without any are left out."""
    if order.workers == 1:
        return list(order.groups)
    own = [dataclasses.replace(g, videos=shard(g.videos, order.workers)[worker]) for g in order.groups]
    return [group for group in own if group.videos]


def save_order(order: WorkOrder) -> Path:
    """Write the order where its workers read it."""
    path = order.logs / "order.pickle"
    write_atomic(path, pickle.dumps(order))
    return path


def load_order(path: Path) -> WorkOrder:
    """Read an order that `save_order` wrote on this results folder."""
    return pickle.loads(path.read_bytes())


def still_needed(group: GroupWork, retry: str, start: str) -> GroupWork:
    """The group without what has been answered, or tried, since the order was written (a worker starting again)."""
    answers = [read_answers(cell.folder) for cell in group.cells]
    videos = []
    for video in group.videos:
        asks = tuple(
            ask for ask in video.asks if is_needed(answers[ask.cell].get(ask.question.question_id), retry, start)
        )
        if asks:
            videos.append(dataclasses.replace(video, asks=asks))
    return dataclasses.replace(group, videos=tuple(videos))
