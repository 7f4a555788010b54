"""The verb ``check``: the stored answers of a matrix against a committed baseline, question by question."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from harness.advice import harness
from harness.errors import UserError
from harness.evidence.cells import CellResult
from harness.evidence.loading import choose, newest
from harness.evidence.section import plain
from harness.gate import CheckConfig
from harness.gate.baseline import (
    Baseline,
    baseline_folder,
    baseline_text,
    make_baseline,
    provenance,
    read_baseline,
)
from harness.gate.compare import (
    DRIFT,
    INCOMPLETE,
    PASS,
    REGRESSION,
    CellCheck,
    KnownNoise,
    Noise,
    check_cells,
    compare,
    stored_flips,
)
from harness.places import INSTALLED
from harness.settings.groups import Config
from harness.settings.matrix import build_cells, ids_under
from harness.store import write_atomic

EXIT = {PASS: 0, REGRESSION: 1, INCOMPLETE: 2, DRIFT: 3}
MOST_FLIPS = 0.2
"""Share of answers of unchanged code that may turn right or wrong; measured are 0.001 to 0.03."""
ORDER = (REGRESSION, INCOMPLETE, DRIFT, PASS)
"""Worst first: one cell's regression is not hidden by another that is incomplete."""


def main(config: Config, check: CheckConfig) -> int:
    """Compare the configured matrix's cells with a baseline, or write a new one (``check.update_baseline``).

    Writes ``check.json`` and ``check.xml`` (JUnit) into the report's folder.

    Returns:
        0 pass, 1 regression, 2 incomplete, 3 environment drift.

    Raises:
        UserError: there is no baseline, or it asks for a flip rate that nobody measured.
    """
    named = [config.profile, config.matrix.name, *([config.task.subset] if config.task.subset else [])]
    path = (
        Path(check.baseline) if check.baseline else baseline_path(named, config.report.baselines, check.update_baseline)
    )
    matrix = partial(build_cells, config)
    chosen = choose(config.results, config.report.cells, matrix, ids_under(config.words))
    cells = chosen.cells if chosen.wanted else newest(chosen.stored)
    run = harness("run", config.words)
    absent = {name: _why_absent(name, chosen.stored, run) for name in chosen.absent}
    if check.update_baseline:
        return _update(path, cells, absent, harness("run", config.words), check.exact)
    baseline = read_baseline(path)
    exact = baseline.exact if check.exact is None else check.exact
    noise = None if exact else _noise(path, baseline, check.flip_rate)
    update = harness("check", config.words, "--update-baseline")
    checks = check_cells(baseline, cells, noise=noise, run=run, update=update)
    absent_names = {name.rpartition("-")[0] for name in absent}
    checks = [c for c in checks if c.comparison is not None or c.name not in absent_names]
    checks += [CellCheck(name, INCOMPLETE, reason) for name, reason in absent.items()]
    verdict = next(v for v in ORDER if v == PASS or any(c.verdict == v for c in checks))
    folder, mode = config.report.folder(config.results), "exact" if noise is None else f"flips, {noise.text}"
    record = _record(path, baseline, cells, checks, verdict) | {"mode": mode}
    write_atomic(folder / "check.json", json.dumps(record, indent=1) + "\n")
    write_atomic(folder / "check.xml", junit(path.stem, checks))
    print(plain(_text(path, checks, verdict, mode)))
    for cell in cells:
        if cell.part:
            print(f"note: {cell.id}: {cell.part}")
    print(f"{folder}/check.json, {folder}/check.xml")
    return EXIT[verdict]


def _noise(path: Path, baseline: Baseline, rate: float | None) -> Noise | KnownNoise:
    """What flips between two runs of the same code: the given rate, else what the baseline says was measured.

    Raises:
        UserError: nothing was measured, or so many flips that no check is left.
    """
    if rate is not None:
        return KnownNoise(rate)
    how = "Run the matrix twice into two results folders and update the baseline from the second, or give one: "
    how += "check.flip_rate=0.01"
    measured = baseline.flips_measured
    if baseline.flip_rate is None or not measured:
        raise UserError(f"{path} has no measured flip rate. {how}")
    if baseline.flip_rate > MOST_FLIPS:
        raise UserError(
            f"{path} says that {baseline.flip_rate:.2g} of the answers of unchanged code flip: more than {MOST_FLIPS} "
            f"is no noise, and such a baseline holds nothing. {how}"
        )
    return Noise(measured["flipped_videos"], measured["videos"])


def baseline_path(words: Sequence[str], folder: str, updating: bool = False) -> Path:
    """The file of a baseline: ``<profile>_<matrix>[_<subset>].json``.

    Args:
        words: profile, matrix, and subset where there is one.
        folder: `report.baselines`.
        updating: whether it is about to be written; the baselines of an installed package stay as they came.
    """
    place = Path(folder) if INSTALLED and updating else baseline_folder(folder)
    return place / ("_".join(words) + ".json")


def _why_absent(name: str, stored: Sequence[CellResult], run: str) -> str:
    """Why a wanted cell is not there: never run, or run with other weights, versions or settings (another digest)."""
    if any(cell.id.rpartition("-")[0] == name.rpartition("-")[0] for cell in stored):
        return f"was run with other weights, declared versions or settings only: {run}"
    return f"was not run: {run}"


def _update(path: Path, cells: Sequence[CellResult], absent: Mapping[str, str], run: str, exact: bool | None) -> int:
    """Write ``path`` from complete cells, and say what changes against the file that was there.

    Returns:
        0 when written, 2 when a cell is incomplete or has failed answers: such a baseline would hide what it misses.
    """
    problems = [f"{name}: {reason}" for name, reason in absent.items()]
    problems += [
        f"{cell.id}: {cell.missing} missing, {cell.failed} failed" for cell in cells if cell.missing or cell.failed
    ]
    if not cells:
        problems.append(f"there is no cell: {run}")
    if problems:
        print("no baseline written:", *(f"  {line}" for line in problems), sep="\n", file=sys.stderr)
        return 2
    if exact is None:
        exact = all(cell.manifest.device == "cpu" for cell in cells)
    old = _old(path)
    rate, measured = (None, {}) if old is None else _flip_rate(old, cells)
    write_atomic(path, baseline_text(make_baseline(path.stem, cells, exact, rate, measured)))
    flips = "" if rate is None else f", flip rate {rate:.3g} ({measured['flips']} of {measured['n']} answers"
    if rate is not None:
        flips += f", {measured['flipped_videos']} of {measured['videos']} videos)" if "videos" in measured else ")"
    print(f"{path}: {len(cells)} cells, {sum(cell.n for cell in cells)} answers{flips}")
    if old is not None:
        for cell in cells:
            stored = old.find(cell)
            print(f"  {cell.id}: {'is new' if stored is None else compare(stored, cell).summary}")
    return 0


def _old(path: Path) -> Baseline | None:
    """The baseline that is about to be replaced; None where there is none, or none that can be read."""
    try:
        return read_baseline(path) if path.is_file() else None
    except UserError as error:
        print(f"replaced without a comparison: {error}", file=sys.stderr)
        return None


def _flip_rate(old: Baseline, cells: Sequence[CellResult]) -> tuple[float | None, dict[str, Any]]:
    """Flips between the old baseline and these cells where nothing but the run changed, else as it was measured."""
    flips = n = flipped = videos = 0
    for cell in cells:
        stored = old.find(cell)
        if stored is None or any(cell.cell.get(part) != made for part, made in stored.made_with.items()):
            continue
        if cell.manifest.created == old.provenance.get("answered"):
            continue  # the very same run
        found = compare(stored, cell)
        of_videos = stored_flips(found, cell)
        flips, n = flips + found.flips, n + found.n
        flipped, videos = flipped + len(of_videos.net), videos + of_videos.n_videos
    if not n:
        return old.flip_rate, old.flips_measured
    between = [old.provenance.get("answered"), provenance(cells)["answered"]]
    return flips / n, {"flips": flips, "n": n, "flipped_videos": flipped, "videos": videos, "between": between}


def _record(
    path: Path, baseline: Baseline, cells: Sequence[CellResult], checks: Sequence[CellCheck], verdict: str
) -> dict[str, Any]:
    """Content of ``check.json``."""
    now = [
        {"cell": c.id, "versions": c.manifest.versions, "device": c.manifest.device, "git": c.manifest.git}
        for c in cells
    ]
    return {
        "schema": 2,
        "baseline": path.name,
        "verdict": verdict,
        "exit_code": EXIT[verdict],
        "provenance": {"baseline": baseline.provenance, "now": now},
        "cells": [
            {"cell": c.name, "verdict": c.verdict, "reason": c.reason, "details": c.details}
            | ({} if c.comparison is None else vars(c.comparison))
            for c in checks
        ],
    }


def _text(path: Path, checks: Sequence[CellCheck], verdict: str, mode: str) -> str:
    lines = [f"{path.stem} ({mode})"]
    for c in checks:
        lines.append(f"  {c.verdict:17} {c.name}: {c.reason}")
        if c.verdict != PASS:
            lines += [f"    {detail}" for detail in c.details]
    return "\n".join([*lines, f"verdict: {verdict} (exit {EXIT[verdict]})"])


def junit(name: str, checks: Sequence[CellCheck]) -> str:
    """The verdicts as a JUnit file, which continuous integration shows: one test case per cell.

    A regression is a failure, an incomplete or drifted cell an error.
    """
    failures = sum(c.verdict == REGRESSION for c in checks)
    errors = sum(c.verdict not in (PASS, REGRESSION) for c in checks)
    counts = {"tests": str(len(checks)), "failures": str(failures), "errors": str(errors)}
    suite = ElementTree.Element("testsuite", {"name": f"harness check {name}", **counts})
    for c in checks:
        case = ElementTree.SubElement(suite, "testcase", classname=f"check.{name}", name=c.name)
        if c.verdict != PASS:
            tag = "failure" if c.verdict == REGRESSION else "error"
            problem = ElementTree.SubElement(case, tag, type=c.verdict, message=plain(c.reason))
            problem.text = plain("\n".join(c.details))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"
