"""The verb ``verify``: is a benchmark on disk complete, and can its videos be decoded?

Counts are compared with ``tasks/<benchmark>/facts.yaml``; of every video the first, the middle and the last frame are
decoded, in parallel. A decoder that crashes takes only its own video with it.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.benchmarks.facts import load_facts
from harness.benchmarks.metrics import grouped
from harness.benchmarks.questions import functions
from harness.benchmarks.root import is_toy
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.config import Config, TaskConfig

Decode = Callable[[Path], dict[str, Any]]
SHOWN = 20
"""Problems printed; the report has all."""


def main(config: Config) -> int:
    """Verify ``task`` below ``data.root``; the report goes to ``<results>/verify/<task>.json``.

    Returns:
        0 where everything is there and can be decoded, else 1.

    Raises:
        UserError: there is no annotation.
    """
    task, root = config.task, Path(config.data.root)
    module = functions(task.data)
    rows = module.load(root, task.split)
    problems = [*check_rows(rows, task, module), *check_prompts(rows, task, module, root)]
    # The counts of the facts are those of the published benchmark.
    problems += [] if is_toy(root) else check_counts(rows, load_facts(task.data).counts[task.split], module)
    videos = sorted({module.video_path(root, row) for row in rows})
    decoded: dict[str, Any] = {}
    decode = partial(decode_ends, backend=config.video.backend, timeout_s=config.video.timeout_s)
    for path, outcome in decode_all(videos, decode, config.data.workers):
        decoded[str(path)] = outcome
        if outcome["error"]:
            problems.append({"kind": outcome["kind"], "what": str(path), "message": outcome["error"]})
    kinds = Counter(problem["kind"] for problem in problems)
    report = {
        "task": task.name,
        "root": str(root.resolve()),
        "questions": len(rows),
        "videos": len(videos),
        "problems": problems,
        "decoded": decoded,
        "known_defects": load_facts(task.data).defects,
    }
    target = Path(config.results) / "verify" / f"{task.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{task.name}: {len(rows)} questions, {len(videos)} videos; " + (_listed(kinds) or "no problem"))
    for problem in problems[:SHOWN]:
        print(f"  {problem['kind']}: {problem['what']}: {problem['message']}")
    if len(problems) > SHOWN:
        print(f"  and {len(problems) - SHOWN} more")
    print(f"report: {target}")
    return 1 if problems else 0


def _listed(kinds: Counter[str]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))


def check_rows(rows: list[dict[str, Any]], task: TaskConfig, module: ModuleType) -> list[dict[str, str]]:
    """Questions named alike, with fewer than two options, or with a right answer that is no option."""
    problems = []
    for name, n in Counter(map(module.question_id, rows)).items():
        if n > 1:
            problems.append(_problem("annotation", name, f"{n} questions have this id"))
    for row in rows:
        options, answer = module.options(row), module.doc_to_target(row)
        if len(options) < 2 and task.split != "generation":
            problems.append(_problem("annotation", module.question_id(row), f"has {len(options)} options"))
        elif answer is not None and answer not in options:
            problems.append(_problem("annotation", module.question_id(row), f"its answer {answer} is no option"))
        elif answer is None and options and module.evaluated(row, task.protocol) and row.get("answer") is not None:
            problems.append(_problem("annotation", module.question_id(row), "its answer is no candidate"))
    return problems


def check_prompts(rows: list[dict[str, Any]], task: TaskConfig, module: ModuleType, root: Path) -> list[dict[str, str]]:
    """Questions whose prompt cannot be built, for example because their subtitles are missing."""
    problems = []
    for row in rows:
        try:
            module.doc_to_text(row, {"protocol": task.protocol, "root": str(root)})
        except (UserError, ValueError, KeyError, OSError) as error:
            problems.append(_problem("prompt", module.question_id(row), str(error)))
    return problems


def check_counts(rows: list[dict[str, Any]], counts: dict[str, Any], module: ModuleType) -> list[dict[str, str]]:
    """Differences from the numbers of videos and questions, and of questions per value of a tag, in the facts."""
    found: dict[str, Any] = {"questions": len(rows), "videos": len({module.video_id(row) for row in rows})}
    problems = [
        _problem("count", what, f"{found[what]} found, {counts[what]} expected")
        for what in ("questions", "videos")
        if what in counts and found[what] != counts[what]
    ]
    for tag, expected in counts.items():
        if isinstance(expected, dict):
            groups = grouped(({"tags": module.tags(row)} for row in rows), tag)
            for value, n in expected.items():
                if len(groups.get(value, [])) != n:
                    problems.append(
                        _problem("count", f"{tag} {value}", f"{len(groups.get(value, []))} found, {n} expected")
                    )
    return problems


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
        outcome = next(_pooled([path], decode, 1))[1] or {"error": "the decoder crashed on it", "kind": "damaged"}
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
            running: dict[Future, Path] = {}
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


def decode_ends(path: Path, backend: str, timeout_s: float) -> dict[str, Any]:
    """Decode the first, the middle and the last frame of a video on the sampler's time grid.

    Returns:
        ``error``, None where all is well, and ``kind`` of the problem or what is in the file.
    """
    from harness.video.decode import open_video
    from harness.video.sampling import SamplingPolicy

    if not path.exists():
        return {"error": "no such file", "kind": "missing"}
    try:
        policy = SamplingPolicy(fps=25.0, max_frames=3, even=False)
        video = open_video(path, policy, backend=backend, timeout_s=timeout_s)
        frames = sum(len(window) for window in video.windows(1))
    except UserError as error:
        return {"error": str(error).removeprefix(f"{path}: "), "kind": "damaged"}
    info = video.info
    return {
        "error": None,
        "frames": frames,
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
