"""The verb ``report``: every table, interval and verdict from the stored answers, on the terminal and as files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.report import exports
from harness.report.baseline import Baseline, load_baselines
from harness.report.cells import CellResult, load_cells
from harness.report.config import ReportConfig
from harness.report.current import current_ids, newest
from harness.report.expected import Table, load_tables
from harness.report.reasons import why_not
from harness.report.tables import claims, compact, differences, markdown, numbers, scores, show
from harness.report.verdicts import (
    CANNOT_TELL,
    DIFFERS,
    REPRODUCED,
    ClaimVerdict,
    NumberVerdict,
    judge_claims,
    judge_numbers,
    verdict_counts,
)
from harness.store import write_atomic

WIDTH = 150
"""Columns to print when the output is no terminal."""


@dataclass(frozen=True)
class Findings:
    """Everything the report says, before it is written in any form."""

    cells: list[CellResult]
    tables: list[Table]
    baselines: list[Baseline]
    numbers: list[NumberVerdict]
    claims: list[ClaimVerdict]


def main(config: Any) -> int:
    """Print the configured matrix's table and write the whole report.

    Files, in ``report.output``: ``report.md``; ``scores.csv``, ``numbers.csv``, ``claims.csv``; ``tables/*.md`` and
    ``*.tex``, the published tables with our numbers beside; with ``report.html`` on also ``report.html`` and
    ``figures/*.svg`` and ``*.png``.

    Returns:
        0, or 1 when there is no cell to report.
    """
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    settings: ReportConfig = config.report
    cells = load_cells(config.results, settings.cells)
    if not cells:
        console.print(f"{config.results}/runs holds no cell yet: python -m harness run")
        return 1
    found = find(cells, settings)
    wanted = [] if settings.cells else current_ids(config)
    shown = in_order(cells, wanted) or cells
    print_findings(found, shown, settings, console)
    written = write_files(found, settings)
    others = len(cells) - len(shown)
    more = f" ({others} cells of other matrices are in it too)" if others else ""
    console.print(f"report: {written}{more}", soft_wrap=True)
    return 0


def find(cells: list[CellResult], settings: ReportConfig) -> Findings:
    """Judge every published number and claim by these cells; of cells with the same setting, by the newest."""
    tables, judging = load_tables(settings.expected), newest(cells)
    number_verdicts, claim_verdicts = judge_numbers(tables, judging, settings), judge_claims(tables, judging, settings)
    return Findings(cells, tables, load_baselines(settings.baselines), number_verdicts, claim_verdicts)


def print_findings(found: Findings, shown: Sequence[CellResult], settings: ReportConfig, console: Any) -> None:
    """The terminal's part of the report: scores and differences of ``shown``, and every verdict there is."""
    show(compact(scores(shown, found.tables, found.baselines, settings), shown), console)
    if (pairs := differences(shown, settings)).rows:
        show(pairs, console, leave_out=("model", "setting"))
    if all(cell.toy for cell in shown):
        return
    judged = [v for v in found.numbers if v.verdict in (REPRODUCED, DIFFERS, CANNOT_TELL)]
    if judged:
        show(numbers(judged, settings), console, leave_out=("published setting",))
    if judged_claims := [v for v in found.claims if v.difference is not None]:
        show(claims(judged_claims, settings), console, leave_out=("p", "needed n"))
    console.print(f"published numbers: {verdict_counts(found.numbers)}")
    console.print(f"published claims: {verdict_counts(found.claims)}")


def write_files(found: Findings, settings: ReportConfig) -> str:
    """Write every file of the report; returns the name of the one to open first."""
    output = Path(settings.output)
    write_atomic(output / "report.md", report_markdown(found, settings))
    write_atomic(output / "scores.csv", exports.scores_csv(found.cells, settings))
    write_atomic(output / "numbers.csv", exports.grid_csv(numbers(found.numbers, settings)))
    write_atomic(output / "claims.csv", exports.grid_csv(claims(found.claims, settings)))
    for table in found.tables:
        write_atomic(output / "tables" / f"{table.name}.md", exports.published_markdown(table, found.numbers, settings))
        write_atomic(output / "tables" / f"{table.name}.tex", exports.published_latex(table, found.numbers, settings))
    if not settings.html:
        return f"{output}/report.md"
    from harness.report.figures import draw_all, png, svg  # matplotlib is slow to import
    from harness.report.html import page

    figures = draw_all(found.cells, found.tables, found.baselines, settings)
    for name, (figure, _) in figures.items():
        write_atomic(output / "figures" / f"{name}.svg", svg(figure))
        write_atomic(output / "figures" / f"{name}.png", png(figure))
    text = page(found.cells, found.tables, found.baselines, found.numbers, found.claims, figures, settings)
    write_atomic(output / "report.html", text)
    return f"{output}/report.html, report.md"


def report_markdown(found: Findings, settings: ReportConfig) -> str:
    """The report as Markdown."""
    parts = ["# Report\n", markdown(scores(found.cells, found.tables, found.baselines, settings))]
    parts.append(markdown(differences(found.cells, settings)))
    parts.append(markdown(numbers(found.numbers, settings)))
    parts.append(markdown(claims(found.claims, settings)))
    if open_cells := why_not(found.numbers):
        parts.append("## Why not?\n")
        for cell, verdicts, listed in open_cells:
            parts.append(f"### {cell.id}\n")
            parts += [f"- {v.verdict}: {v.published.text} in table {v.published.table}. {v.reason}" for v in verdicts]
            parts += [f"- {reason.topic}: {reason.text}" for reason in listed]
            parts.append("")
    return "\n".join(parts)


def in_order(cells: Sequence[CellResult], ids: Sequence[str]) -> list[CellResult]:
    """The cells with these ids, in that order."""
    by_id = {cell.id: cell for cell in cells}
    return [by_id[name] for name in ids if name in by_id]
