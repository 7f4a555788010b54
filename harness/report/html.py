"""The report as one static HTML file: no server, no script, no request to anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.report.baseline import Baseline
from harness.report.cells import CellResult
from harness.report.config import ReportConfig
from harness.report.expected import Table
from harness.report.figures import svg
from harness.report.measures import estimate, main_metric
from harness.report.reasons import why_not
from harness.report.shapes import cost
from harness.report.tables import Grid, claims, differences, expectation, interval_text, matching_numbers, numbers
from harness.report.verdicts import (
    CONTRADICTED,
    DIFFERS,
    HOLDS,
    NOT_COMPARABLE,
    NOT_RUN,
    REPRODUCED,
    ClaimVerdict,
    NumberVerdict,
    verdict_counts,
)

TEMPLATE = Path(__file__).with_name("report.html.j2")
GOOD = (REPRODUCED, HOLDS, "equals baseline")
BAD = (DIFFERS, CONTRADICTED, "answers changed", "other questions")


def page(
    cells: Sequence[CellResult],
    tables: list[Table],
    baselines: list[Baseline],
    number_verdicts: list[NumberVerdict],
    claim_verdicts: list[ClaimVerdict],
    figures: dict[str, tuple[Any, str]],
    config: ReportConfig,
) -> str:
    """The whole report as the text of an HTML file."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["tone"] = tone
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    judged = [v for v in number_verdicts if v.verdict not in (NOT_RUN, NOT_COMPARABLE)]
    incomparable = [v for v in number_verdicts if v.verdict == NOT_COMPARABLE]
    judged_claims = [v for v in claim_verdicts if v.verdict != NOT_RUN]
    return template.render(
        confidence=f"{100 * config.confidence:g}",
        settings=config,
        groups=[
            (title, _scale(rows), rows)
            for title, toy in (("Models", False), ("Embedded toy", True))
            if (rows := [_score(cell, tables, baselines, config) for cell in cells if cell.toy == toy])
        ],
        pairs=differences(cells, config),
        numbers=numbers(judged, config),
        incomparable=numbers(incomparable, config),
        numbers_left=len(number_verdicts) - len(judged) - len(incomparable),
        numbers_summary=verdict_counts(number_verdicts),
        claims=claims(judged_claims, config),
        claims_left=len(claim_verdicts) - len(judged_claims),
        claims_summary=verdict_counts(claim_verdicts),
        reasons=why_not(number_verdicts),
        figures=[(name, svg(figure), caption) for name, (figure, caption) in figures.items()],
        costs=costs_grid(cells),
        table_notes=[(table.id, table.title, note) for table in tables for note in table.notes],
        provenance=_provenance(cells),
        totals={
            "cells": len(cells),
            "complete": sum(cell.complete for cell in cells),
            "answers": sum(cell.n - cell.missing for cell in cells),
            "failed": sum(cell.failed for cell in cells),
            "missing": sum(cell.missing for cell in cells),
        },
    )


def tone(verdict: str) -> str:
    """Class of a verdict's colour: good, bad or open."""
    if any(word in verdict for word in BAD):
        return "bad"
    return "good" if any(verdict.startswith(word) for word in GOOD) else "open"


def costs_grid(cells: Sequence[CellResult]) -> Grid:
    """What one answer of each cell costs on average."""
    rows = []
    for cell in cells:
        spent = cost(cell)
        share = "-" if not spent.kept or not spent.tokens else f"{100 * spent.kept / spent.tokens:.1f} %"
        stages = ", ".join(f"{stage} {value:.2f}" for stage, value in spent.seconds.items())
        rows.append(
            [
                cell.task,
                cell.setting["model"],
                cell.method_title,
                f"{cell.setting['frames']} frames, context {cell.setting['context']}",
                "-" if spent.tokens is None else f"{spent.tokens:.0f}",
                "-" if spent.kept is None else f"{spent.kept:.0f}",
                share,
                "-" if spent.total is None else f"{spent.total:.2f}",
                stages or "-",
                "-" if spent.flops is None else _flops(spent.flops),
                "-" if spent.peak_memory is None else f"{spent.peak_memory / 2**30:.2f} GiB",
            ]
        )
    headings = [
        "benchmark",
        "model",
        "method",
        "setting",
        "prompt tokens",
        "kept",
        "share",
        "seconds",
        "stages",
        "work",
    ]
    note = (
        "Means per answer. kept: cache slots after the prefill, mean over layers. work: floating-point operations of "
        "the language model counted from shapes (chunks of equal length, the guide as long as all text), vision left "
        "out: siblings share it."
    )
    numeric = (4, 5, 6, 7, 9, 10)
    return Grid("Cost of an answer", [*headings, "peak memory"], rows, (note,), numeric)


def _score(cell: CellResult, tables: list[Table], baselines: list[Baseline], config: ReportConfig) -> dict[str, Any]:
    setting, found = cell.setting, estimate(cell, config=config)
    expected, verdict = expectation(cell, tables, baselines, config)
    low, high = found.interval(config.confidence) if found is not None else (0.0, 0.0)
    if cell.toy:
        stored = next((s for b in baselines if (s := b.find(cell)) is not None), None)
        marks = [] if stored is None else [stored.score[main_metric(cell.benchmark)]]
    else:
        marks = [number.score for number in matching_numbers(cell, tables)]
    counts = {"failed": cell.failed, "unparsed": cell.unparsed, "missing": cell.missing}
    return {
        "task": cell.task if setting["subset"] == "none" else f"{cell.task} ({setting['subset']})",
        "metric": main_metric(cell.benchmark),
        "model": setting["model"],
        "method": cell.short_title,
        "semantics": f"{setting['method']} {setting['semantics']}, " if "semantics" in setting else "",
        "protocol": cell.cell["task"]["protocol"],
        "setting": f"{setting['frames']} frames, {setting['fps']:g} fps, context {setting['context']}",
        "score": None if found is None else f"{found.value:.1f}",
        "interval": "-" if found is None else interval_text((low, high)),
        "low": low,
        "high": high,
        "value": None if found is None else found.value,
        "marks": marks,
        "complete": cell.complete,
        "n": cell.n,
        "counts": {name: count for name, count in counts.items() if count},
        "expected": expected,
        "verdict": verdict,
        "id": cell.id,
    }


def _scale(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Ends of the bars' common scale in percent, on multiples of its step."""
    known = [x for row in rows if row["value"] is not None for x in (row["low"], row["high"], *row["marks"])] or [
        0,
        100,
    ]
    step = 5 if max(known) - min(known) < 35 else 20
    return {"low": int(min(known) // step * step), "high": int(-(-max(known) // step) * step), "step": step}


def _provenance(cells: Sequence[CellResult]) -> list[tuple[str, str]]:
    """What the answers were made with: values that occur, joined."""
    facts: dict[str, list[str]] = {}
    for cell in cells:
        manifest = cell.manifest
        commit = f"{manifest.git.get('commit')}{' (dirty)' if manifest.git.get('dirty') else ''}"
        found = {"commit": commit, "device": manifest.device, "attention": manifest.attention_backend}
        for name, value in {**found, **manifest.versions}.items():
            facts.setdefault(name, []).append(str(value))
    return [(name, ", ".join(dict.fromkeys(values))) for name, values in facts.items()]


def _flops(value: float) -> str:
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value / 1e6:.0f} MFLOP"
