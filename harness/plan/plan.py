"""What a matrix is going to cost, from annotations and stored answers alone."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.benchmarks.config import TaskConfig
from harness.benchmarks.questions import Question, load_questions
from harness.config import Config
from harness.errors import UserError
from harness.models.families import find_adapter
from harness.plan.cell import Cell
from harness.plan.feature_size import bytes_per_token, check_feature_memory, read_header, video_tokens
from harness.plan.matrix import Group, build_groups
from harness.plan.weights import check_weights
from harness.store import is_needed, read_answers, read_manifest

BYTES_PER_ANSWER = 400
BYTES_PER_FRAME_RECORD = 14
"""An answer's line holds index and time of every frame it saw."""


@dataclass(frozen=True)
class CellPlan:
    """One cell's questions: how many there are, are answered, failed, and will be answered by the next run."""

    cell: Cell
    questions: int
    answered: int
    failed: int
    to_answer: int


@dataclass(frozen=True)
class GroupPlan:
    """Siblings, their questions (by cell id), and the videos that they still need with their seconds where known."""

    group: Group
    questions: dict[str, list[Question]]
    seconds: dict[Path, float]
    cells: tuple[CellPlan, ...]
    videos: int
    videos_to_decode: int
    hours_to_decode: float | None
    tokens: int
    feature_bytes: int
    largest_feature_bytes: int

    @property
    def to_answer(self) -> int:
        """Questions x cells without an answer."""
        return sum(cell.to_answer for cell in self.cells)


@dataclass(frozen=True)
class Plan:
    """All groups of a matrix, with the problems that keep it from running."""

    groups: tuple[GroupPlan, ...]
    problems: tuple[str, ...]
    seconds_per_answer: dict[str, float]

    @property
    def to_answer(self) -> int:
        """Questions x cells without an answer, over all groups."""
        return sum(group.to_answer for group in self.groups)


def cell_folder(config: Config, cell: Cell) -> Path:
    """Where a cell's records lie."""
    return Path(config.results) / "runs" / cell.id


def make_plan(config: Config) -> Plan:
    """Plan a matrix.

    Missing weights or data do not raise: they become problems of the plan, all of them at once.

    Raises:
        UserError: the matrix itself is wrong, or stored answers are damaged.
    """
    problems: list[str] = []
    groups = build_groups(config, problems)
    for model in {group.cells[0].model.path: group.cells[0].model for group in groups}.values():
        try:
            check_weights(model)
        except UserError as error:
            problems.append(str(error))
    plans = []
    for group in groups:
        try:
            plans.append(_plan_group(config, group))
        except UserError as error:
            problems.append(str(error))
    return Plan(tuple(plans), tuple(dict.fromkeys(problems)), _measured_rates(Path(config.results)))


def _plan_group(config: Config, group: Group) -> GroupPlan:
    first = group.cells[0]
    for cell in group.cells:  # raises here what would else stop the run at its first answer
        cell.method.for_family(find_adapter(cell.model.adapter).family)
    questions = _questions(group, Path(config.data.root).absolute())
    cells, needed = [], set()
    for cell in group.cells:
        answers = read_answers(cell_folder(config, cell))
        todo = [q for q in questions[cell.id] if is_needed(answers.get(q.question_id), config.run.retry)]
        known = [answers[q.question_id] for q in questions[cell.id] if q.question_id in answers]
        failed = sum(answer.status == "failed" for answer in known)
        cells.append(CellPlan(cell, len(questions[cell.id]), len(known) - failed, failed, len(todo)))
        needed |= {q.video for q in todo}
    annotated = {q.video: q.video_s for of_cell in questions.values() for q in of_cell}
    headers = {path: read_header(path, seconds) for path, seconds in annotated.items()}
    seconds = {path: header.seconds for path, header in headers.items() if header.seconds is not None}
    tokens_of = {path: video_tokens(first, headers[path]) for path in needed}
    check_feature_memory(first, tokens_of, config.run)
    hours = sum(seconds[path] for path in needed if path in seconds) / 3600 if seconds else None
    tokens, size = sum(tokens_of.values()), bytes_per_token(first)
    return GroupPlan(
        group, questions, seconds, tuple(cells), len(headers), len(needed), hours, tokens,
        feature_bytes=size * tokens, largest_feature_bytes=size * max(tokens_of.values(), default=0),
    )  # fmt: skip


def _questions(group: Group, root: Path) -> dict[str, list[Question]]:
    """Each cell's questions; siblings of the same task share one list, for a long annotation takes a while to read."""
    of_task: list[tuple[TaskConfig, list[Question]]] = []
    found = {}
    for cell in group.cells:
        known = next((questions for task, questions in of_task if task == cell.task), None)
        if known is None:
            known = load_questions(cell.task, root)
            of_task.append((cell.task, known))
        found[cell.id] = known
    return found


def _measured_rates(results: Path) -> dict[str, float]:
    """Median seconds per answer on each device that has answered in this results folder."""
    seconds: dict[str, list[float]] = {}
    for folder in sorted((results / "runs").glob("*/")):
        if not (folder / "manifest.json").exists():
            continue
        device = read_manifest(folder).device or "unknown device"
        answers = read_answers(folder).values()
        seconds.setdefault(device, []).extend(sum(a.seconds.values()) for a in answers if a.ok and a.seconds)
    return {device: statistics.median(values) for device, values in seconds.items() if values}


def show(plan: Plan, console: Console) -> None:
    """Print a plan: one row per cell, one line per total. Nothing where problems left no group to plan."""
    if not plan.groups:
        return
    table = Table(title=None, box=None, pad_edge=False)
    for name in ("cell", "questions", "answered", "failed", "to answer"):
        table.add_column(name, justify="left" if name == "cell" else "right", overflow="fold")
    for group in plan.groups:
        for cell in group.cells:
            table.add_row(cell.cell.id, *(str(n) for n in (cell.questions, cell.answered, cell.failed, cell.to_answer)))
    console.print(table)
    decode = sum(group.videos_to_decode for group in plan.groups)
    hours = sum(group.hours_to_decode or 0 for group in plan.groups)
    tokens = sum(group.tokens for group in plan.groups)
    n_cells = sum(len(group.cells) for group in plan.groups)
    console.print(
        f"{n_cells} cells in {len(plan.groups)} groups; {plan.to_answer:,} questions to answer on {decode:,} videos "
        f"({hours:,.1f} h of video, {tokens:,} video tokens, each decoded and encoded once)"
    )
    if not plan.to_answer:
        return
    for device, seconds in plan.seconds_per_answer.items():
        hours = plan.to_answer * seconds / 3600
        console.print(f"time: about {hours:,.2f} h on one {device}, from {seconds:.2f} s per answer")
    if not plan.seconds_per_answer:
        console.print("time: not known; this results folder has no measured answers yet")
    frames = max((g.group.cells[0].video.max_frames for g in plan.groups), default=0)
    disk = plan.to_answer * (BYTES_PER_ANSWER + frames * BYTES_PER_FRAME_RECORD)
    features = sum(group.feature_bytes for group in plan.groups)
    largest = max((group.largest_feature_bytes for group in plan.groups), default=0)
    console.print(
        f"disk: up to {disk / 1e6:,.1f} MB of answers, and {features / 1e9:,.3f} GB of features where run.feature_dir "
        f"is set; host memory: up to {largest / 1e9:,.3f} GB of features at a time"
    )


def report_problems(plan: Plan) -> None:
    """Raise one UserError that lists everything that keeps the matrix from running."""
    if plan.problems:
        raise UserError("this cannot run yet:\n" + "\n".join(f"- {problem}" for problem in plan.problems))


def main(config: Config) -> int:
    """The ``plan`` verb."""
    plan = make_plan(config)
    show(plan, Console(soft_wrap=True))
    report_problems(plan)
    return 0
