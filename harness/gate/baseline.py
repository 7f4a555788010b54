"""Stored baselines: the answers of a set of cells, question by question, with where they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.evidence.cells import MISSING, CellResult
from harness.evidence.loading import key_of
from harness.evidence.statistics import main_metric, sample, score
from harness.places import find
from harness.settings.cell import setting_key
from harness.store import Answer, FrameRecords
from harness.store.answers import now

SCHEMA = 3
MADE_WITH = ("weights", "versions", "code", "prompts")
"""Parts of a cell's record that say what answered it, not what was asked of it."""
COLUMNS = (
    "text",  # None: the question failed
    "right",
    "kept",  # KV cache entries, mean over layers
    "shares",  # digest of the entries per layer and of the tokens per chunk
    "indices",  # digest of the kept tokens themselves
    "margin",  # between the scores of the last token kept and the first one dropped, relative; the smallest of all
    "prompt",  # tokens
    "video",  # tokens among them
    "next",  # position id of the first new token
    "frames",  # digest of the frame indices
    "times",  # digest of the timestamps, the sampling rate and the seconds per grid
    "ids",  # digest of the prompt's token ids
    "positions",  # digest of their position ids
)
"""Of an answer's row. None: the answer does not say."""

Row = dict[str, Any]


@dataclass(frozen=True)
class BaselineCell:
    """One cell of a baseline.

    score: every metric in percent. interval: of the main metric, 95 %, clustered by video; empty where nothing is
    scored. answers: question id -> its row, by column.
    """

    name: str
    key: dict[str, Any]
    made_with: dict[str, Any]
    score: dict[str, float]
    interval: list[float]
    answers: dict[str, Row]


@dataclass(frozen=True)
class Baseline:
    """A committed file under ``results/baselines``.

    exact: whether a run on the same environment must give the same answers to the letter.
    flip_rate: share of answers that turned right or wrong between two runs of the same code; None when not measured.
    """

    name: str
    exact: bool
    provenance: dict[str, Any]
    cells: list[BaselineCell]
    flip_rate: float | None = None
    flips_measured: dict[str, Any] = field(default_factory=dict)

    def find(self, cell: CellResult) -> BaselineCell | None:
        """The stored cell of the same setting, or None."""
        key = key_of(cell)
        return next((stored for stored in self.cells if stored.key == key), None)


def answer_rows(cell: CellResult) -> dict[str, Row]:
    """Every answered question's row, see `COLUMNS`."""
    frame = cell.frame()
    rows = {}
    seen: dict[tuple[Any, ...], tuple[str | None, str | None]] = {}
    for name, status, correct in zip(frame["question_id"], frame["status"], frame["correct"], strict=True):
        if status != MISSING:
            answer = cell.answers[name]
            key = answer.frames, answer.sampling_fps, answer.second_per_grid
            if key not in seen:
                seen[key] = _seen(answer, cell.frames)
            rows[str(name)] = _row(answer, bool(correct == 1.0), *seen[key])
    return rows


def _seen(answer: Answer, records: FrameRecords) -> tuple[str | None, str | None]:
    """Digests of the frames and of their times; None where there are none."""
    if answer.frames is None:
        return None, None
    found = records.find(answer.frames)
    times = [[round(t, 6) for t in found.timestamps], answer.sampling_fps, answer.second_per_grid]
    return _digest(list(found.indices)) if found.indices else None, _digest(times) if found.timestamps else None


def _row(answer: Answer, right: bool, frames: str | None, times: str | None) -> Row:
    kept = None if answer.n_cache_mean is None else round(answer.n_cache_mean, 4)
    values = (
        answer.text if answer.ok else None,
        right,
        kept,
        _digest([int(n) if n == int(n) else round(n, 4) for n in answer.cache_length], answer.chunk_budget),
        answer.kept_digest,
        None if answer.kept_margin is None else float(f"{answer.kept_margin:.2e}"),
        answer.n_prompt,
        answer.n_video,
        answer.next_position,
        frames,
        times,
        answer.ids_digest,
        answer.positions_digest,
    )
    return dict(zip(COLUMNS, values, strict=True))


def rounded(scores: dict[str, float]) -> dict[str, float]:
    """Scores as a baseline holds them."""
    return {name: round(value, 6) for name, value in scores.items()}


def interval(cell: CellResult) -> list[float]:
    """The 95 % interval of a cell's main metric as a baseline holds it; empty where no question is scored."""
    places = np.arange(cell.n)
    scored = sample(cell.asked, cell.benchmark, main_metric(cell.benchmark), cell.correct(), places)
    if not len(scored.values):
        return []
    return [round(end, 6) for end in score(scored.values, scored.videos, scored.groups).interval(0.95)]


def _digest(*values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:8]


def make_baseline(
    name: str, cells: Sequence[CellResult], exact: bool, rate: float | None, measured: dict[str, Any]
) -> Baseline:
    """A baseline of these cells."""
    names = [cell.id.rpartition("-")[0] for cell in cells]
    stored = [
        BaselineCell(
            name=readable if names.count(readable) == 1 else cell.id,
            key=key_of(cell),
            made_with={part: cell.cell[part] for part in MADE_WITH if part in cell.cell},
            score=rounded(cell.scores()),
            interval=interval(cell),
            answers=answer_rows(cell),
        )
        for cell, readable in zip(cells, names, strict=True)
    ]
    return Baseline(name, exact, provenance(cells), stored, rate, measured)


def provenance(cells: Sequence[CellResult]) -> dict[str, Any]:
    """Where the answers come from: versions, code, device, time. Where cells differ, the last one's."""
    last = max(cells, key=lambda cell: cell.manifest.created).manifest
    last_start = last.starts[-1] if last.starts else vars(last)
    return {
        "written": now(),
        "answered": last.created,
        "commits": sorted({str(cell.manifest.git.get("commit")) for cell in cells}),
        "dirty": any(bool(cell.manifest.git.get("dirty")) for cell in cells),
        **{key: last_start.get(key) for key in ("versions", "device", "instruction_set", "attention_backend")},
    }


def read_baseline(path: Path) -> Baseline:
    """Read one file.

    Raises:
        UserError: the file is absent, no baseline of this version, or edited.
    """
    if not path.is_file():
        raise UserError(f"there is no baseline {path}; write it with the same command and --update-baseline")
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']!r}, this version reads {SCHEMA}")
        if data["columns"] != list(COLUMNS):
            raise ValueError(f"columns {data['columns']}, this version compares {list(COLUMNS)}")
        content, _, said = text.rpartition(SEAL)
        if said != f'"{_seal(content)}"\n}}\n':
            raise ValueError("it was edited: its seal differs; put it back, git checkout")
        cells = []
        for name, cell in data["cells"].items():
            answers = {qid: dict(zip(COLUMNS, row, strict=True)) for qid, row in cell["answers"].items()}
            stored = (cell["made_with"], cell["score"], cell["interval"], answers)
            cells.append(BaselineCell(name, setting_key(cell["key"]), *stored))
        rest = {k: data[k] for k in ("name", "exact", "provenance", "flip_rate", "flips_measured")}
        return Baseline(cells=cells, **rest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is not a baseline ({error}); write it anew with the check of its matrix and --update-baseline"
        ) from error


def load_baselines(folder: Path | str) -> list[Baseline]:
    """All baselines of a folder, by name; a relative folder that does not exist is looked up among what
    comes with the product."""
    return [read_baseline(path) for path in sorted(baseline_folder(folder).glob("*.json"))]


def baseline_folder(folder: Path | str) -> Path:
    """A folder of baselines as it is configured: where it exists, else among what
    comes with the product."""
    return find(folder)


def baseline_text(baseline: Baseline) -> str:
    """The file's content: cells by name, one line per question, so that a diff of two baselines reads well."""
    head = {"schema": SCHEMA, "name": baseline.name, "exact": baseline.exact, "flip_rate": baseline.flip_rate}
    head |= {"flips_measured": baseline.flips_measured, "provenance": baseline.provenance, "columns": COLUMNS}
    blocks = []
    for cell in baseline.cells:
        about = {"made_with": cell.made_with, "key": cell.key, "score": cell.score, "interval": cell.interval}
        answers = ",\n".join(
            f"    {json.dumps(qid)}: {json.dumps([row.get(column) for column in COLUMNS])}"
            for qid, row in cell.answers.items()
        )
        blocks.append(f'  {json.dumps(cell.name)}: {json.dumps(about)[:-1]},\n   "answers": {{\n{answers}}}}}')
    content = json.dumps(head, indent=1)[:-2] + ',\n "cells": {\n' + ",\n".join(blocks) + "\n }"
    return f'{content}{SEAL}"{_seal(content)}"\n}}\n'


SEAL = ',\n "seal": '
"""Before the digest of all that stands above it, the last member of a baseline's file."""


def _seal(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]
