"""The verb ``report``: every table, interval and verdict from the stored answers, on the terminal and as files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.report.baseline import load_baselines
from harness.report.cells import CellResult, load_cells
from harness.report.current import current_ids
from harness.report.expected import load_tables
from harness.report.tables import Grid, claims, compact, differences, markdown, numbers, scores, show, verdict_counts
from harness.report.verdicts import CANNOT_TELL, DIFFERS, REPRODUCED, judge_claims, judge_numbers
from harness.store import write_atomic

WIDTH = 150
"""Columns to print when the output is no terminal."""


def main(config: Any) -> int:
    """Print the current matrix's table and write the whole report.

    Args:
        config: the composed configuration (``results``, ``report``; the matrix says which cells come first).

    Returns:
        0, or 1 when there is no cell to report.
    """
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    settings = config.report
    cells = load_cells(config.results, settings.cells)
    if not cells:
        console.print(f"{config.results}/runs holds no cell yet: python -m harness run")
        return 1
    tables, baselines = load_tables(settings.expected), load_baselines(settings.baselines)
    number_verdicts, claim_verdicts = judge_numbers(tables, cells, settings), judge_claims(tables, cells, settings)

    wanted = [] if settings.cells else current_ids(config)
    shown = in_order(cells, wanted) or cells
    show(compact(scores(shown, tables, baselines, settings), shown), console)
    if (pairs := differences(shown, settings)).rows:
        show(pairs, console, leave_out=("model", "setting"))
    if any(not cell.toy for cell in cells):
        judged = [v for v in number_verdicts if v.verdict in (REPRODUCED, DIFFERS, CANNOT_TELL)]
        if judged:
            show(numbers(judged, settings), console, leave_out=("published setting",))
        if judged_claims := [v for v in claim_verdicts if v.difference is not None]:
            show(claims(judged_claims, settings), console, leave_out=("p", "needed n"))
        console.print(f"published numbers: {verdict_counts(number_verdicts)}")
        console.print(f"published claims: {verdict_counts(claim_verdicts)}")

    output = Path(settings.output)
    grids: list[Grid] = [scores(cells, tables, baselines, settings), differences(cells, settings)]
    grids += [numbers(number_verdicts, settings), claims(claim_verdicts, settings)]
    text = "\n".join(["# Report", "", *map(markdown, grids)])
    write_atomic(output / "report.md", text)
    others = len(cells) - len(shown)
    console.print(f"{output}/report.md" + (f" ({others} more cells in it)" if others else ""))
    return 0


def in_order(cells: Sequence[CellResult], ids: Sequence[str]) -> list[CellResult]:
    """The cells with these ids, in that order."""
    by_id = {cell.id: cell for cell in cells}
    return [by_id[name] for name in ids if name in by_id]
