"""The tables of the report as plain rows, and the same rows on a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.baseline import Baseline
from harness.report.cells import CellResult
from harness.report.config import ReportConfig
from harness.report.expected import Published, Table
from harness.report.measures import estimate, main_metric, paired
from harness.report.verdicts import ClaimVerdict, NumberVerdict, judge_cell


@dataclass(frozen=True)
class Grid:
    """A table ready to print: title, headings, rows of text, notes under it."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()
    numeric: tuple[int, ...] = ()
    """Columns that are aligned right."""


SCORES = ["benchmark", "metric", "model", "method", "protocol", "frames", "fps", "context", "score", "95 % interval"]
SCORES += ["n", "failed", "unparsed", "missing", "expected", "verdict"]
SETTING = ("protocol", "frames", "fps", "context")


def scores(cells: Sequence[CellResult], tables: list[Table], baselines: list[Baseline], config: ReportConfig) -> Grid:
    """One row per cell on its benchmark's published metric."""
    rows = [_score_row(cell, tables, baselines, config) for cell in cells]
    headings = [h if h != "95 % interval" else f"{100 * config.confidence:g} % interval" for h in SCORES]
    notes = [
        "score: percent; failed and unparsed answers count as wrong, missing ones nowhere.",
        "interval: clustered by video; a macro average (m_avg) by resampling videos; all right or all wrong: Wilson "
        "with one observation per video.",
        f"verdict on a published number: margin {config.margin:g} points, confidence {100 * config.confidence:g} %; "
        "toy cells are compared with the committed baseline only.",
    ]
    return Grid("Scores", headings, rows, tuple(notes), numeric=(5, 6, 7, 8, 9, 10, 11, 12, 13, 14))


def _score_row(cell: CellResult, tables: list[Table], baselines: list[Baseline], config: ReportConfig) -> list[str]:
    setting, metric = cell.setting, main_metric(cell.benchmark)
    found = estimate(cell, metric, config)
    expected, verdict = expectation(cell, tables, baselines, config)
    score = "-" if found is None else f"{found.value:.1f}"
    task = cell.task if setting["subset"] == "none" else f"{cell.task} ({setting['subset']})"
    return [
        task,
        metric,
        setting["model"],
        cell.method_title,
        cell.cell["task"]["protocol"],
        str(setting["frames"]),
        f"{setting['fps']:g}",
        str(setting["context"]),
        score if cell.complete else f"{score} (incomplete)",
        "-" if found is None else interval_text(found.interval(config.confidence)),
        str(cell.n),
        str(cell.failed),
        str(cell.unparsed),
        str(cell.missing),
        expected,
        verdict,
    ]


def expectation(
    cell: CellResult, tables: list[Table], baselines: list[Baseline], config: ReportConfig
) -> tuple[str, str]:
    """What a cell's main score should be, and the verdict: from the toy's baseline, or from the published tables."""
    metric = main_metric(cell.benchmark)
    if cell.toy:
        for baseline in baselines:
            if (stored := baseline.find(cell)) is not None:
                return f"{stored.score[metric]:.1f}", stored.compare(cell).summary if cell.complete else "incomplete"
        return "-", "no baseline" if cell.complete else "incomplete"
    found = [judge_cell(cell, published, config) for published in matching_numbers(cell, tables)]
    if not found:
        return "-", "no published number at this setting" if cell.complete else "incomplete"
    expected = ", ".join(f"{v.published.text} ({v.published.table})" for v in found)
    words = "; ".join(dict.fromkeys(v.verdict if cell.complete else "incomplete" for v in found))
    return expected, words


def matching_numbers(cell: CellResult, tables: list[Table]) -> list[Published]:
    """Published numbers of the cell's main metric at exactly its setting; none for a toy cell."""
    if cell.toy:
        return []
    numbers = [published for table in tables for published in table.numbers.values() if not published.quoted]
    metric = main_metric(cell.benchmark)
    return [number for number in numbers if number.metric == metric and not number.differences(cell)]


def reference(cell: CellResult, cells: Sequence[CellResult]) -> CellResult | None:
    """The sibling that a cell's paired difference is taken against: ``no_both`` of its semantics, else uncompressed."""
    same = ("model", "task", "split", "subset", "protocol", "frames", "fps")
    siblings = [c for c in cells if c is not cell and all(c.setting[k] == cell.setting[k] for k in same)]
    if cell.variant in ("none", "no_both") and cell.setting["method"] != "random":
        choices = [c for c in siblings if c.variant == "none"] if cell.variant == "no_both" else []
    else:
        choices = [
            c
            for c in siblings
            if c.variant == "no_both"
            and c.setting["method"] == "adaretake"
            and c.setting["context"] == cell.setting["context"]
            and c.setting.get("semantics") == cell.setting.get("semantics")
        ] or [c for c in siblings if c.variant == "none"]
    return max(choices, key=lambda c: c.manifest.created, default=None)


def differences(cells: Sequence[CellResult], config: ReportConfig) -> Grid:
    """Paired differences between sibling cells, question by question."""
    rows = []
    for cell in cells:
        other = reference(cell, cells)
        found = paired(cell, other, config=config) if other is not None else None
        if found is None:
            continue
        setting = cell.setting
        rows.append(
            [
                cell.task,
                setting["model"],
                f"{setting['frames']} frames, {setting['fps']:g} fps, context {setting['context']}",
                *_sides(cell, other),
                f"{found.value:+.2f}",
                interval_text(found.interval(config.confidence), sign=True),
                p_text(found.p),
                str(found.gained),
                str(found.lost),
                str(found.n),
            ]
        )
    interval = f"{100 * config.confidence:g} % interval"
    headings = ["benchmark", "model", "setting", "a", "b", "a - b", interval, "p", "only a right", "only b right", "n"]
    note = "Paired on the questions that both cells answered, clustered by video; no correction for many comparisons."
    return Grid("Paired differences between sibling cells", headings, rows, (note,), numeric=(5, 6, 7, 8, 9, 10))


def _sides(a: CellResult, b: CellResult) -> tuple[str, str]:
    """Names of two siblings; method and semantics are said once, with the first."""
    same = all(a.setting.get(key) == b.setting.get(key) for key in ("method", "semantics"))
    return a.method_title, b.variant if same else b.method_title


def numbers(verdicts: list[NumberVerdict], config: ReportConfig) -> Grid:
    """One row per published number."""
    rows = []
    for v in verdicts:
        ours = "-" if v.estimate is None else f"{v.estimate.value:.1f}"
        interval = "-" if v.estimate is None else interval_text(v.estimate.interval(config.confidence))
        setting = v.published.setting
        rows.append(
            [
                v.published.table,
                v.published.title,
                v.published.column,
                "; ".join(f"{k} {setting[k]}" for k in ("semantics", "frames", "fps", "context") if k in setting),
                v.published.text,
                ours,
                interval,
                v.verdict,
                v.reason,
            ]
        )
    margin = f"Equivalence margin {config.margin:g} points (report.margin), confidence {100 * config.confidence:g} %."
    headings = ["table", "row", "column", "published setting", "published", "ours", "interval", "verdict", "why"]
    return Grid("Published numbers", headings, rows, (margin,), numeric=(4, 5, 6))


def claims(verdicts: list[ClaimVerdict], config: ReportConfig) -> Grid:
    """One row per published claim."""
    rows = []
    for v in verdicts:
        found = v.difference
        rows.append(
            [
                v.claim.id if not v.claim.each else f"{v.claim.id} {v.columns[0]}",
                v.claim.text,
                "-" if v.claim.published is None else f"{v.claim.published:+.2f}",
                "-" if found is None else f"{found.value:+.2f}",
                "-" if found is None else interval_text(found.interval(config.confidence), sign=True),
                "-" if found is None else p_text(found.p),
                "-" if v.p_holm is None else p_text(v.p_holm),
                "-" if found is None else f"{found.gained} / {found.lost}",
                "-" if v.needed is None else str(v.needed),
                v.verdict,
                v.reason,
            ]
        )
    notes = (
        f"A claim of no effect holds within {config.neutral_margin:g} points (report.neutral_margin).",
        f"needed n: questions that show the published effect with power {config.power:g} at this flip rate; Holm: "
        "corrected for the judged claims of the table.",
    )
    headings = ["claim", "text", "published", "ours", "interval", "p", "p (Holm)", "flips +/-", "needed n"]
    return Grid("Published claims", [*headings, "verdict", "why"], rows, notes, numeric=(2, 3, 4, 5, 6, 7, 8))


def markdown(grid: Grid) -> str:
    """A grid as a Markdown section."""
    marks = ["---:" if i in grid.numeric else "---" for i in range(len(grid.headings))]
    lines = [f"## {grid.title}", "", _row(grid.headings), _row(marks), *map(_row, grid.rows)]
    return "\n".join([*lines, "", *(f"- {note}" for note in grid.notes), ""])


def compact(grid: Grid, cells: Sequence[CellResult]) -> Grid:
    """The score table for a terminal: setting in one column, counts only where they are not all zero."""
    silent = {name for name in ("failed", "unparsed", "missing") if not any(getattr(c, name) for c in cells)}
    kept = [i for i, h in enumerate(grid.headings) if h not in {*SETTING, "metric", "model", *silent}]
    first = kept.index(grid.headings.index("method")) + 1
    index = {name: grid.headings.index(name) for name in ("model", *SETTING)}
    several = len({row[index["model"]] for row in grid.rows}) > 1
    rows = []
    for row in grid.rows:
        protocol, frames, fps, context = (row[index[name]] for name in SETTING)
        setting = f"{protocol}, {frames} frames, {fps} fps, context {context}"
        setting = f"{row[index['model']]}, {setting}" if several else setting
        values = [row[i] for i in kept]
        rows.append([*values[:first], setting, *values[first:]])
    headings = [grid.headings[i] for i in kept]
    headings = [*headings[:first], "setting", *headings[first:]]
    left = {"benchmark", "method", "setting", "verdict"}
    numeric = tuple(i for i, h in enumerate(headings) if h not in left)
    title = grid.title if several or not grid.rows else f"{grid.title}, {grid.rows[0][index['model']]}"
    return Grid(title, headings, rows, grid.notes, numeric)


def show(grid: Grid, console: Any, leave_out: Sequence[str] = ()) -> None:
    """Print a grid on a terminal.

    Args:
        grid: what to print.
        console: a ``rich.console.Console``.
        leave_out: headings of columns to drop for width.
    """
    from rich import box
    from rich.table import Table as RichTable

    table = RichTable(title=grid.title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, expand=False)
    kept = [i for i, heading in enumerate(grid.headings) if heading not in leave_out]
    for i in kept:
        table.add_column(grid.headings[i], justify="right" if i in grid.numeric else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*(row[i].replace("[", r"\[") for i in kept))
    console.print(table)


def interval_text(interval: tuple[float, float], sign: bool = False) -> str:
    """``61.2 to 68.4``."""
    low, high = interval
    return f"{low:+.1f} to {high:+.1f}" if sign else f"{low:.1f} to {high:.1f}"


def p_text(p: float) -> str:
    """A p value with three digits, never zero."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _row(values: Sequence[str]) -> str:
    return "| " + " | ".join(value.replace("|", r"\|").replace("\n", " ") for value in values) + " |"
