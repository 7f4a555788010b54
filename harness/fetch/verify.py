"""The verb ``verify``: is a benchmark on disk complete, and can a run use it?

Counts are compared with the benchmark's facts; every question is built, and every video is opened as the configured run
opens it and all frames decoded that a run would take, in parallel; with ``data.quick=true`` three of them. A decoder
that crashes takes only its own video with it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.advice import harness
from harness.benchmarks.benchmark import Benchmark, Item, Row, benchmark, differences
from harness.benchmarks.files import Folder, is_toy
from harness.benchmarks.questions import question_of
from harness.benchmarks.subtitles import TokenizerMissingError
from harness.errors import UserError
from harness.video.sampling import Policy, sampling_policy

if TYPE_CHECKING:
    from harness.settings.groups import Config, TaskConfig, VideoConfig
    from harness.settings.rules import MatrixConfig

Decode = Callable[[Path], dict[str, Any]]
WINDOW = 32
"""Frames in memory at a time."""
SHOWN = 20
"""Problems printed; the report has all."""


def main(config: Config) -> int:
    """Verify ``task`` below ``data.root``; the report goes to ``<results>/verify/<task>.json``.

    Returns:
        0 where everything is there and can be used, else 1.

    Raises:
        UserError: there is no annotation, or one that cannot be read.
    """
    task, root = config.task, Path(config.data.root)
    asked, folder = benchmark(task.data), Folder(root, task.data, task.name)
    rows = asked.load(folder, task.split)
    items = [asked.item(row) for row in rows]
    asked.protocol(task.protocol)
    problems = [*check_rows(rows, items, task, asked), *check_questions(rows, items, task, asked, folder)]
    problems += check_published(items, task, asked, root, config.profile)
    videos = sorted({folder.video(item.video) for item in items})
    decoded: dict[str, Any] = {}
    policy = partial(extreme_policy, video=config.video, matrix=config.matrix, task=task.name, model=config.model.name)
    decode = partial(
        decode_frames,
        strictest=policy(min),
        most=None if config.data.quick else policy(max),
        backend=config.video.backend,
        timeout_s=config.video.timeout_s,
    )
    for path, outcome in decode_all(videos, decode, config.data.workers):
        decoded[str(path)] = outcome
        if outcome["error"]:
            problems.append(_problem(outcome["kind"], str(path), outcome["error"]))
    kinds = Counter(problem["kind"] for problem in problems)
    report = {
        "task": task.name,
        "root": str(root.resolve()),
        "questions": len(rows),
        "videos": len(videos),
        "problems": problems,
        "decoded": decoded,
        "known_defects": asked.defects,
    }
    report["quick"] = config.data.quick
    target = Path(config.results) / "verify" / f"{task.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    what = f"{task.name}{' of the embedded toy' if is_toy(root) else ''}"
    print(f"{what}: {len(rows)} questions, {len(videos)} videos; " + (_listed(kinds) or "no problem"))
    if config.data.quick:
        print("quick: three frames of each video were decoded; without data.quick=true all that a run takes")
    for problem in problems[:SHOWN]:
        print(f"  {problem['kind']}: {problem['what']}: {problem['message']}")
    if len(problems) > SHOWN:
        print(f"  and {len(problems) - SHOWN} more")
    print(f"report: {target}")
    return 1 if problems else 0


def _listed(kinds: Counter[str]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))


def check_rows(rows: Sequence[Row], items: Sequence[Item], task: TaskConfig, asked: Benchmark) -> list[dict[str, str]]:
    """Questions named alike, with fewer than two options, or with a right answer that is no option."""
    problems = []
    for name, n in Counter(item.question_id for item in items).items():
        if n > 1:
            problems.append(_problem("annotation", name, f"{n} questions have this id"))
    for row, item in zip(rows, items, strict=True):
        if len(item.options) < 2 and task.split != "generation":
            problems.append(_problem("annotation", item.question_id, f"has {len(item.options)} options"))
        elif item.answer is not None and item.answer not in item.options:
            problems.append(_problem("annotation", item.question_id, f"its answer {item.answer} is no option"))
        elif (
            item.answer is None
            and item.options
            and row.get("answer") is not None
            and asked.evaluated(row, task.protocol)
        ):
            problems.append(_problem("annotation", item.question_id, "its answer is no candidate"))
    return problems


def check_questions(
    rows: Sequence[Row], items: Sequence[Item], task: TaskConfig, asked: Benchmark, folder: Folder
) -> list[dict[str, str]]:
    """Questions that cannot be asked, for example because their subtitles are missing, or that name a wrong file."""
    problems = []
    for row, item in zip(rows, items, strict=True):
        try:
            problem = question_of(asked, row, item, task.protocol, folder).problem
        except TokenizerMissingError:  # the text is there; how much of it is asked only the model's tokenizer tells
            continue
        except UserError as error:
            problem = str(error)
        if problem:
            problems.append(_problem("question", item.question_id, problem))
    return problems


def check_published(
    items: Sequence[Item], task: TaskConfig, asked: Benchmark, root: Path, profile: str
) -> list[dict[str, str]]:
    """Differences from the published benchmark; none where the toy is what is wanted."""
    if not is_toy(root):
        return [_problem("count", what, message) for what, message in differences(items, asked, task.split).items()]
    if profile == "toy":
        return []
    message = (
        f"holds the embedded toy, not {asked.title}; get that with: "
        f"{harness('prepare', [f'profile={profile}', f'task={task.name}', 'data.root=DIR'])}, or verify the toy with "
        "profile=toy"
    )
    return [_problem("toy", str(root), message)]


def extreme_policy(
    which: Callable[[list[Any]], Any], video: VideoConfig, matrix: MatrixConfig, task: str, model: str
) -> Policy:
    """Of the policies that the cells of a task have, one that takes no video which another does not (`min`), or one
    that takes the most frames (`max`).
    """
    frames, fps = (
        [value for part in matrix.parts for value in part.values(axis, task, model) or [own]]
        for axis, own in (("frames", video.max_frames), ("fps", video.fps))
    )
    return sampling_policy(dataclasses.replace(video, max_frames=which(frames), fps=which(fps)))


def _problem(kind: str, what: str, message: str) -> dict[str, str]:
    return {"kind": kind, "what": what, "message": message}


def decode_all(videos: list[Path], decode: Decode, workers: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Apply `decode` to every video with `workers` processes, as they finish, with progress and time left.

    A video on which a process dies is found by decoding those that were under way once more, one at a time.
    """
    progress = _Progress(len(videos))
    again: list[Path] = []
    for path, outcome in _pooled(videos, decode, workers):
        if outcome is None:
            again.append(path)
        else:
            progress.step(outcome["error"])
            yield path, outcome
    for path in again:
        outcome = next(_pooled([path], decode, 1))[1] or {"error": "the decoder crashed on it", "kind": "unusable"}
        progress.step(outcome["error"])
        yield path, outcome
    progress.close()


def _pooled(videos: list[Path], decode: Decode, workers: int) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Outcomes as they come; None for a video that was under way when a process died."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["harness.video.decode"])
    waiting = videos[::-1]
    while waiting:
        with ProcessPoolExecutor(min(workers, len(waiting)), mp_context=context) as pool:
            running: dict[Future[dict[str, Any]], Path] = {}
            broken = False
            while running or (waiting and not broken):
                try:
                    while waiting and not broken and len(running) < 2 * workers:
                        running[pool.submit(decode, waiting[-1])] = waiting[-1]
                        waiting.pop()
                except BrokenProcessPool:
                    broken = True
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    path = running.pop(future)
                    try:
                        yield path, future.result()
                    except BrokenProcessPool:
                        broken = True
                        yield path, None


def decode_frames(path: Path, strictest: Policy, most: Policy | None, backend: str, timeout_s: float) -> dict[str, Any]:
    """Open a video as runs do and decode its frames.

    Args:
        strictest: under this policy the video has to be usable.
        most: the frames of this policy are decoded; None: the first, the middle and the last of the strictest.

    Returns:
        ``error``, None where all is well, and ``kind`` of the problem or what is in the file.
    """
    from harness.video.decode import check_video, open_video

    if not path.exists():
        return {"error": "no such file", "kind": "missing"}
    try:
        video = check_video(path, strictest, backend=backend, timeout_s=timeout_s)
        if most is not None:
            for _ in open_video(path, most, backend=backend, timeout_s=timeout_s).windows(WINDOW):
                pass
    except UserError as error:
        return {"error": str(error).removeprefix(f"{path}: "), "kind": "unusable"}
    info = video.info
    return {
        "error": None,
        "frames": len(video.plan.indices),
        "duration_s": round(info.duration_s, 3),
        "codec": info.codec,
        "size": [info.width, info.height],
        "bytes": path.stat().st_size,
    }


class _Progress:
    """Videos decoded and the time left, on one line of a terminal, else every tenth of the way."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._bad, self._start = total, 0, 0, time.monotonic()

    def step(self, error: str | None) -> None:
        self._done += 1
        self._bad += error is not None
        terminal = sys.stderr.isatty()
        if terminal or self._done * 10 // self._total != (self._done - 1) * 10 // self._total:
            left = (time.monotonic() - self._start) / self._done * (self._total - self._done)
            clock = f"{int(left) // 3600}:{int(left) // 60 % 60:02}:{int(left) % 60:02}"
            line = f"{self._done}/{self._total} videos, {self._bad} with problems, {clock} left"
            print(f"\r{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        if sys.stderr.isatty():
            print(file=sys.stderr)
