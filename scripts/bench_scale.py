"""What the verbs that read stored answers cost, from a few thousand answers to a million.

    .venv/bin/python scripts/bench_scale.py                                   # 7,760, 31,040 and 93,120 answers
    .venv/bin/python scripts/bench_scale.py --sizes 1000000 --verbs plan run
    .venv/bin/python scripts/bench_scale.py --questions 194 --sizes 776 3104  # small, for a look

The stores are made from the toy: its benchmarks with their rows repeated under new names until they have as many
questions as the published ones (2,700, 2,174, 1,337 and 1,549), and cells of a matrix of variants, contexts and
semantics that hold the answers of the committed baseline `toy_ablation`, in records as a run writes them. Every verb
runs in a process of its own on a whole store, so that `run` has nothing left to do.

Prints a table (CPU seconds, wall seconds, the most memory in MiB) and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

PUBLISHED = {"videomme": 2700, "mlvu": 2174, "longvideobench": 1337, "lvbench": 1549}
VARIANTS = ("full", "no_temporal", "no_layer", "no_both")
CONTEXTS = tuple(range(259, 259 + 11 * 64, 64))
SEMANTICS = ("paper", "release_2025", "release_2026")
OTHER = 20
"""One answer in so many is that of another variant, so that cells differ."""
VERBS: dict[str, list[str]] = {
    "plan": ["plan"],
    "run": ["run"],
    "score": ["score"],
    "score again": ["score"],
    "report": ["report"],
    "baseline": ["check", "--update-baseline", "check.exact=true"],
    "check": ["check", "check.exact=true"],
    "submit": ["submit", "task=videomme"],
}
"""Name -> the words of the command; all but `score`, which comes first, find the scores made."""


def axes(settings: int) -> dict[str, Sequence[Any]]:
    """A matrix with at least so many settings of every benchmark: variants first, then contexts, then semantics."""
    variants = min(settings, len(VARIANTS))
    contexts = min(-(-settings // variants), len(CONTEXTS))
    semantics = min(-(-settings // (variants * contexts)), len(SEMANTICS))
    return {
        "variant": VARIANTS[:variants],
        "context": CONTEXTS[:contexts],
        "semantics": SEMANTICS[:semantics],
    }


def overrides(store: Path, settings: int) -> list[str]:
    """The settings of every command about a store."""
    words = [f"matrix.{name}=[{','.join(map(str, values))}]" for name, values in axes(settings).items()]
    own = [f"data.root={store / 'data'}", f"results={store / 'results'}"]
    return ["profile=toy", "matrix=ablation", *words, *own]


def command(verb: str, store: Path, settings: int) -> list[str]:
    """The words of a verb's command on a store."""
    words = [*VERBS[verb], *overrides(store, settings)]
    if VERBS[verb][0] == "check":
        words.append(f"check.baseline={store / 'baseline.json'}")
    if verb == "submit":
        words.append(f"report.cells=[{first_cell(store, 'videomme')}]")
    return words


def repeated(rows: Sequence[Any], n: int, rename: Callable[[Any, str], Any]) -> list[Any]:
    """`n` rows: the given ones as often as needed, each round renamed."""
    return [rename(rows[i % len(rows)], f"r{i // len(rows)}x") for i in range(n)]


def make_data(toy: Path, folder: Path, questions: int) -> None:
    """Benchmarks with the toy's rows under new names: `questions` in all, shared as the published benchmarks are."""
    import pandas as pd

    share = {name: max(7, round(n * questions / sum(PUBLISHED.values()))) for name, n in PUBLISHED.items()}
    shutil.copytree(toy / "longvideobench" / "subtitles", folder / "longvideobench" / "subtitles")

    def link(benchmark: str, old: str, new: str) -> str:
        place = folder / benchmark / new
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(toy / benchmark / old, place)
        return new

    def videomme(row: dict[str, Any], prefix: str) -> dict[str, Any]:
        name, number = f"{prefix}{row['videoID']}", f"{prefix}{row['video_id']}"
        link("videomme", f"videos/{row['videoID']}.mp4", f"videos/{name}.mp4")
        place = row["question_id"].rpartition("-")[2]
        return {**row, "videoID": name, "video_id": number, "question_id": f"{number}-{place}"}

    def longvideobench(row: dict[str, Any], prefix: str) -> dict[str, Any]:
        path = link("longvideobench", f"videos/{row['video_path']}", f"videos/{prefix}{row['video_path']}")
        name = {key: f"{prefix}{row[key]}" for key in ("id", "video_id")}
        return {**row, **name, "video_path": path.removeprefix("videos/")}

    def mlvu(row: dict[str, Any], prefix: str, stem: str) -> dict[str, Any]:
        path = link("mlvu", f"videos/{stem}/{row['video']}", f"videos/{stem}/{prefix}{row['video']}")
        return {**row, "video": path.rpartition("/")[2]}

    def lvbench(pair: tuple[dict[str, Any], dict[str, Any]], prefix: str) -> dict[str, Any]:
        line, question = pair
        link("lvbench", f"videos/{line['key']}.mp4", f"videos/{prefix}{line['key']}.mp4")
        return {**line, "key": f"{prefix}{line['key']}", "qa": [{**question, "uid": prefix + question["uid"]}]}

    rows = pd.read_parquet(toy / "videomme" / "test.parquet").to_dict("records")
    (folder / "videomme").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(repeated(rows, share["videomme"], videomme)).to_parquet(folder / "videomme" / "test.parquet")
    rows = json.loads((toy / "longvideobench" / "lvb_val.json").read_text())
    write_json(folder / "longvideobench" / "lvb_val.json", repeated(rows, share["longvideobench"], longvideobench))
    files = sorted((toy / "mlvu" / "json").glob("*.json"))
    for k, path in enumerate(files):
        n = share["mlvu"] // len(files) + (k < share["mlvu"] % len(files))
        made = repeated(json.loads(path.read_text()), n, lambda row, prefix, stem=path.stem: mlvu(row, prefix, stem))
        write_json(folder / "mlvu" / "json" / path.name, made)
    listed = [json.loads(line) for line in (toy / "lvbench" / "video_info.meta.jsonl").read_text().splitlines()]
    lines = repeated([(line, q) for line in listed for q in line["qa"]], share["lvbench"], lvbench)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "lvbench" / "video_info.meta.jsonl").write_text(text)
    build = {"seed": 0, "scale": questions, "generator": 1}  # another size than the toy's own: it is left alone
    write_json(folder / "manifest.json", {"complete": True, "build": build})


def write_json(path: Path, content: Any) -> None:
    """Write a file below folders that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def make_results(store: Path, settings: int) -> int:
    """Write every cell of the store's matrix, answered; returns the number of answers."""
    from harness.benchmarks.questions import load_questions
    from harness.digest import file_digest
    from harness.gate.baseline import read_baseline
    from harness.run.run import Execution
    from harness.run.work import make_manifest, record
    from harness.settings.compose import compose_config
    from harness.settings.matrix import as_groups, build_cells
    from harness.store import FrameRecords, SeenFrames, set_status, write_manifest, write_questions
    from harness.video.sampling import plan_frames, sampling_policy

    config = compose_config(overrides(store, settings))
    names = {(c.key["task"]["name"], switches(c.key["method"])): c for c in read_baseline(toy_baseline()).cells}
    records = FrameRecords(store / "results")
    total = 0
    for group in as_groups(build_cells(config)):
        questions = load_questions(group.cells[0].task, store / "data")
        digests = {path: file_digest(path) for path in {question.video for question in questions}}
        recorded = record(questions)
        policy = sampling_policy(group.cells[0].video)
        plans = {seconds: plan_frames(seconds, policy) for seconds in {q.video_s or 128.0 for q in questions}}
        seen = {seconds: SeenFrames(plan.indices, plan.timestamps) for seconds, plan in plans.items()}
        for each in seen.values():
            records.keep(each)
        for number, cell in enumerate(group.cells):
            folder = store / "results" / "runs" / cell.id
            write_manifest(folder, make_manifest(cell, Execution.of(config).runtime))
            write_questions(folder, recorded.records.values())
            task = cell.task.name
            rows = {pair: list(names[task, pair].answers.values()) for name, pair in names if name == task}
            own, *others = [rows[switches(vars(cell.method))], *rows.values()]
            with open(folder / "answers.jsonl", "wb") as stream:
                for i, question in enumerate(questions):
                    chosen = own if (i + 7 * number) % OTHER else others[(i // OTHER) % len(others)]
                    row, seconds = chosen[i % len(chosen)], question.video_s or 128.0
                    facts = {"video_digest": digests[question.video], "frames": seen[seconds].digest}
                    facts |= {key: getattr(plans[seconds], key) for key in ("sampling_fps", "second_per_grid")}
                    stream.write(answer(question, row, facts, i).to_line(folder.name))
            set_status(folder, "complete")
            total += len(questions)
    return total


def answer(question: Any, row: dict[str, Any], facts: dict[str, Any], number: int) -> Any:
    """A row of the baseline as the answer to a question; `facts` of its video."""
    from harness.store import Answer

    return Answer(
        question.question_id, question.video_id, "ok", prompt_digest=question.digest, text=row["text"],
        n_prompt=row["prompt"],
        n_encoded=row["video"], n_video=row["video"], cache_length=[row["kept"]] * 4,
        chunk_budget=[round(row["kept"] / 8)] * 8, kept_digest=row["indices"], kept_margin=row["margin"],
        next_position=row["next"], backend="decord", **facts,
        seconds={"frames": 0.021, "encode": 0.013 + number % 7 / 1000, "generate": 0.12 + number % 11 / 1000},
        n_new=2, start="20260101-120000-1",
    )  # fmt: skip


def switches(method: dict[str, Any]) -> tuple[bool, bool]:
    """The variant of a method's options."""
    return bool(method["temporal"]), bool(method["layers"])


def toy_baseline() -> Path:
    """Where the answers come from."""
    return REPO / "results" / "baselines" / "toy_ablation.json"


def make_store(toy: Path, store: Path, questions: int, settings: int) -> int:
    """A whole store; returns its answers."""
    make_data(toy, store / "data", questions)
    return make_results(store, settings)


def measure(verb: str, store: Path, settings: int) -> dict[str, Any]:
    """One verb in a process of its own: {"cpu_s", "wall_s", "peak_mib", "status"}."""
    words = command(verb, store, settings)
    usage = store / "usage.json"
    usage.unlink(missing_ok=True)
    began = time.perf_counter()
    with open(store / f"{verb.replace(' ', '-')}.log", "wb") as log:
        line = [sys.executable, __file__, "--inside", str(usage), *words]
        status = subprocess.run(line, stdout=log, stderr=log, check=False).returncode
    wall = time.perf_counter() - began
    found = json.loads(usage.read_text()) if usage.exists() else {"cpu_s": None, "peak_mib": None}
    return {**found, "wall_s": round(wall, 2), "status": status}


def inside(usage: Path, words: list[str]) -> int:
    """Run one command here, and say what it took of the processor and of memory."""
    from harness.__main__ import run

    sys.argv = ["harness", *words]
    try:
        run()
    except SystemExit as ended:
        status = int(ended.code or 0)
    # The peak of a resource usage may be that of the process that started this one; the kernel's own record is not.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    times = os.times()
    cpu = times.user + times.system + times.children_user + times.children_system
    usage.write_text(json.dumps({"cpu_s": round(cpu, 2), "peak_mib": int(peak.split()[1]) // 1024}))
    return status


def first_cell(store: Path, task: str) -> str:
    """Name of one cell of a benchmark."""
    return next(path.name for path in islice(sorted((store / "results" / "runs").glob(f"{task}-*")), 1))


def bench(toy: Path, folder: Path, sizes: Sequence[int], questions: int, verbs: Sequence[str]) -> Iterator[dict]:
    """One row per size and verb. A store is removed before the next one is made."""
    for size in sizes:
        settings = -(-size // questions)
        store = folder / f"store{size}"
        began = time.perf_counter()
        answers = make_store(toy, store, questions, settings)
        print(f"{answers:,} answers made in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        for verb in verbs:
            row = {"answers": answers, "verb": verb, **measure(verb, store, settings)}
            print("{answers:9,}  {verb:12} {cpu_s:8} s CPU {wall_s:8} s {peak_mib:6} MiB".format(**row), flush=True)
            yield row
        shutil.rmtree(store)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    if words is None and sys.argv[1:2] == ["--inside"]:
        return inside(Path(sys.argv[2]), sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[7760, 31040, 93120], help="numbers of answers, about")
    parser.add_argument("--questions", type=int, default=sum(PUBLISHED.values()), help="of all benchmarks together")
    parser.add_argument("--verbs", nargs="+", default=list(VERBS), choices=VERBS)
    parser.add_argument("--toy", type=Path, help="built toy data (made in a temporary folder by default)")
    parser.add_argument("--folder", type=Path, help="where the stores are made (a temporary folder by default)")
    arguments = parser.parse_args(words)
    folder = Path(tempfile.mkdtemp(prefix="bench-scale-", dir=arguments.folder))
    try:
        if arguments.toy is None:
            from harness.toy.benchmarks import build

            build(folder / "toy")
        toy = arguments.toy or folder / "toy"
        rows = list(bench(toy, folder, arguments.sizes, arguments.questions, arguments.verbs))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
