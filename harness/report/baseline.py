"""Stored baselines: the answers of a set of cells, question by question, with where they come from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.benchmarks.metrics import metrics
from harness.errors import UserError
from harness.report.cells import MISSING, CellResult

SCHEMA = 1
NOT_SETTING = {
    "": {"name", "variant", "weights", "code", "prompts", "versions", "architecture"},
    "model": {
        "path",
        "device",
        "device_map",
        "attention",
        "tokens_per_frame",
        "layers",
        "hidden_size",
        "vocabulary",
        "fetch",
    },
    "video": {"window", "timeout_s"},
    "task": {"data", "reforge", "max_guide_length"},
}
"""Parts of a cell's record that do not say what was asked of the code: where things lie, how fast they go, and the
digests of weights, code and prompts. A baseline outlives changes of these; all else must agree."""
DIGESTS = ("weights", "code", "prompts")
TEXT, KEPT, SHARES, RIGHT = 1, 2, 3, 4
"""Places in an answer's row."""


def setting_key(cell: dict[str, Any]) -> dict[str, Any]:
    """What a cell was asked to do, without digests and runtime knobs: the same before and after a change of code."""
    kept = {name: value for name, value in cell.items() if name not in NOT_SETTING[""]}
    for group, names in NOT_SETTING.items():
        if group and isinstance(kept.get(group), dict):
            kept[group] = {k: v for k, v in kept[group].items() if k not in names}
    return json.loads(json.dumps(kept, sort_keys=True))


def differing(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys at which two settings differ: ``method.positions: float -> v5``."""
    found = []
    for key in sorted(set(a) | set(b)):
        name, old, new = f"{prefix}{key}", a.get(key), b.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differing(old, new, f"{name}.")
        elif old != new:
            found.append(f"{name}: {old} -> {new}")
    return found


@dataclass(frozen=True)
class Comparison:
    """A cell against its baseline, question by question. Lists hold question ids."""

    n: int
    changed: list[str]
    """Answers whose text, letter, or kept tokens (how many, or in which layers and chunks) are not the stored ones."""
    gained: list[str]
    lost: list[str]
    missing: list[str]
    newly_failed: list[str]
    unknown: list[str]
    """Questions that the baseline does not have."""

    @property
    def equal(self) -> bool:
        """Whether every stored answer came out the same and nothing else did."""
        return not (self.changed or self.missing or self.unknown)

    @property
    def flips(self) -> int:
        """Answers that turned right or wrong."""
        return len(self.gained) + len(self.lost)

    @property
    def summary(self) -> str:
        """A few words for a table."""
        if self.missing:
            return f"incomplete: {len(self.missing)} of {self.n}"
        if self.unknown:
            return f"other questions: {len(self.unknown)} unknown"
        if not self.changed:
            return "equals baseline"
        return f"{len(self.changed)} of {self.n} answers changed, {self.flips} flips"


@dataclass(frozen=True)
class StoredCell:
    """One cell of a baseline. ``answers``: question id -> row, see :func:`answer_rows`."""

    id: str
    key: dict[str, Any]
    weights: str
    code: str
    prompts: str
    score: dict[str, float]
    answers: dict[str, list[Any]]

    def compare(self, cell: CellResult) -> Comparison:
        """Compare with a cell of the same setting."""
        ours = answer_rows(cell)
        changed, gained, lost, missing, newly_failed = [], [], [], [], []
        for qid, stored in self.answers.items():
            now = ours.get(qid)
            if now is None:
                missing.append(qid)
                continue
            if now != stored:
                changed.append(qid)
            if now[RIGHT] and not stored[RIGHT]:
                gained.append(qid)
            if stored[RIGHT] and not now[RIGHT]:
                lost.append(qid)
            if now[TEXT] is None and stored[TEXT] is not None:
                newly_failed.append(qid)
        asked = {question.question_id for question in cell.questions}
        unknown = sorted(asked - set(self.answers))
        return Comparison(len(self.answers), changed, gained, lost, missing, newly_failed, unknown)


@dataclass(frozen=True)
class Baseline:
    """A committed file under ``results/baselines``.

    exact: whether a run on the same environment must give the same answers to the letter.
    flip_rate: share of answers that turned right or wrong between two runs of the same code; None when not measured.
    """

    name: str
    exact: bool
    provenance: dict[str, Any]
    cells: list[StoredCell]
    flip_rate: float | None = None
    flips_measured: dict[str, Any] = field(default_factory=dict)

    def find(self, cell: CellResult) -> StoredCell | None:
        """The stored cell of the same setting, or None."""
        key = setting_key(cell.cell)
        return next((stored for stored in self.cells if stored.key == key), None)


def answer_rows(cell: CellResult) -> dict[str, list[Any]]:
    """Every answered question: id -> [letter, text, kept tokens (mean over layers), digest of kept tokens per layer and
    per chunk, right]. A failed answer has no text."""
    rows = {}
    for row in cell.frame.itertuples(index=False):
        if row.status == MISSING:
            continue
        answer = cell.answers[row.question_id]
        kept = None if answer.n_cache_mean is None else round(answer.n_cache_mean, 4)
        letter = row.letter if isinstance(row.letter, str) else None
        shares = hashlib.sha256(repr((answer.cache_length, answer.chunk_budget)).encode()).hexdigest()[:8]
        rows[row.question_id] = [letter, answer.text if answer.ok else None, kept, shares, row.correct == 1.0]
    return rows


def store_cell(cell: CellResult) -> StoredCell:
    """The cell as a baseline keeps it."""
    return StoredCell(
        id=cell.id,
        key=setting_key(cell.cell),
        **{name: cell.cell.get(name, "") for name in DIGESTS},
        score=metrics(cell.benchmark, cell.items()),
        answers=answer_rows(cell),
    )


def read_baseline(path: Path) -> Baseline:
    """Read one file.

    Raises:
        UserError: the file is absent, or no baseline of this version.
    """
    if not path.is_file():
        raise UserError(f"there is no baseline {path}; write it with the same command and --update-baseline")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']!r}, this version reads {SCHEMA}")
        cells = [StoredCell(**cell) for cell in data["cells"]]
        rest = {k: data[k] for k in ("name", "exact", "provenance", "flip_rate", "flips_measured")}
        return Baseline(cells=cells, **rest)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a baseline ({error}); write it anew with: python -m harness check --update-baseline"
        ) from error


def load_baselines(folder: Path | str) -> list[Baseline]:
    """All baselines of a folder, by name; a relative folder that does not exist is looked up below the repository."""
    folder = Path(folder)
    folder = folder if folder.is_dir() else Path(__file__).resolve().parents[2] / folder
    return [read_baseline(path) for path in sorted(folder.glob("*.json"))]


def baseline_text(baseline: Baseline) -> str:
    """The file's content: one line per question, so that a diff of two baselines reads well."""
    head = {
        "schema": SCHEMA,
        "name": baseline.name,
        "exact": baseline.exact,
        "flip_rate": baseline.flip_rate,
        "flips_measured": baseline.flips_measured,
        "provenance": baseline.provenance,
    }
    lines = json.dumps(head, indent=1, sort_keys=False)[:-2] + ',\n "cells": [\n'
    blocks = []
    for cell in baseline.cells:
        about = {name: getattr(cell, name) for name in ("id", *DIGESTS, "key", "score")}
        answers = ",\n".join(f"    {json.dumps(qid)}: {json.dumps(row)}" for qid, row in cell.answers.items())
        blocks.append("  " + json.dumps(about)[:-1] + ',\n   "answers": {\n' + answers + "}}")
    return lines + ",\n".join(blocks) + "\n ]\n}\n"
