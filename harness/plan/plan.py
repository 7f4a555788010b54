"""What a matrix is going to cost, from annotations and stored answers alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from harness.benchmarks.questions import Question, load_questions
from harness.errors import UserError
from harness.fetch.prepare import prepare_embedded
from harness.models.families import find_adapter
from harness.plan.feature_size import bytes_per_token, check_feature_memory, read_header, video_tokens
from harness.plan.rates import Work, measured_rates
from harness.plan.show import show
from harness.plan.videos import check_videos
from harness.settings.cell import Cell
from harness.settings.groups import Config, TaskConfig
from harness.settings.matrix import Group, as_groups, build_groups
from harness.settings.weights import check_weights, mismatch
from harness.store import Answer, FrameRecords, Outcomes, files_now, is_needed, outcomes_of, read_answers


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
    """Siblings, their questions and what became of these (by cell id), and the videos that they still need with their
    seconds where known."""

    group: Group
    questions: dict[str, list[Question]]
    outcomes: dict[str, Outcomes]
    seconds: dict[Path, float]
    cells: tuple[CellPlan, ...]
    videos: int
    videos_to_decode: int
    hours_to_decode: float
    tokens: int
    work: tuple[Work, ...]
    feature_bytes: int
    largest_feature_bytes: int

    @property
    def to_answer(self) -> int:
        """Questions x cells without an answer."""
        return sum(cell.to_answer for cell in self.cells)


@dataclass(frozen=True)
class Plan:
    """All groups of a matrix, with the problems that keep it from running, and notes that do not."""

    groups: tuple[GroupPlan, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    seconds_on: dict[str, float]
    """Device that was measured at all settings of the plan -> seconds on one of it."""
    unmeasured: tuple[str, ...]
    """Ids of cells whose settings no device was measured at."""
    results: str
    words: tuple[str, ...] | None
    """Settings of the matrix; None for a plan of cells that no matrix made."""

    @property
    def to_answer(self) -> int:
        """Questions x cells without an answer, over all groups."""
        return sum(group.to_answer for group in self.groups)


def cell_folder(config: Config, cell: Cell) -> Path:
    """Where a cell's records lie."""
    return Path(config.results) / "runs" / cell.id


def make_plan(config: Config, cells: Sequence[Cell] | None = None) -> Plan:
    """Plan a matrix, or `cells` in its place.

    Missing weights or data do not raise: they become problems of the plan, all of them at once.

    Raises:
        UserError: the matrix itself is wrong, or stored answers are damaged.
    """
    problems: list[str] = []
    groups = build_groups(config, problems) if cells is None else as_groups(cells)
    asked, records = AskedOnce(Path(config.data.root).absolute()), FrameRecords(config.results)
    plans = []
    for group in groups:
        try:
            plans.append(_plan_group(config, group, asked, records))
        except UserError as error:
            problems.append(str(error))
    done = {id(plan.group) for plan in plans if not plan.to_answer}
    notes = []
    for cell in {group.cells[0].model.path: group.cells[0] for group in groups if id(group) not in done}.values():
        try:  # takes a while, and only what is loaded has to be whole
            check_weights(cell.model)
        except UserError as error:
            problems.append(str(error))
    for cell in {group.cells[0].model.path: group.cells[0] for group in groups}.values():
        notes += [wrong] if (wrong := mismatch(cell.record())) else []
    work = [work for plan in plans for work in plan.work]
    rates = measured_rates(Path(config.results), [each.cell for each in work])
    taking = {device: [own.seconds(each) for each in work] for device, own in rates.items()}
    whole = {device: sum(s for s in own if s is not None) for device, own in taking.items() if None not in own}
    unmeasured = [each.cell["name"] for k, each in enumerate(work) if all(own[k] is None for own in taking.values())]
    return Plan(
        groups=tuple(plans),
        problems=tuple(dict.fromkeys(problems)),
        notes=tuple(notes),
        seconds_on=whole if work else {},
        unmeasured=tuple(unmeasured),
        results=config.results,
        words=tuple(config.words) if cells is None else None,
    )


class AskedOnce:
    """The questions of tasks, each annotation read once: a long one takes a while. Raises as `load_questions`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: list[tuple[TaskConfig, list[Question]]] = []

    def of(self, task: TaskConfig) -> list[Question]:
        """The questions of a task; cells of equal tasks share one list."""
        known = next((questions for other, questions in self._found if other == task), None)
        if known is None:
            known = load_questions(task, self._root)
            self._found.append((task, known))
        return known


def _plan_group(config: Config, group: Group, asked: AskedOnce, records: FrameRecords) -> GroupPlan:
    first = group.cells[0]
    for cell in group.cells:  # raises here what would else stop the run at its first answer
        cell.method.for_family(find_adapter(cell.model.adapter).family)
    questions = {cell.id: asked.of(cell.task) for cell in group.cells}
    outcomes: dict[str, Outcomes] = {}

    def held() -> Iterator[tuple[Path, list[Question], dict[str, Answer]]]:
        """Each cell's answers, which are let go of before the next one's are read."""
        for cell in group.cells:
            folder = cell_folder(config, cell)
            files = files_now(folder)
            answers = read_answers(folder)
            records.check(answers.values())
            outcomes[cell.id] = outcomes_of(answers, files)
            yield folder, questions[cell.id], answers

    check_videos(Path(config.results), held())
    cells, todo = [], {}
    for cell in group.cells:
        own, of = questions[cell.id], outcomes[cell.id].of
        todo[cell.id] = [q for q in own if is_needed(of.get(q.question_id), config.run.retry)]
        known = [of[q.question_id] for q in own if q.question_id in of]
        failed = sum(not outcome.ok for outcome in known)
        cells.append(CellPlan(cell, len(own), len(known) - failed, failed, len(todo[cell.id])))
    videos = {q.video: q.video_s for of_cell in questions.values() for q in of_cell}
    needed = {cell: {q.video for q in of_cell} for cell, of_cell in todo.items()}
    once = set().union(*needed.values())
    headers = {path: read_header(path, videos[path]) for path in sorted(once)}
    seconds = {path: header.seconds for path, header in headers.items() if header.seconds is not None}
    tokens_of = {path: video_tokens(first, header) for path, header in headers.items()}
    check_feature_memory(first, tokens_of, config.run)
    work = []
    for cell in group.cells:
        decoded = once if config.run.sharing else needed[cell.id]
        if todo[cell.id]:
            answering = sum(tokens_of[q.video] for q in todo[cell.id])
            work.append(Work(cell.record(), sum(tokens_of[path] for path in decoded), answering))
        once = set() if config.run.sharing and todo[cell.id] else once  # by the first cell that needs them
    tokens, size = sum(tokens_of.values()), bytes_per_token(first)
    return GroupPlan(
        group, questions, outcomes, seconds, tuple(cells), len(videos), len(headers), sum(seconds.values()) / 3600,
        tokens, tuple(work), size * tokens, size * max(tokens_of.values(), default=0),
    )  # fmt: skip


def report_problems(plan: Plan) -> None:
    """Raise one UserError that lists everything that keeps the matrix from running."""
    if plan.problems:
        raise UserError("this cannot run yet:\n" + "\n".join(f"- {problem}" for problem in plan.problems))


def main(config: Config) -> int:
    """The ``plan`` verb."""
    prepare_embedded(config)
    plan = make_plan(config)
    show(plan, Console(soft_wrap=True))
    report_problems(plan)
    return 0
