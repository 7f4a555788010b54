"""What a matrix is going to cost, from annotations and stored answers alone."""

from __future__ import annotations

import math
import shlex
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
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
from harness.settings.cell import Cell
from harness.settings.groups import Config, RunConfig, TaskConfig, once_per_task
from harness.settings.matrix import Group, as_groups, build_cells
from harness.settings.weights import check_weights, found_architecture, mismatch
from harness.store import (
    Answer,
    FrameRecords,
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
from harness.video.decode import expected
from harness.video.features import feature_bytes
from harness.video.sampling import sampling_policy

Key = tuple[Any, ...]


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

    `wanted` are records of the planned cells; folders of other settings are not read. Raises UserError where a manifest
    or answers that were read are damaged.
    """
    encode_keys = {encode_key(cell) for cell in wanted}
    passes: dict[str, dict[Key, dict[Key, tuple[float, int]]]] = defaultdict(lambda: defaultdict(dict))
    answers: dict[str, dict[Key, list[tuple[float, int]]]] = defaultdict(lambda: defaultdict(list))
    for folder in sorted(path.parent for path in (results / "runs").glob(f"*/{MANIFEST}")):
        manifest = read_manifest(folder)
        cell, device = manifest.cell, manifest.device or "device not recorded"
        if not {"weights", "model", "video", "method", "context", "variant"} <= cell.keys():
            continue
        if encode_key(cell) not in encode_keys:
            continue
        for answer in (answer for path in answer_files(folder) for answer in iter_answers(path)):
            if not answer.ok or not answer.n_video or "generate" not in answer.seconds:
                continue
            answers[device][answer_key(cell)].append((answer.seconds["generate"], answer.n_video))
            # All answers of one pass over a video, whatever their cell, carry the same share of its decoding and
            # encoding, so equal shares of one video are one pass.
            share = answer.seconds.get("frames", 0.0) + answer.seconds.get("encode", 0.0)
            shares = passes[device][encode_key(cell)]
            seconds, _ = shares.get((answer.video_id, share), (0.0, 0))
            shares[answer.video_id, share] = seconds + share, answer.n_video

    def per_token(measured: Iterable[tuple[float, int]]) -> float:
        seconds, tokens = zip(*measured, strict=True)
        return float(sum(seconds) / sum(tokens))

    return {
        device: Rates(
            {key: per_token(shares.values()) for key, shares in passes[device].items()},
            {key: per_token(pairs) for key, pairs in answers[device].items()},
        )
        for device in answers
    }


def clock(seconds: float) -> str:
    """A time as a person says it: ``35 s``, ``12 min``, ``7.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


TYPICAL_SIZE = (1280, 720)
"""Width and height assumed for videos that are not on disk: most of the benchmarks' videos are 16:9."""
TYPICAL_HIDDEN = 3584
"""Of the 7B models; assumed where the weights are not on disk."""


@dataclass(frozen=True)
class Header:
    """What a video's header claims, with typical values where there is no file."""

    seconds: float | None
    width: int = TYPICAL_SIZE[0]
    height: int = TYPICAL_SIZE[1]


def read_header(path: Path, seconds: float | None = None) -> Header:
    """The header of a video; nothing is decoded. `seconds` are taken where the file holds none."""
    import av

    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError):  # the run itself reports a video that cannot be read
        return Header(seconds)
    try:
        found = container.duration / av.time_base if container.duration else seconds
        if not container.streams.video:
            return Header(found)
        stream = container.streams.video[0]
        return Header(found, stream.width or TYPICAL_SIZE[0], stream.height or TYPICAL_SIZE[1])
    finally:
        container.close()


def video_tokens(cell: Cell, header: Header) -> int:
    """Tokens of one video as the cell samples it; those of the longest video where the length is not known."""
    frames, size = expected(sampling_policy(cell.video), header.seconds, header.width, header.height)
    if cell.model.tokens_per_frame is not None:
        return frames * cell.model.tokens_per_frame
    sides = (max(1, round(side / cell.model.pixels_per_token)) for side in size)
    return math.ceil(frames / 2) * math.prod(sides)


def bytes_per_token(cell: Cell) -> int:
    """Host memory that the features of one token take."""
    width = found_architecture(cell.model.path).get("hidden_size", TYPICAL_HIDDEN)
    return feature_bytes([(width,)] * cell.model.features_per_token, cell.model.dtype)


def check_feature_memory(cell: Cell, tokens_of: Mapping[Path, int], run: RunConfig) -> None:
    """Raises UserError where the features of the largest video exceed the host memory that the run may use.

    `tokens_of` are each video's `video_tokens`. The message holds settings that fit.
    """
    path, tokens = max(tokens_of.items(), key=lambda item: item[1], default=(None, 0))
    held = 1 + run.prefetch if run.feature_dir else 1  # stored features are read ahead
    needed = held * tokens * bytes_per_token(cell) / 1e9
    if needed > run.feature_memory_gb:
        ahead = f" with run.prefetch={run.prefetch}" if held > 1 else ""
        raise UserError(
            f"the features of {path} ({tokens:,} tokens) need {needed:.3g} GB of host memory{ahead}, but "
            f"run.feature_memory_gb={run.feature_memory_gb:g}. Raise that, or lower "
            f"video.max_frames={cell.video.max_frames} or video.long_side={cell.video.long_side}"
        )


SHOWN = 4
"""At most as many cells are named, because all of them would fill the screen."""
BYTES_PER_ANSWER = 1000
BYTES_PER_FRAME = 14
"""A record of frames holds index and time of each."""
NAMED = 5
"""At most as many changed videos are named, with the command that drops their answers."""


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
    """Siblings, their questions and outcomes (by cell id), and the seconds of the videos that they still need."""

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
        data_root: the folder of the benchmarks.
        words: settings of the command that made the cells; None where no matrix made them.
        problems: what is already known to keep the cells from running.

    Raises:
        UserError: stored answers are damaged.
    """
    problems, groups = list(problems), as_groups(cells)
    asked, records = once_per_task(partial(load_questions, root=Path(data_root).absolute())), FrameRecords(results)
    plans, notes, unfinished = [], [], {}
    for group in groups:
        try:
            plans.append(_plan_group(group, results, run, asked, records))
        except UserError as error:
            problems.append(str(error))
        if not plans or plans[-1].group is not group or plans[-1].to_answer:
            unfinished[group.cells[0].model.path] = group.cells[0].model
    for model in unfinished.values():
        try:  # takes a while, and only what is loaded has to be whole
            check_weights(model)
        except UserError as error:
            problems.append(str(error))
    for cell in {group.cells[0].model.path: group.cells[0] for group in groups}.values():
        problems += [wrong] if (wrong := mismatch(cell.record())) else []
    parts = {in_part(each.cell.task, each.questions, Path(data_root)) for plan in plans for each in plan.cells}
    notes += [note for note in (_absent(plans), *sorted(parts), digest_cost(plans)) if note]
    work = [work for plan in plans for work in plan.work]
    rates = measured_rates(Path(results), [todo.cell for todo in work])
    taking = {device: [rate.seconds(todo) for todo in work] for device, rate in rates.items()}
    whole = {name: sum(s for s in seconds if s is not None) for name, seconds in taking.items() if None not in seconds}
    unmeasured = (todo.cell["name"] for k, todo in enumerate(work) if all(s[k] is None for s in taking.values()))
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


def _plan_group(
    group: Group, results: str, run: RunConfig, asked: Callable[[TaskConfig], list[Question]], records: FrameRecords
) -> GroupPlan:
    first = group.cells[0]
    for cell in group.cells:  # raises here what would else stop the run at its first answer
        cell.method.for_family(find_adapter(cell.model.adapter).family)
    questions = {cell.id: asked(cell.task) for cell in group.cells}
    outcomes: dict[str, Outcomes] = {}

    def held() -> Iterator[tuple[Path, list[Question], dict[str, Answer]]]:
        """Each cell's answers, which are let go of before the next one's are read."""
        for cell in group.cells:
            folder = cell_folder(results, cell)
            files, answers = files_now(folder), read_answers(folder)
            check_prompts(folder, questions[cell.id], {name: a.prompt_digest for name, a in answers.items()})
            records.check(answers.values())
            outcomes[cell.id] = outcomes_of(answers, files)
            yield folder, questions[cell.id], answers

    check_videos(held())
    cells, todo = [], {}
    for cell in group.cells:
        stored = {q.question_id: outcomes[cell.id].of.get(q.question_id) for q in questions[cell.id]}
        todo[cell.id] = [q for q in questions[cell.id] if is_needed(stored[q.question_id], run.retry)]
        ok = [outcome.ok for outcome in stored.values() if outcome is not None]
        cells.append(CellPlan(cell, len(stored), sum(ok), len(ok) - sum(ok), len(todo[cell.id])))
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
    """Raises UserError where an answer was given to another file than its question names now; a file may be absent.

    Args:
        cells: the folder of each, its questions and its answers; taken one by one, so that they may come from a
            generator that holds one cell at a time.
    """
    digest_of = cache(digest_now)
    changed: dict[tuple[Path, str], str] = {}
    folders = []
    for folder, questions, answers in cells:
        folders.append(folder)
        for question in questions:
            answer = answers.get(question.question_id)
            if answer is None or not answer.ok or answer.video_digest is None:
                continue
            now = digest_of(question.video)
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
        f"questions answered again: drop those answers{rest} and start the same command again:\n"
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
    rows = [cell for group in plan.groups for cell in group.cells]
    width = max(len(row.cell.id) for row in rows)
    lines = [f"{'cell'.ljust(width)}  questions  answered  failed  to answer"]
    lines += [
        f"{row.cell.id.ljust(width)}  {row.questions:>9}  {row.answered:>8}  {row.failed:>6}  {row.to_answer:>9}"
        for row in rows
    ]
    console.print("\n".join(lines), highlight=False, markup=False)
    decode = sum(group.videos_to_decode for group in plan.groups)
    hours = sum(group.hours_to_decode for group in plan.groups)
    tokens = sum(group.tokens for group in plan.groups)
    console.print(
        f"{len(rows)} cells in {len(plan.groups)} groups; {plan.to_answer:,} questions to answer on {decode:,} videos "
        f"({hours:,.1f} h of video, {tokens:,} video tokens, each decoded and encoded once)"
    )
    for note in plan.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    if not plan.to_answer:
        return
    for line in time_lines(plan, start_s):
        console.print(line, highlight=False, markup=False)
    frames = max(group.group.cells[0].video.max_frames for group in plan.groups)
    disk = plan.to_answer * BYTES_PER_ANSWER + decode * frames * BYTES_PER_FRAME
    features = sum(group.feature_bytes for group in plan.groups)
    largest = max(group.largest_feature_bytes for group in plan.groups)
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
