"""The verb ``check``: the stored answers of a matrix against a committed baseline, question by question."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.report.baseline import (
    KEPT,
    TEXT,
    Baseline,
    Comparison,
    StoredCell,
    answer_rows,
    differing,
    read_baseline,
    setting_key,
)
from harness.report.baseline_update import update
from harness.report.cells import CellResult, load_cells
from harness.report.current import current_ids, newest
from harness.report.junit import junit
from harness.store import write_atomic

PASS, REGRESSION, INCOMPLETE, DRIFT = "pass", "regression", "incomplete", "environment drift"
EXIT = {PASS: 0, REGRESSION: 1, INCOMPLETE: 2, DRIFT: 3}
ORDER = (REGRESSION, INCOMPLETE, DRIFT, PASS)
"""Worst first: one cell's regression is not hidden by another that is incomplete."""
ALPHA = 0.01
"""Chance of a false alarm per check in flip mode, shared by its cells."""
NEAR = ("model.name", "task.name", "method.name", "method.temporal", "method.layers")
"""Two cells that agree on these are the same row of a table; anything else that differs between them is a change."""


@dataclass(frozen=True)
class CellCheck:
    """The gate's verdict on one cell of the baseline."""

    name: str
    verdict: str
    reason: str
    comparison: Comparison | None = None
    details: list[str] = field(default_factory=list)


def main(config: Any) -> int:
    """Compare the configured matrix's cells with a baseline, or write a new one (``check.update_baseline``).

    Writes ``check.json`` and ``check.xml`` (JUnit) into the report's folder.

    Returns:
        0 pass, 1 regression, 2 incomplete, 3 environment drift.

    Raises:
        UserError: there is no baseline, or it asks for a flip rate that nobody measured.
    """
    path = baseline_path(config)
    wanted = [] if config.report.cells else current_ids(config)
    stored = load_cells(config.results, config.report.cells)
    cells = [cell for cell in stored if cell.id in set(wanted)] if wanted else newest(stored)
    absent = {name: _why_absent(name, stored) for name in wanted if name not in {cell.id for cell in cells}}
    if config.check.update_baseline:
        return update(path, cells, absent, config.check.exact)
    baseline = read_baseline(path)
    exact = baseline.exact if config.check.exact is None else config.check.exact
    rate = baseline.flip_rate if config.check.flip_rate is None else config.check.flip_rate
    if not exact and rate is None:
        raise UserError(
            f"{path} has no measured flip rate. Run the matrix twice into two results folders and update the baseline "
            "from the second, or give one: check.flip_rate=0.01"
        )
    checks = check(baseline, cells, exact=exact, flip_rate=rate or 0.0)
    absent_names = {name.rpartition("-")[0] for name in absent}
    checks = [c for c in checks if c.comparison is not None or c.name.rpartition("-")[0] not in absent_names]
    checks += [CellCheck(name, INCOMPLETE, reason) for name, reason in absent.items()]
    verdict = next(v for v in ORDER if v == PASS or any(c.verdict == v for c in checks))
    record = as_record(path, baseline, cells, checks, verdict, exact, rate)
    output = Path(config.report.output)
    write_atomic(output / "check.json", json.dumps(record, indent=1) + "\n")
    write_atomic(output / "check.xml", junit(path.stem, checks))
    print(_text(path, checks, verdict, exact, rate))
    print(f"{output}/check.json, {output}/check.xml")
    return EXIT[verdict]


def baseline_path(config: Any) -> Path:
    """The file of ``check.baseline``, else ``<profile>_<matrix>[_<subset>].json`` in the folder of baselines."""
    if config.check.baseline:
        return Path(config.check.baseline)
    folder = Path(config.report.baselines)
    folder = folder if folder.is_dir() else Path(__file__).resolve().parents[2] / folder
    words = [config.profile, config.matrix.name, *([config.task.subset] if config.task.subset else [])]
    return folder / ("_".join(words) + ".json")


def check(baseline: Baseline, cells: Sequence[CellResult], *, exact: bool, flip_rate: float) -> list[CellCheck]:
    """One verdict per cell of the baseline, and per cell that it does not have.

    Args:
        baseline: the stored answers.
        cells: what is there now.
        exact: every text, letter and number of kept tokens must be the stored one; else answers may flip between
            right and wrong as often as ``flip_rate`` explains.
        flip_rate: share of answers that flip between two runs of unchanged code.
    """
    checks, used = [], set()
    for stored in baseline.cells:
        cell = next((c for c in cells if setting_key(c.cell) == stored.key), None)
        if cell is None:
            checks.append(_without_cell(stored, cells, used))
            continue
        used.add(cell.id)
        checks.append(_check_cell(baseline, stored, cell, exact, flip_rate, ALPHA / len(baseline.cells)))
    for cell in cells:
        if cell.id not in used:
            reason = "the baseline does not have it: python -m harness check --update-baseline"
            checks.append(CellCheck(cell.id, INCOMPLETE, reason))
    return checks


def _check_cell(
    baseline: Baseline, stored: StoredCell, cell: CellResult, exact: bool, rate: float, alpha: float
) -> CellCheck:
    found = stored.compare(cell)
    drift = drifted(baseline, stored, cell)
    details = [_change(question, stored, cell) for question in found.changed[:5]]
    if found.missing:
        reason = f"{len(found.missing)} of {found.n} questions are not answered: python -m harness run"
        return CellCheck(cell.id, INCOMPLETE, reason, found, details)
    problem = _problem(found, exact, rate, alpha)
    if problem and drift and not found.unknown:
        return CellCheck(cell.id, DRIFT, f"{problem}; {'; '.join(drift)}", found, details)
    if problem:
        return CellCheck(cell.id, REGRESSION, problem, found, details)
    note = f"; although {'; '.join(drift)}" if drift else ""
    return CellCheck(cell.id, PASS, f"{found.summary}{note}", found, details)


def _problem(found: Comparison, exact: bool, rate: float, alpha: float) -> str:
    """Why a complete cell does not pass; empty when it does."""
    if found.unknown:
        return f"{len(found.unknown)} questions are unknown to the baseline, the first is {found.unknown[0]}"
    if found.newly_failed:
        return f"{len(found.newly_failed)} answers failed that had not, the first is {found.newly_failed[0]}"
    if exact:
        return "" if found.equal else f"{found.summary}; they must be equal"
    from scipy.stats import binom, binomtest

    too_many = float(binom.sf(found.flips - 1, found.n, rate)) if found.flips else 1.0
    if too_many < alpha:
        return f"{found.flips} of {found.n} answers flipped; a flip rate of {rate:.3g} does not explain that"
    worse = binomtest(len(found.lost), found.flips, 0.5, alternative="greater").pvalue if found.flips else 1.0
    if worse < alpha:
        return f"{len(found.lost)} answers lost and {len(found.gained)} gained: worse, not noise (p = {worse:.2g})"
    return ""


def drifted(baseline: Baseline, stored: StoredCell, cell: CellResult) -> list[str]:
    """What of the environment changed since the baseline: versions, device, attention, weights."""
    manifest = cell.manifest
    starts = [vars(manifest), *manifest.starts]
    then = baseline.provenance
    changes = []
    for name, version in then.get("versions", {}).items():
        now = {start.get("versions", {}).get(name, version) for start in starts}
        changes += [f"{name} {version} -> {other}" for other in sorted(now - {version})]
    for key in ("device", "attention_backend"):
        now = {str(start.get(key)) for start in starts if start.get(key) is not None}
        changes += [f"{key} {then.get(key)} -> {other}" for other in sorted(now - {str(then.get(key))})]
    if cell.cell.get("weights") != stored.weights:
        changes.append(f"weights {stored.weights} -> {cell.cell.get('weights')}")
    return changes


def _without_cell(stored: StoredCell, cells: Sequence[CellResult], used: set[str]) -> CellCheck:
    """The baseline's cell is not there: another setting of the same row is a change, nothing at all is incomplete."""
    for cell in cells:
        key = setting_key(cell.cell)
        if cell.id not in used and all(_at(key, path) == _at(stored.key, path) for path in NEAR):
            changed = differing(stored.key, key)
            if all(line.startswith(("context", "video.fps", "video.max_frames")) for line in changed):
                continue  # another cell of the same ladder, not the same one changed
            used.add(cell.id)
            found = stored.compare(cell)
            reason = f"setting changed: {', '.join(changed)}; {found.summary}"
            return CellCheck(cell.id, REGRESSION, reason, found)
    return CellCheck(stored.id, INCOMPLETE, "was not run: python -m harness run")


def _why_absent(name: str, stored: Sequence[CellResult]) -> str:
    """Why a wanted cell is not there: never run, or run with other code, weights or prompts (another digest)."""
    readable = name.rpartition("-")[0]
    if any(cell.id.rpartition("-")[0] == readable for cell in stored):
        return "was run with other code, weights, prompts or settings only: python -m harness run"
    return "was not run: python -m harness run"


def _at(key: dict[str, Any], path: str) -> Any:
    group, name = path.split(".")
    return key.get(group, {}).get(name)


def _change(question: str, stored: StoredCell, cell: CellResult) -> str:
    then, now = stored.answers[question], answer_rows(cell)[question]
    if (then[TEXT], then[KEPT]) == (now[TEXT], now[KEPT]):
        return f"{question}: {then[TEXT]!r} as before, with its {now[KEPT]} kept tokens in other layers or chunks"
    return f"{question}: {then[TEXT]!r} with {then[KEPT]} tokens kept -> {now[TEXT]!r} with {now[KEPT]}"


def as_record(path, baseline, cells, checks, verdict, exact, rate) -> dict[str, Any]:
    """Content of ``check.json``."""
    return {
        "schema": 1,
        "baseline": path.name,
        "verdict": verdict,
        "exit_code": EXIT[verdict],
        "mode": "exact" if exact else "flips",
        "flip_rate": rate,
        "provenance": {
            "baseline": baseline.provenance,
            "now": [{"cell": c.id, "versions": c.manifest.versions, "git": c.manifest.git} for c in cells],
        },
        "cells": [
            {
                "cell": c.name,
                "verdict": c.verdict,
                "reason": c.reason,
                "details": c.details,
                **({} if c.comparison is None else {k: v for k, v in vars(c.comparison).items()}),
            }
            for c in checks
        ],
    }


def _text(path: Path, checks: Sequence[CellCheck], verdict: str, exact: bool, rate: float | None) -> str:
    mode = "exact" if exact else f"flips, rate {rate:.3g}"
    lines = [f"{path.stem} ({mode})"]
    for c in checks:
        lines.append(f"  {c.verdict:17} {c.name}: {c.reason}")
        if c.verdict != PASS:
            lines += [f"    {detail}" for detail in c.details]
    return "\n".join([*lines, f"verdict: {verdict} (exit {EXIT[verdict]})"])
