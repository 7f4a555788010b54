"""Exports: the tables in the shape of their sources with our column beside it, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from harness.benchmarks.metrics import metrics
from harness.report.cells import CellResult
from harness.report.config import ReportConfig
from harness.report.expected import Table
from harness.report.measures import bootstrap_error, estimate, main_metric
from harness.report.shapes import cost
from harness.report.tables import Grid
from harness.report.verdicts import CANNOT_TELL, DIFFERS, REPRODUCED, NumberVerdict

SPECIAL = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "+": "{+}"}
SPECIAL |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


def published_markdown(table: Table, verdicts: Sequence[NumberVerdict], config: ReportConfig) -> str:
    """A published table in its own shape, ours in bold beside each number that was run."""
    lines = [f"### {table.id}. {table.title}", "", f"Source: {table.source}. Ours in bold, with half its interval.", ""]
    lines.append("| row | " + " | ".join(_titles(table)) + " |")
    lines.append("|---" * (len(_titles(table)) + 1) + "|")
    for title, pairs in _rows(table, verdicts, config):
        values = [theirs + (f" / **{value}**{half}" if value else "") for theirs, value, half in pairs]
        lines.append(f"| {title} | " + " | ".join(values) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def published_latex(table: Table, verdicts: Sequence[NumberVerdict], config: ReportConfig) -> str:
    """A published table as a booktabs tabular, a column of ours beside each of its own."""
    titles = _titles(table)
    n = len(titles)
    lines = [
        f"% {table.id}. {table.title}. Source: {table.source}. Needs \\usepackage{{booktabs}}.",
        r"\begin{tabular}{l" + "rr" * n + "}",
        r"\toprule",
        " & " + " & ".join(rf"\multicolumn{{2}}{{c}}{{{latex(title)}}}" for title in titles) + r" \\",
        " ".join(rf"\cmidrule(lr){{{2 * i + 2}-{2 * i + 3}}}" for i in range(n)),
        " & " + " & ".join(["published & ours"] * n) + r" \\",
        r"\midrule",
    ]
    for title, pairs in _rows(table, verdicts, config):
        values = []
        for theirs, value, half in pairs:
            ours = f"${value}{half.replace('±', chr(92) + 'pm')}$" if value else "--"
            values += ["--" if theirs == "-" else theirs, ours]
        lines.append(f"{latex(title)} & " + " & ".join(values) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def grid_csv(grid: Grid) -> str:
    """Any table of the report as CSV, every value as it is printed."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([grid.headings, *grid.rows])
    return stream.getvalue()


def _titles(table: Table) -> list[str]:
    mean = ["avg"] if any("published_mean" in row for row in table.rows) else []
    return [column["title"] for column in table.columns.values()] + mean


def _rows(
    table: Table, verdicts: Sequence[NumberVerdict], config: ReportConfig
) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Per row its title and, per column, the published text, our value and ``± half its interval`` (empty: not run)."""
    ours = _ours(table, verdicts)
    for row in table.rows:
        pairs, values = [], []
        for column in table.columns:
            number, found = table.numbers.get((row["id"], column)), ours.get((row["id"], column))
            text = "-" if number is None else number.text
            if found is None:
                pairs.append((text, "", ""))
                continue
            low, high = found.estimate.interval(config.confidence)
            values.append(found.estimate.value)
            pairs.append((text, f"{found.estimate.value:.{table.digits}f}", f" ± {(high - low) / 2:.1f}"))
        if "published_mean" in row:
            mean = f"{sum(values) / len(values):.{table.digits}f}" if len(values) == len(table.columns) else ""
            pairs.append((f"{row['published_mean']:.{table.digits}f}", mean, ""))
        yield row.get("title", row["id"]), pairs


def scores_csv(cells: Sequence[CellResult], config: ReportConfig) -> str:
    """One line per cell and metric, every setting in its own column; for a spreadsheet or pandas."""
    rows = []
    for cell in cells:
        main, check, spent = main_metric(cell.benchmark), bootstrap_error(cell, config), cost(cell)
        for metric in metrics(cell.benchmark, cell.items()):
            found = estimate(cell, metric, config)
            if found is None:
                continue
            low, high = found.interval(config.confidence)
            rows.append(
                {
                    "cell": cell.id,
                    **{k: v for k, v in cell.setting.items() if k != "questions"},
                    "protocol": cell.cell["task"]["protocol"],
                    "metric": metric,
                    "main": metric == main,
                    "score": round(found.value, 6),
                    "low": round(low, 6),
                    "high": round(high, 6),
                    "standard_error": round(found.se, 6),
                    "bootstrap_standard_error": round(check, 6) if metric == main and check is not None else "",
                    "interval": found.method,
                    "n": found.n,
                    "videos": found.clusters,
                    "questions": cell.n,
                    "failed": cell.failed,
                    "unparsed": cell.unparsed,
                    "missing": cell.missing,
                    "prompt_tokens": spent.tokens,
                    "kept_tokens": spent.kept,
                    "seconds": spent.total,
                    "flops": spent.flops,
                }
            )
    names = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def latex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _ours(table: Table, verdicts: Sequence[NumberVerdict]) -> dict[tuple[str, str], NumberVerdict]:
    """Our number for each of the table's, where a cell of its setting was run; the newest cell's."""
    found: dict[tuple[str, str], NumberVerdict] = {}
    for v in verdicts:
        if v.published.table != table.id or v.verdict not in (REPRODUCED, DIFFERS, CANNOT_TELL):
            continue
        held = found.get((v.published.row, v.published.column))
        if held is None or v.cell.manifest.created > held.cell.manifest.created:
            found[v.published.row, v.published.column] = v
    return found
