"""Small cell folders with known answers, written through the store as a run writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.evidence.cells import CellResult
from harness.evidence.loading import load_cells
from harness.records import seal, unseal
from harness.settings.compose import compose_config
from harness.settings.groups import Config, ReportConfig
from harness.store import (
    Answer,
    FrameRecords,
    Manifest,
    QuestionRecord,
    SeenFrames,
    failed_answer,
    write_manifest,
    write_questions,
)
from harness.verdicts.context import Context

LETTERS = "ABCD"

TASKS = {
    "videomme": {"split": "test", "protocol": "release", "reforge": True, "guide": None},
    "mlvu": {"split": "dev", "protocol": "release", "reforge": False, "guide": None},
    "longvideobench": {"split": "val", "protocol": "release_subtitles", "reforge": False, "guide": 152},
    "lvbench": {"split": "test", "protocol": "release", "reforge": True, "guide": None},
    "vnbench": {"split": "test", "protocol": "release", "reforge": False, "guide": None},
}
TYPES = ("plotQA", "findNeedle", "ego", "count", "order", "anomaly_reco", "topic_reasoning")
VARIANTS = {"no_both": (False, False), "no_layer": (True, False), "no_temporal": (False, True), "full": (True, True)}
SEEN = SeenFrames((0, 6, 12), (0.0, 0.5, 1.0))
"""Frames of every answer."""


def questions(task: str, n_videos: int, per_video: int = 3) -> list[QuestionRecord]:
    """Questions of a benchmark with its real tags; the gold letter walks through A to D."""
    made = []
    for v in range(n_videos):
        for q in range(per_video):
            i = v * per_video + q
            tags: dict[str, Any] = {
                "videomme": {"duration": ("short", "medium", "long")[v % 3], "task_type": "Counting", "domain": "x"},
                "vnbench": {"type": "ret_edit1", "task": "ret", "sample": str(i)},
                "mlvu": {"question_type": TYPES[i % 7]},
                "longvideobench": {"duration_group": str((15, 60, 600, 3600)[v % 4]), "question_category": "TOS"},
                "lvbench": {
                    "question_type": ["temporal grounding", "reasoning"][: 1 + i % 2],
                    "video_type": "sport",
                },
            }[task]
            options = {letter: f"text {letter}" for letter in LETTERS}
            made.append(QuestionRecord(f"v{v}-{q}", f"v{v}", options, LETTERS[i % 4], tags))
    return made


def cell_record(task: str = "lvbench", variant: str = "full", **changes: Any) -> dict[str, Any]:
    """The manifest's ``cell`` of a published setting; ``group__field=value`` changes one field."""
    known = TASKS[task]
    temporal, layers = VARIANTS.get(variant, (False, False))
    record = {
        "name": "",
        "variant": variant,
        "model": {"name": "qwen2_5_vl_7b", "path": "models/7b", "yarn_factor": 4.0, "dtype": "bfloat16"},
        "method": {
            "name": "none" if variant == "none" else "adaretake",
            "semantics": "release_2026",
            "temporal": temporal,
            "layers": layers,
            "chunk_frames": 32,
            "max_guide_length": known["guide"],
            "reforge": known["reforge"],
            "positions": "truncated",
            "quirks": {},
            "seed": 0,
        },
        "video": {"fps": 2.0, "max_frames": 1024, "long_side": 448, "resample": "nearest", "backend": "decord"},
        "context": None if variant == "none" else 16000,
        "task": {
            "name": task,
            "data": task,
            "split": known["split"],
            "protocol": known["protocol"],
            "subset": None,
            "max_new_tokens": 128,
        },
        "weights": "w0",
        "code": "c0",
        "prompts": "p0",
    }
    for path, value in changes.items():
        group, _, field = path.partition("__")
        if field:
            record[group][field] = value
        else:
            record[group] = value
    return record


def write_cell(
    results: Path,
    asked: list[QuestionRecord],
    right: list[bool | None],
    *,
    record: dict[str, Any] | None = None,
    digest: str = "00000000",
    runtime: dict[str, Any] | None = None,
    failed: set[int] = frozenset(),
    unparsed: set[int] = frozenset(),
    worker: str | None = None,
    **changes: Any,
) -> Path:
    """Write one cell folder; ``right[i]`` says whether question i is answered right, None leaves it unanswered."""
    record = record or cell_record(**changes)
    task, video = record["task"], record["video"]
    name = "-".join(
        [task["name"], record["model"]["name"], record["method"]["name"], record["variant"]]
        + [f"f{video['max_frames']}", f"fps{video['fps']:g}", f"c{record['context'] or 'all'}", digest]
    )
    record = json.loads(json.dumps(record)) | {"name": name}
    folder = results / "runs" / name
    write_manifest(
        folder,
        Manifest(
            name,
            digest,
            record,
            versions={"torch": "2.11.0", "transformers": "5.23.0"},
            git={"commit": "abc", "dirty": False},
            attention_backend="sdpa",
            device="cpu",
            instruction_set="AVX2",
            status="complete",
            runtime=runtime or {"profile": "published", "matrix": "ablation"},
        ),
    )
    write_questions(folder, asked)
    FrameRecords(results).keep(SEEN)
    lines = []
    for i, (question, ok) in enumerate(zip(asked, right, strict=True)):
        if i in failed:
            lines.append(failed_answer(question.question_id, question.video_id, RuntimeError("no frames")))
        elif ok is not None:
            wrong = LETTERS[(LETTERS.index(question.answer or "A") + 1) % 4]
            text = "I do not know" if i in unparsed else ((question.answer or "A") if ok else wrong)
            lines.append(
                Answer(
                    question.question_id,
                    question.video_id,
                    "ok",
                    text=text,
                    n_prompt=2100,
                    n_video=2000,
                    prefilled=2400,
                    attended=600_000,
                    cache_length=[260, 268],
                    chunk_budget=[100, 64],
                    kept_digest="kept",
                    kept_margin=3e-7 if i == 0 else 1e-3,
                    next_position=700,
                    sampling_fps=2.0,
                    second_per_grid=1.0 / 1.5,
                    frames=SEEN.digest,
                    seconds={"decode": 0.1, "encode": 0.2, "prefill": 0.5, "decode_text": 0.1},
                    n_new=2,
                )
            )
    # In one go: the log's own append waits for the disk at every answer.
    name = "answers.jsonl" if worker is None else f"answers.{worker}.jsonl"
    (folder / name).write_bytes(b"".join(answer.to_line(folder.name) for answer in lines))
    return folder


def rewrite(folder: Path, change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> None:
    """Write a cell's answers anew, as a run that gave other ones would have: `change` of line number and record."""
    path = folder / "answers.jsonl"
    records = [unseal(line) for line in path.read_bytes().splitlines()]
    path.write_bytes(b"".join(seal(change(i, record)) for i, record in enumerate(records)))


def configuration(results: Path, *overrides: str) -> Config:
    """The configuration of a command about every cell below `results`."""
    return compose_config([f"results={results}", "report.cells=['*']", *overrides])


def context(cells: list[CellResult] | Path, **settings: Any) -> Context:
    """Cells, or those of a results folder, without published tables and baselines."""
    listed = load_cells(cells) if isinstance(cells, Path) else cells
    return Context(listed, settings=ReportConfig(**settings))
