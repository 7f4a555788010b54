"""The report as files: Markdown, one static HTML page, and the published tables with our numbers beside theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.evidence.cells import CellResult
from harness.evidence.section import interval_text, plain
from harness.report.account import Entry, section
from harness.report.reasons import why_not
from harness.report.scores import ScoreRow
from harness.report.tables import claims, costs, differences, numbers, over_context, scores
from harness.verdicts import power, spread
from harness.verdicts.claims import CONTRADICTED, HOLDS, ClaimVerdict
from harness.verdicts.context import Context
from harness.verdicts.expected import PublishedTable
from harness.verdicts.pairs import Pair, Rung
from harness.verdicts.verdicts import (
    DIFFERS,
    JUDGED,
    NOT_COMPARABLE,
    NOT_RUN,
    REPRODUCED,
    NumberVerdict,
    verdict_counts,
)

TEMPLATE = Path(__file__).with_name("report.html.j2")
GOOD = (REPRODUCED, HOLDS, "equals baseline")
BAD = (DIFFERS, CONTRADICTED, "answers changed", "other questions")
Figures = dict[str, tuple[str, str]]
"""Name -> (SVG, caption)."""


@dataclass(frozen=True)
class Findings:
    """Everything the report says, before it is written in any form."""

    context: Context
    rows: list[ScoreRow]
    pairs: list[Pair]
    rungs: list[Rung]
    entries: list[Entry]
    numbers: list[NumberVerdict]
    claims: list[ClaimVerdict]


def markdown(found: Findings) -> str:
    """The report as Markdown."""
    settings = found.context.settings
    sections = [
        scores(found.rows, settings),
        over_context(found.rungs, found.pairs, settings),
        section(found.entries, settings.confidence),
        differences(found.pairs, settings),
        numbers(found.numbers, settings),
        claims(found.claims, settings),
        power.section(found.context),
        spread.section(found.context),
    ]
    parts = ["# Report\n", *(section.markdown() for section in sections if len(section.frame) or section.remarks)]
    for place, (cell, verdicts, listed) in enumerate(why_not(found.numbers)):
        parts += ["## Why not?\n"] if place == 0 else []
        parts.append(f"### {cell.id}\n")
        parts += [f"- {v.verdict}: {v.published.text} in table {v.published.table}. {v.reason}" for v in verdicts]
        parts += [f"- {reason.topic}: {reason.text}" for reason in listed]
        parts.append("")
    return plain("\n".join(parts))


def html(found: Findings, figures: Figures) -> str:
    """The whole report as the text of one HTML file: no script, no request to anywhere."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["tone"] = tone
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    context, settings = found.context, found.context.settings
    judged = [v for v in found.numbers if v.verdict in JUDGED]
    incomparable = [v for v in found.numbers if v.verdict == NOT_COMPARABLE]
    judged_claims = [v for v in found.claims if v.verdict != NOT_RUN]
    cells = context.cells
    text = template.render(
        confidence=f"{100 * settings.confidence:g}",
        settings=settings,
        groups=[
            (title, _scale(bars), bars)
            for title, toy in (("Models", False), ("Embedded toy", True))
            if (bars := [_bar(row, settings.confidence) for row in found.rows if row.cell.toy == toy])
        ],
        remarks=scores(found.rows, settings).remarks,
        ladder=over_context(found.rungs, found.pairs, settings),
        account=section(found.entries, settings.confidence),
        pairs=differences(found.pairs, settings),
        numbers=numbers(judged, settings),
        incomparable=numbers(incomparable, settings),
        numbers_left=len(found.numbers) - len(judged) - len(incomparable),
        numbers_summary=verdict_counts([v.verdict for v in found.numbers]),
        claims=claims(judged_claims, settings),
        claims_left=len(found.claims) - len(judged_claims),
        claims_summary=verdict_counts([v.verdict for v in found.claims]),
        power=power.section(context),
        spread=spread.section(context),
        reasons=why_not(found.numbers),
        figures=figures,
        costs=costs(context),
        table_notes=[(table.id, table.title, note) for table in context.tables for note in table.notes],
        provenance=_provenance(cells),
        totals={
            "cells": len(cells),
            "complete": sum(cell.complete for cell in cells),
            "answers": sum(cell.n - cell.missing for cell in cells),
            "failed": sum(cell.failed for cell in cells),
            "missing": sum(cell.missing for cell in cells),
        },
    )
    return plain(text)


def tone(verdict: str) -> str:
    """Class of a verdict's colour: good, bad or open."""
    if any(word in verdict for word in BAD):
        return "bad"
    return "good" if any(verdict.startswith(word) for word in GOOD) else "open"


def _bar(row: ScoreRow, confidence: float) -> dict[str, Any]:
    """A row of the score table with the ends of its interval for the bar."""
    found, cell = row.estimate, row.cell
    low, high = found.interval(confidence) if found is not None else (0.0, 0.0)
    counts = {"failed": cell.failed, "unparsed": cell.unparsed, "missing": cell.missing}
    return {
        "row": row,
        "cell": cell,
        "setting": cell.setting,
        "value": None if found is None else found.value,
        "interval": "-" if found is None else interval_text((low, high)),
        "low": low,
        "high": high,
        "counts": {name: count for name, count in counts.items() if count},
    }


def _scale(bars: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Ends of the bars' common scale in percent, on multiples of its step."""
    shown = [bar for bar in bars if bar["value"] is not None]
    known = [x for bar in shown for x in (bar["low"], bar["high"], *bar["row"].marks)] or [0, 100]
    step = 5 if max(known) - min(known) < 35 else 20
    return {"low": int(min(known) // step * step), "high": int(-(-max(known) // step) * step), "step": step}


def _provenance(cells: Sequence[CellResult]) -> list[tuple[str, str]]:
    """What the answers were made with: values that occur, joined."""
    facts: dict[str, dict[str, None]] = {}
    for cell in cells:
        manifest = cell.manifest
        commit = f"{manifest.git.get('commit')}{' (dirty)' if manifest.git.get('dirty') else ''}"
        found = {"commit": commit, "device": manifest.device, "attention": manifest.attention_backend}
        for name, value in {**found, **manifest.versions}.items():
            facts.setdefault(name, {})[str(value)] = None
    return [(name, ", ".join(values)) for name, values in facts.items()]


def published_table(table: PublishedTable, verdicts: Sequence[NumberVerdict], confidence: float) -> pd.DataFrame:
    """A published table in its own shape: per column of its own one of theirs and one of ours ("-": not run)."""
    ours = _ours(table, verdicts)
    rows = []
    for row in table.rows:
        cells: dict[tuple[str, str], str] = {}
        values = []
        for column, about in table.columns.items():
            number, found = table.numbers.get((row["id"], column)), ours.get((row["id"], column))
            cells[about["title"], "published"] = "-" if number is None else number.text
            cells[about["title"], "ours"] = "-"
            if found is not None and found.estimate is not None:
                low, high = found.estimate.interval(confidence)
                values.append(found.estimate.value)
                cells[about["title"], "ours"] = f"{found.estimate.value:.{table.digits}f} ± {(high - low) / 2:.1f}"
        if any("published_mean" in other for other in table.rows):
            mean = f"{sum(values) / len(values):.{table.digits}f}" if len(values) == len(table.columns) else "-"
            theirs = row.get("published_mean")
            cells["avg", "published"] = "-" if theirs is None else f"{theirs:.{table.digits}f}"
            cells["avg", "ours"] = mean
        rows.append(cells)
    frame = pd.DataFrame(rows, index=[row.get("title", row["id"]) for row in table.rows])
    frame.columns = pd.MultiIndex.from_tuples(list(rows[0]))
    return frame


def published_markdown(table: PublishedTable, frame: pd.DataFrame) -> str:
    """A published table as Markdown, ours behind theirs."""
    flat = frame.set_axis([f"{column[0]}, {column[1]}" for column in frame.columns], axis=1)
    head = f"### {table.id}. {table.title}\n\nSource: {table.source}. Ours with half its interval.\n\n"
    notes = "".join(f"\n- {note}" for note in table.notes)
    return f"{head}{flat.to_markdown(disable_numparse=True)}\n{notes}\n"


def published_latex(table: PublishedTable, frame: pd.DataFrame) -> str:
    """A published table as a booktabs tabular."""
    head = f"% {table.id}. {table.title}. Source: {table.source}. Needs \\usepackage{{booktabs}}.\n"
    body = frame.to_latex(escape=True, multicolumn_format="c", column_format="l" + "r" * len(frame.columns))
    return head + body.replace("±", r"$\pm$")


def _ours(table: PublishedTable, verdicts: Sequence[NumberVerdict]) -> dict[tuple[str, str], NumberVerdict]:
    """Our number for each of the table's, where a cell of its setting was run; the newest cell's."""
    found: dict[tuple[str, str], NumberVerdict] = {}
    for v in verdicts:
        if v.published.table != table.id or v.verdict not in JUDGED or v.cell is None:
            continue
        held = found.get((v.published.row, v.published.column))
        if held is None or held.cell is None or v.cell.manifest.created > held.cell.manifest.created:
            found[v.published.row, v.published.column] = v
    return found
