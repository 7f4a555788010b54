"""Exports: the tables in the shape of their sources with our column beside it, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from harness.report.cells import CellResult
from harness.report.config import ReportConfig
from harness.report.expected import Table
from harness.report.measures import estimate, main_metric
from harness.report.shapes import cost
from harness.report.verdicts import CANNOT_TELL, DIFFERS, REPRODUCED, NumberVerdict

SPECIAL = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "+": "{+}"}
SPECIAL |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


def published_markdown(table: Table, verdicts: Sequence[NumberVerdict], config: ReportConfig) -> str:
    """A published table in its own shape; under each number ours with half its interval, where it was run."""
    ours = _ours(table, verdicts)
    lines = [f"### {table.id}. {table.title}", "", f"Source: {table.source}. Ours in bold, with half its interval.", ""]
    lines.append("| row | " + " | ".join(column["title"] for column in table.columns.values()) + " |")
    lines.append("|---" * (len(table.columns) + 1) + "|")
    for row in table.rows:
        values = []
        for column in table.columns:
            number = table.numbers.get((row["id"], column))
            text = "-" if number is None else number.text
            if (found := ours.get((row["id"], column))) is not None:
                low, high = found.estimate.interval(config.confidence)
                text += f" / **{found.estimate.value:.{table.digits}f}** ± {(high - low) / 2:.1f}"
            values.append(text)
        lines.append(f"| {row.get('title', row['id'])} | " + " | ".join(values) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def published_latex(table: Table, verdicts: Sequence[NumberVerdict], config: ReportConfig) -> str:
    """A published table as a booktabs tabular, a column of ours beside each of its own."""
    ours = _ours(table, verdicts)
    n = len(table.columns)
    lines = [
        f"% {table.id}. {table.title}. Source: {table.source}. Needs \\usepackage{{booktabs}}.",
        r"\begin{tabular}{l" + "rr" * n + "}",
        r"\toprule",
        " & " + " & ".join(rf"\multicolumn{{2}}{{c}}{{{latex(c['title'])}}}" for c in table.columns.values()) + r" \\",
        " ".join(rf"\cmidrule(lr){{{2 * i + 2}-{2 * i + 3}}}" for i in range(n)),
        " & " + " & ".join(["published & ours"] * n) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        values = []
        for column in table.columns:
            number = table.numbers.get((row["id"], column))
            values.append("--" if number is None else number.text)
            found = ours.get((row["id"], column))
            if found is None:
                values.append("--")
            else:
                low, high = found.estimate.interval(config.confidence)
                values.append(rf"${found.estimate.value:.{table.digits}f} \pm {(high - low) / 2:.1f}$")
        lines.append(f"{latex(row.get('title', row['id']))} & " + " & ".join(values) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def scores_csv(cells: Sequence[CellResult], config: ReportConfig) -> str:
    """One line per cell and metric, every setting in its own column; for a spreadsheet or pandas."""
    rows = []
    for cell in cells:
        names = _metric_names(cell)
        spent = cost(cell)
        for metric in names:
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
                    "main": metric == main_metric(cell.benchmark),
                    "score": round(found.value, 6),
                    "low": round(low, 6),
                    "high": round(high, 6),
                    "standard_error": round(found.se, 6),
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


def _metric_names(cell: CellResult) -> list[str]:
    from harness.data.metrics import metrics

    return list(metrics(cell.benchmark, cell.items()))
