"""How much sharing, two workers and durable answers are worth, measured on the toy.

    .venv/bin/python scripts/bench_run.py            # 50 kills
    .venv/bin/python scripts/bench_run.py --quick    # less data, fewer kills, under 5 minutes on two cores

Prints a table and, as its last line, one JSON object:
    sharing_speedup      work time of the matrix with sharing off (each answer decodes and encodes its video for itself,
                         as harnesses without sharing do) over that with sharing on
    siblings_speedup     the same against sharing among the questions of one cell only (null with --quick)
    decodes_per_video, encodes_per_video    in the run with sharing
    worker_speedup       one worker over two, one CPU thread each
    waiting_for_frames   share of the work time that the model waits for frames
    kills, answers_lost, answers_doubled    kill -9 at random moments over repeated starts of the same command
    same_answers         whether all of these runs gave the same text to every question
Work time runs from a start's first video to its last answer, so that loading Python and the model does not count;
each is the better of two runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402

from harness.cli import main as command_line  # noqa: E402
from harness.run.status import Snapshot, take_snapshot  # noqa: E402
from harness.store import answer_files, iter_answers, read_answers, read_questions  # noqa: E402

VARIANTS = 4
REPEATS = 2
LONGEST_START_S = 1800


@dataclasses.dataclass
class Setting:
    """What is run: the overrides that all runs have in common, and how hard."""

    overrides: list[str]
    kills: int
    seed: int


def start(overrides: list[str], results: Path, kill_after: Callable[[Path, int], None] | None = None) -> int:
    """Run the `run` verb in a forked process (torch is loaded once); return its status, negative for a signal.

    Args:
        kill_after: given the results folder and the process, waits for the moment of the kill and returns.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        log = os.open(results.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        os.setsid()
        status = 1
        try:
            torch.set_num_threads(1)
            status = command_line(["run", *overrides, f"results={results}", "engine.threads=1"])
        finally:
            os._exit(status)
    if kill_after is not None:
        kill_after(results, child)
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:  # not yet the leader of a group of its own
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def measure(setting: Setting, results: Path, *more: str) -> Snapshot:
    """Undisturbed starts from nothing; counters and times of the fastest, which other programs disturbed least."""
    taken = []
    for _ in range(REPEATS):
        shutil.rmtree(results, ignore_errors=True)
        status = start([*setting.overrides, *more], results)
        if status != 0:
            print((results.with_suffix(".log")).read_text()[-3000:], file=sys.stderr)
            raise SystemExit(f"the run ended with status {status}")
        (logs,) = (results / "logs").iterdir()
        taken.append(take_snapshot(logs))
    print(f"{results.name}: {', '.join(f'{snapshot.seconds:.1f} s' for snapshot in taken)}", file=sys.stderr)
    return min(taken, key=lambda snapshot: snapshot.seconds)


def texts(results: Path) -> dict[str, dict[str, str]]:
    """Every answer's text, by cell and question."""
    return {
        folder.name: {name: answer.text for name, answer in sorted(read_answers(folder).items()) if answer.ok}
        for folder in sorted((results / "runs").iterdir())
    }


def compare(results: Path, expected: dict[str, dict[str, str]]) -> bool:
    """Whether a run said the same as the undisturbed one; says where not."""
    found = texts(results)
    for cell in sorted(found.keys() | expected.keys()):
        mine, theirs = found.get(cell, {}), expected.get(cell, {})
        different = [name for name in sorted(mine.keys() | theirs.keys()) if mine.get(name) != theirs.get(name)]
        if different:
            print(f"{results.name}: {cell}: {len(different)} answers differ, first {different[0]}", file=sys.stderr)
    return found == expected


def count_lost_and_doubled(results: Path) -> tuple[int, int]:
    """Questions without an ok answer, and ok answers beyond the first, over all cells."""
    lost = doubled = 0
    for folder in (results / "runs").iterdir():
        written = [a.question_id for path in answer_files(folder) for a in iter_answers(path) if a.ok]
        lost += len({q.question_id for q in read_questions(folder)} - set(written))
        doubled += len(written) - len(set(written))
    return lost, doubled


def alive(child: int) -> bool:
    """Whether a child still runs; it is not reaped."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def torture(setting: Setting, folder: Path, expected: dict[str, dict[str, str]], work_s: float) -> dict[str, int]:
    """Kill starts at random moments until all is answered; again from nothing until there were enough kills."""
    dice = random.Random(setting.seed)
    kills = lost = doubled = forgotten = differ = rounds = 0

    def at_random(results: Path, child: int) -> None:
        before = len(list((results / "logs").glob("*/status-0.0.json")))
        deadline = time.monotonic() + LONGEST_START_S
        at_work = dice.random() > 0.1  # one in ten dies while it is still starting
        while at_work and time.monotonic() < deadline and alive(child):
            statuses = sorted((results / "logs").glob("*/status-0.0.json"))
            if len(statuses) > before and '"running"' in statuses[-1].read_text():
                break
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 2 * work_s / max(4, setting.kills // 2)))

    while kills < setting.kills:
        rounds += 1
        results = folder / f"killed{rounds}"
        results.mkdir()
        held: set[tuple[str, str]] = set()
        while True:
            status = start(setting.overrides, results, at_random if kills < setting.kills else None)
            if (results / "runs").exists():
                now = {(cell, question) for cell, answers in texts(results).items() for question in answers}
                forgotten += len(held - now)
                held = now
            if status == 0:
                break
            if status != -signal.SIGKILL:
                raise SystemExit(f"a start after a kill ended with status {status}: {results.with_suffix('.log')}")
            kills += 1
            print(f"kills {kills}/{setting.kills}, answers {len(held)}", file=sys.stderr, flush=True)
        missing, twice = count_lost_and_doubled(results)
        lost, doubled = lost + missing, doubled + twice
        differ += not compare(results, expected)
        shutil.rmtree(results)
    return {"kills": kills, "lost": lost + forgotten, "doubled": doubled, "differ": differ, "rounds": rounds}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less data and fewer kills")
    parser.add_argument("--kills", type=int, help="how many (50; quick: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of the kills' moments")
    parser.add_argument("--data", type=Path, help="toy data (made in a temporary folder by default)")
    parser.add_argument("overrides", nargs="*", help="further settings, such as matrix.frames=[64]")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-run-"))
    try:
        data = arguments.data or make_data(folder / "data", arguments.quick)
        result, rows = bench(arguments, data, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in rows:
        print(f"{name:44} {value}")
    print(json.dumps(result))
    return 0


def make_data(root: Path, quick: bool) -> Path:
    """Toy benchmarks, smaller than the committed size."""
    from harness.toy.benchmarks import build

    build(root, scale=0.28 if quick else 0.5)
    return root


def bench(arguments: argparse.Namespace, data: Path, folder: Path) -> tuple[dict, list[tuple[str, str]]]:
    """All phases; the JSON object and the table."""
    overrides = ["profile=toy", "matrix=ablation", "matrix.task=[videomme]", f"data.root={data}"]
    overrides += ["task.max_new_tokens=8", *arguments.overrides]
    kills = arguments.kills if arguments.kills is not None else 8 if arguments.quick else 50
    setting = Setting(overrides, kills, arguments.seed)

    shared = measure(setting, folder / "shared")
    videos = len({q.video_id for folder in (folder / "shared" / "runs").iterdir() for q in read_questions(folder)})
    expected = texts(folder / "shared")
    alone = measure(setting, folder / "alone", "run.sharing=false")
    siblings = None
    if not arguments.quick:
        cells = [measure(setting, folder / f"cell-{v}", f"matrix.variant=[{v}]") for v in variants()]
        siblings = sum(snapshot.seconds for snapshot in cells)
    two = measure(setting, folder / "two", "engine.workers=2")
    same = all(compare(folder / name, expected) for name in ("alone", "two"))
    killed = torture(setting, folder, expected, shared.seconds)
    counters = shared.counters
    result = {
        "sharing_speedup": round(alone.seconds / shared.seconds, 2),
        "siblings_speedup": siblings and round(siblings / shared.seconds, 2),
        "decodes_per_video": counters.videos_decoded / videos,
        "encodes_per_video": counters.videos_encoded / videos,
        "worker_speedup": round(shared.seconds / two.seconds, 2),
        "waiting_for_frames": round(counters.seconds_waiting / shared.seconds, 3),
        "kills": killed["kills"],
        "answers_lost": killed["lost"],
        "answers_doubled": killed["doubled"],
        "same_answers": same and not killed["differ"],
        "answers": counters.answers,
        "videos": videos,
        "quick": arguments.quick,
    }
    per_video = counters.answers / videos / VARIANTS
    rows = [
        (f"{videos} videos x {per_video:.1f} questions x {VARIANTS} variants", f"{shared.seconds:8.1f} s"),
        ("  every answer decodes for itself", f"{alone.seconds:8.1f} s   x {result['sharing_speedup']}"),
        *([("  cell by cell", f"{siblings:8.1f} s   x {result['siblings_speedup']}")] if siblings else []),
        ("  two workers, one thread each", f"{two.seconds:8.1f} s   x {result['worker_speedup']}"),
        ("decodes, encodes per video", f"{result['decodes_per_video']:g}, {result['encodes_per_video']:g}"),
        ("waiting for frames", f"{100 * result['waiting_for_frames']:.1f} % of the work time"),
        ("kills, answers lost, answers doubled", f"{killed['kills']}, {killed['lost']}, {killed['doubled']}"),
        ("same answers in all runs", str(result["same_answers"])),
    ]
    return result, rows


def variants() -> list[str]:
    """Names of the ablation's variants."""
    from harness.settings.cell import VARIANTS as names

    return list(names)


if __name__ == "__main__":
    sys.exit(main())
