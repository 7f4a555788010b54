"""What a matrix is going to cost, from annotations and stored answers alone."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from harness.advice import harness
from harness.benchmarks.questions import Question, check_prompts, in_part, load_questions
from harness.digest import digest_now, is_remembered
from harness.errors import UserError
from harness.fetch.prepare import prepare_embedded
from harness.models.families import find_adapter
from harness.plan.feature_size import bytes_per_token, check_feature_memory, read_header, video_tokens
from harness.settings.cell import Cell
from harness.settings.groups import Config, RunConfig, TaskConfig
from harness.settings.matrix import Group, as_groups, build_cells
from harness.settings.weights import check_weights, mismatch
from harness.store import (
    Answer,
    FrameRecords,
    Manifest,
    Outcomes,
    answer_files,
    files_now,
    is_needed,
    iter_answers,
    outcomes_of,
    read_answers,
    read_manifest,
)
from harness.store.manifest import FILE as MANIFEST

Key = tuple[Any, ...]
UNKNOWN_DEVICE = "device not recorded"


@dataclass(frozen=True)
class Work:
    """What is to be done in one cell: its share in decoding and encoding, and its answers. All in video tokens."""

    cell: Mapping[str, Any]  # the cell's record
    encode_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Rates:
    """Seconds per video token on one device: to decode and encode it, and to answer one question about it."""

    encode: Mapping[Key, float]
    answer: Mapping[Key, float]

    def seconds(self, work: Work) -> float | None:
        """How long the work takes on one such device; None where its setting was never measured."""
        encode, answer = self.encode.get(encode_key(work.cell)), self.answer.get(answer_key(work.cell))
        if (work.encode_tokens and encode is None) or (work.answer_tokens and answer is None):
            return None
        return work.encode_tokens * (encode or 0.0) + work.answer_tokens * (answer or 0.0)


def encode_key(cell: Mapping[str, Any]) -> Key:
    """What decides how long a video takes to become features."""
    video = {k: v for k, v in cell["video"].items() if k not in ("window", "timeout_s")}
    return (cell["weights"], cell["model"]["dtype"], tuple(sorted(video.items())))


def answer_key(cell: Mapping[str, Any]) -> Key:
    """What decides how long an answer takes: model, frames, context, method."""
    method = cell["method"]
    return (*encode_key(cell), cell["context"], method["name"], method.get("semantics"), cell["variant"])


def measured_rates(results: Path, wanted: Iterable[Mapping[str, Any]]) -> dict[str, Rates]:
    """The rates of every device that has answered cells of the wanted settings in this results folder.

    Args:
        wanted: records of the planned cells; folders of other settings are not read.

    Raises:
        UserError: a manifest, or answers that were read, are damaged.
    """
    encode_keys = {encode_key(cell) for cell in wanted}
    passes: dict[str, dict[Key, dict[Key, tuple[float, int]]]] = defaultdict(lambda: defaultdict(dict))
    answers: dict[str, dict[Key, list[tuple[float, int]]]] = defaultdict(lambda: defaultdict(list))
    for folder in sorted(path.parent for path in (results / "runs").glob(f"*/{MANIFEST}")):
        manifest = read_manifest(folder)
        if not _has_keys(manifest) or encode_key(manifest.cell) not in encode_keys:
            continue
        device = manifest.device or UNKNOWN_DEVICE
        for answer in (answer for path in answer_files(folder) for answer in iter_answers(path)):
            if not answer.ok or not answer.n_video or "generate" not in answer.seconds:
                continue
            answers[device][answer_key(manifest.cell)].append((answer.seconds["generate"], answer.n_video))
            _add_share(passes[device][encode_key(manifest.cell)], answer)
    return {
        device: Rates(
            {key: _per_token(found.values()) for key, found in passes[device].items()},
            {key: _per_token(found) for key, found in answers[device].items()},
        )
        for device in answers
    }


def _has_keys(manifest: Manifest) -> bool:
    return {"weights", "model", "video", "method", "context", "variant"} <= manifest.cell.keys()


def _add_share(passes: dict[Key, tuple[float, int]], answer: Answer) -> None:
    """Add an answer's share of its video's decoding and encoding. All answers of one pass over a video, whatever their
    cell, carry the same share, so equal shares of one video are one pass."""
    share = answer.seconds.get("frames", 0.0) + answer.seconds.get("encode", 0.0)
    key = (answer.video_id, share)
    seconds, _ = passes.get(key, (0.0, 0))
    passes[key] = (seconds + share, answer.n_video or 0)


def _per_token(found: Iterable[tuple[float, int]]) -> float:
    listed = list(found)
    return sum(seconds for seconds, _ in listed) / sum(tokens for _, tokens in listed)


def clock(seconds: float) -> str:
    """A time as a person says it: ``35 s``, ``12 min``, ``7.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


SHOWN = 4
"""Cells named where all of them would fill the screen."""
BYTES_PER_ANSWER = 1000
BYTES_PER_FRAME = 14
"""A record of frames holds index and time of each."""
NAMED = 5
"""So many changed videos at most are named, with the command that drops their answers."""


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


def cell_folder(results: str, cell: Cell) -> Path:
    """The folder of a cell's records."""
    return Path(results) / "runs" / cell.id


def make_plan(
    cells: Sequence[Cell],
    results: str,
    data_root: str,
    run: RunConfig,
    *,
    words: Sequence[str] | None = None,
    problems: Sequence[str] = (),
) -> Plan:
    """Plan cells. Missing weights or data do not raise: they become problems of the plan, all of them at once.

    Args:
        results: the results folder.
        data_root: the folder of the benchmarks.
        words: settings of the command that made the cells; None where no matrix made them.
        problems: what is already known to keep the cells from running.

    Raises:
        UserError: stored answers are damaged.
    """
    problems, groups = list(problems), as_groups(cells)
    asked, records = QuestionsOnce(Path(data_root).absolute()), FrameRecords(results)
    plans = []
    for group in groups:
        try:
            plans.append(_plan_group(group, results, run, asked, records))
        except UserError as error:
            problems.append(str(error))
    done = {id(plan.group) for plan in plans if not plan.to_answer}
    notes: list[str] = []
    for cell in {group.cells[0].model.path: group.cells[0] for group in groups if id(group) not in done}.values():
        try:  # takes a while, and only what is loaded has to be whole
            check_weights(cell.model)
        except UserError as error:
            problems.append(str(error))
    for cell in {group.cells[0].model.path: group.cells[0] for group in groups}.values():
        problems += [wrong] if (wrong := mismatch(cell.record())) else []
    parts = {in_part(each.cell.task, each.questions, Path(data_root)) for plan in plans for each in plan.cells}
    notes += [note for note in (_absent(plans), *sorted(parts), digest_cost(plans)) if note]
    work = [work for plan in plans for work in plan.work]
    rates = measured_rates(Path(results), [each.cell for each in work])
    taking = {device: [own.seconds(each) for each in work] for device, own in rates.items()}
    whole = {device: sum(s for s in own if s is not None) for device, own in taking.items() if None not in own}
    unmeasured = [each.cell["name"] for k, each in enumerate(work) if all(own[k] is None for own in taking.values())]
    return Plan(
        groups=tuple(plans),
        problems=tuple(dict.fromkeys(problems)),
        notes=tuple(notes),
        seconds_on=whole if work else {},
        unmeasured=tuple(unmeasured),
        results=results,
        words=None if words is None else tuple(words),
    )


def _absent(plans: Sequence[GroupPlan]) -> str:
    """How many of the videos are not there, in words; empty where all are."""
    paths = {question.video for plan in plans for asked in plan.questions.values() for question in asked}
    absent = sorted(path for path in paths if not path.exists())
    return f"{len(absent):,} of {len(paths):,} videos are absent, the first is {absent[0]}" if absent else ""


LARGE_BYTES, SAMPLE_BYTES = 10**9, 2**26


def digest_cost(plans: Sequence[GroupPlan]) -> str:
    """How many bytes of videos are read once to know which files they are, in words; empty where that is little."""
    todo = [plan for plan in plans if plan.to_answer]
    paths = {question.video for plan in todo for asked in plan.questions.values() for question in asked}
    sizes = {path: path.stat().st_size for path in paths if path.is_file() and not is_remembered(path)}
    if sum(sizes.values()) < LARGE_BYTES:
        return ""
    started = time.perf_counter()
    with max(sizes, key=lambda path: sizes[path]).open("rb") as stream:
        rate = len(stream.read(SAMPLE_BYTES)) / max(time.perf_counter() - started, 1e-6)
    size = sum(sizes.values())
    return (
        f"{len(sizes):,} videos of {size / 1e9:,.1f} GB are read whole once for their digests, about "
        f"{clock(size / rate)} at {rate / 1e9:.1f} GB/s; later starts remember them"
    )


class QuestionsOnce:
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


def _plan_group(group: Group, results: str, run: RunConfig, asked: QuestionsOnce, records: FrameRecords) -> GroupPlan:
    first = group.cells[0]
    for cell in group.cells:  # raises here what would else stop the run at its first answer
        cell.method.for_family(find_adapter(cell.model.adapter).family)
    questions = {cell.id: asked.of(cell.task) for cell in group.cells}
    outcomes: dict[str, Outcomes] = {}

    def held() -> Iterator[tuple[Path, list[Question], dict[str, Answer]]]:
        """Each cell's answers, which are let go of before the next one's are read."""
        for cell in group.cells:
            folder = cell_folder(results, cell)
            files = files_now(folder)
            answers = read_answers(folder)
            check_prompts(folder, questions[cell.id], {name: a.prompt_digest for name, a in answers.items()})
            records.check(answers.values())
            outcomes[cell.id] = outcomes_of(answers, files)
            yield folder, questions[cell.id], answers

    check_videos(held())
    cells, todo = [], {}
    for cell in group.cells:
        own, of = questions[cell.id], outcomes[cell.id].of
        todo[cell.id] = [q for q in own if is_needed(of.get(q.question_id), run.retry)]
        known = [of[q.question_id] for q in own if q.question_id in of]
        failed = sum(not outcome.ok for outcome in known)
        cells.append(CellPlan(cell, len(own), len(known) - failed, failed, len(todo[cell.id])))
    videos = {q.video: q.video_s for of_cell in questions.values() for q in of_cell}
    needed = {cell: {q.video for q in of_cell} for cell, of_cell in todo.items()}
    once = set().union(*needed.values())
    headers = {path: read_header(path, videos[path]) for path in sorted(once)}
    seconds = {path: header.seconds for path, header in headers.items() if header.seconds is not None}
    tokens_of = {path: video_tokens(first, header) for path, header in headers.items()}
    check_feature_memory(first, tokens_of, run)
    work = []
    for cell in group.cells:
        decoded = once if run.sharing else needed[cell.id]
        if todo[cell.id]:
            answering = sum(tokens_of[q.video] for q in todo[cell.id])
            work.append(Work(cell.record(), sum(tokens_of[path] for path in decoded), answering))
        once = set() if run.sharing and todo[cell.id] else once  # by the first cell that needs them
    tokens, size = sum(tokens_of.values()), bytes_per_token(first)
    return GroupPlan(
        group, questions, outcomes, seconds, tuple(cells), len(videos), len(headers), sum(seconds.values()) / 3600,
        tokens, tuple(work), size * tokens, size * max(tokens_of.values(), default=0),
    )  # fmt: skip


def report_problems(plan: Plan) -> None:
    """Raise one UserError that lists everything that keeps the matrix from running."""
    if plan.problems:
        raise UserError("this cannot run yet:\n" + "\n".join(f"- {problem}" for problem in plan.problems))


def check_videos(cells: Iterable[tuple[Path, Sequence[Question], Mapping[str, Answer]]]) -> None:
    """Every answer was given to the file that its question names now; an absent file changes nothing.

    Args:
        cells: the folder of each, its questions and its answers; taken one by one, so that they may come from a
            generator that holds one cell at a time.

    Raises:
        UserError: videos were replaced, or questions point at other files.
    """
    found: dict[Path, str | None] = {}
    changed: dict[tuple[Path, str], str] = {}
    folders = []
    for folder, questions, answers in cells:
        folders.append(folder)
        for question in questions:
            answer = answers.get(question.question_id)
            if answer is None or not answer.ok or answer.video_digest is None:
                continue
            if question.video not in found:
                found[question.video] = digest_now(question.video)
            now = found[question.video]
            if now is not None and now != answer.video_digest:
                changed[question.video, answer.video_digest] = now
    if not changed:
        return
    (path, before), now = next(iter(changed.items()))
    files = " ".join(shlex.quote(str(folder)) + "/answers*.jsonl" for folder in folders)
    drop = "".join(f' -e \'/"video_digest":"{old}"/d\'' for _, old in list(changed)[:NAMED])
    rest = f" (the first {NAMED}; then again)" if len(changed) > NAMED else ""
    raise UserError(
        f"{len(changed)} videos are other files than those that were answered, the first is {path}: {before} "
        f"(bytes-digest) was answered, {now} is there now. Put the old files back (data.root), or have their "
        f"questions answered anew: drop those answers{rest} and start the same command again:\n"
        f"  sed -i{drop} {files}"
    )


def time_lines(plan: Plan, start_s: float) -> list[str]:
    """How long the plan takes, on each device that was measured at all of its settings."""
    if plan.seconds_on:
        return [
            f"time: about {clock(start_s + seconds)} on one {device}, by what these settings took in {plan.results}"
            for device, seconds in plan.seconds_on.items()
        ]
    cells = ", ".join(plan.unmeasured[:SHOWN]) + (" ..." if len(plan.unmeasured) > SHOWN else "")
    which = f" of {cells}" if cells else " on one device"
    unknown = f"time: not known; nothing was measured at the settings{which}"
    subsets = {cell.cell.task.subset for group in plan.groups for cell in group.cells}
    if plan.words is None or subsets == {"mini"}:
        return [unknown]
    return [f"{unknown}. This measures them: {harness('run', plan.words, 'task.subset=mini')}"]


def print_plan(plan: Plan, console: Console, start_s: float | None = None) -> None:
    """Print a plan: one row per cell, one line per total. Nothing where problems left no group to plan."""
    if start_s is None:
        start_s = time.time() - psutil.Process().create_time()  # a run takes as long until it starts to answer
    if not plan.groups:
        return
    rows = [(cell.cell.id, cell) for group in plan.groups for cell in group.cells]
    width = max(len(name) for name, _ in rows)
    heads = ("questions", "answered", "failed", "to answer")
    lines = ["  ".join(("cell".ljust(width), *heads))]
    for name, cell in rows:
        numbers = (cell.questions, cell.answered, cell.failed, cell.to_answer)
        cells = (str(n).rjust(len(head)) for n, head in zip(numbers, heads, strict=True))
        lines.append("  ".join((name.ljust(width), *cells)))
    console.print("\n".join(lines), highlight=False, markup=False)
    decode = sum(group.videos_to_decode for group in plan.groups)
    hours = sum(group.hours_to_decode for group in plan.groups)
    tokens = sum(group.tokens for group in plan.groups)
    n_cells = sum(len(group.cells) for group in plan.groups)
    console.print(
        f"{n_cells} cells in {len(plan.groups)} groups; {plan.to_answer:,} questions to answer on {decode:,} videos "
        f"({hours:,.1f} h of video, {tokens:,} video tokens, each decoded and encoded once)"
    )
    for note in plan.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    if not plan.to_answer:
        return
    for line in time_lines(plan, start_s):
        console.print(line, highlight=False, markup=False)
    frames = max((g.group.cells[0].video.max_frames for g in plan.groups), default=0)
    disk = plan.to_answer * BYTES_PER_ANSWER + decode * frames * BYTES_PER_FRAME
    features = sum(group.feature_bytes for group in plan.groups)
    largest = max((group.largest_feature_bytes for group in plan.groups), default=0)
    console.print(
        f"disk: up to {disk / 1e6:,.1f} MB of answers, and {features / 1e9:,.3f} GB of features where run.feature_dir "
        f"is set; host memory: up to {largest / 1e9:,.3f} GB of features at a time"
    )


def main(config: Config) -> int:
    """The ``plan`` verb."""
    prepare_embedded(config.profile, config.data)
    problems: list[str] = []
    cells = build_cells(config, problems)
    plan = make_plan(cells, config.results, config.data.root, config.run, words=config.words, problems=problems)
    print_plan(plan, Console(soft_wrap=True))
    report_problems(plan)
    return 0
