"""The verb ``report``: every table, interval and verdict from the stored answers, on the terminal and as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from harness.advice import harness, open_console
from harness.evidence.cells import CellResult
from harness.evidence.loading import choose, newest
from harness.gate.baseline import load_baselines
from harness.records import made_folder
from harness.report import costs as account
from harness.report import pages, tables
from harness.report.explorer.page import write_explorer
from harness.report.pages import Findings
from harness.report.tables import score_rows, scores_frame
from harness.settings.groups import Config, ReportConfig
from harness.settings.matrix import build_cells, ids_under
from harness.store import write_atomic
from harness.verdicts import power
from harness.verdicts.context import Context
from harness.verdicts.expected import load_tables
from harness.verdicts.pairs import Pair, find_pairs, ladder
from harness.verdicts.verdicts import JUDGED, judge_claims, judge_numbers, verdict_counts

MANY = 16
"""Paired differences that a terminal shows; of more, only those pooled over benchmarks."""
TOO_MANY = 60
"""Scores, and paired differences along one axis, that a terminal leaves to the files."""

SETTING = ("model", "protocol", "frames", "fps", "context")
"""Columns that a terminal shows once, in the title, where all rows agree."""


def main(config: Config) -> int:
    """Print the configured matrix's tables and write the whole report.

    Files, in the report's folder: ``report.md``; ``scores.csv``, ``account.csv``, ``differences.csv``, ``numbers.csv``,
    ``claims.csv``, ``power.csv``, ``replicates.csv``; ``tables/*.md`` and ``*.tex``, the published tables with our
    numbers beside; with ``report.html`` on also ``report.html`` and ``figures/*.svg``, and in ``explorer/`` the pages
    of every answer.

    Returns:
        0; 1 when a cell of the matrix is absent or incomplete or holds failed answers, when there is none at all, or
        when it cannot be told which cells the matrix has, because weights are missing.
    """
    console = open_console()
    matrix = partial(build_cells, config)
    chosen = choose(config.results, config.report.cells, matrix, ids_under(config.words))
    if not chosen.stored:
        console.print(f"{config.results}/runs holds no cell yet: {harness('run', config.words)}", soft_wrap=True)
        return 1
    made_folder(config.report.folder(config.results), "report.output=<folder>")
    found = gather(chosen.stored, config.report)
    shown = chosen.cells or chosen.stored
    only = found if len(shown) == len(chosen.stored) else gather(shown, config.report, found.context)
    print_findings(only, console)
    if not all(cell.toy for cell in shown):
        print_verdicts(found, console)
    written = write_report_files(found, config.report.folder(config.results))
    if config.report.html and config.report.explorer:
        write_explorer(chosen.stored, config.report.folder(config.results), Path(config.data.root))
    others = len(chosen.stored) - len(shown)
    more = f" ({others} cells of other matrices are in it too)" if others else ""
    console.print(f"report: {written}{more}", soft_wrap=True)
    if chosen.unknown:
        lines = "\n".join(f"- {problem}" for problem in chosen.unknown)
        told = f"which cells are asked for cannot be told here; shown is all that is stored\n{lines}\n"
        told += "to report stored cells without their weights, name them: 'report.cells=[PATTERN]'"
        console.print(told, soft_wrap=True, markup=False, highlight=False)
        return 1
    missing, failed = sum(cell.missing for cell in shown), sum(cell.failed for cell in shown)
    if chosen.absent or missing or failed:
        lacks = f"{len(chosen.absent)} cells absent, {missing} questions missing, {failed} failed"
        fix = harness("run", config.words, *(["run.retry=failed"] if failed else []))
        console.print(f"not whole: {lacks}; go on with: {fix}", soft_wrap=True, markup=False, highlight=False)
        return 1
    return 0


def gather(cells: Sequence[CellResult], settings: ReportConfig, more: Context | None = None) -> Findings:
    """Judge every published number and claim by these cells; of cells with the same setting, by the newest.

    Args:
        more: the evidence of more cells than these; its estimates are not made again.
    """
    more = more or Context(cells, load_tables(settings.expected), load_baselines(settings.baselines), settings)
    context = replace(more, cells=cells)
    judging = replace(context, cells=newest(cells))
    numbers, claims = judge_numbers(judging), judge_claims(judging)
    return Findings(
        context,
        score_rows(context, numbers),
        find_pairs(context),
        ladder(context, "context"),
        account.entries(context),
        numbers,
        claims,
    )


def print_findings(found: Findings, console: Console) -> None:
    """Scores, what the context does to them, and paired differences."""
    settings = found.context.settings
    pooled_entries = [entry for entry in found.entries if len(entry.cells) > 1]
    if len(found.rows) <= TOO_MANY or not pooled_entries:
        scores = tables.scores(found.rows, settings)
        scores.show(console, leave_out=("metric", *tables.silent(found.rows)), hoist=SETTING)
        tables.over_context(found.rungs, found.pairs, settings).show(console, hoist=SETTING)
    else:
        console.print(f"scores of {len(found.rows)} cells are in report.md and scores.csv; here their means")
    taken = account.account_section(pooled_entries or found.entries, settings.confidence)
    nothing = [str(name) for name in taken.frame if set(taken.frame[name]) <= {"-", "0"}]
    taken.show(console, leave_out=("n", *nothing), hoist=SETTING)
    pooled = [pair for pair in found.pairs if pair.pooled] if len(found.pairs) > MANY else []
    along: dict[str, list[Pair]] = {}
    for pair in pooled or found.pairs:
        along.setdefault(pair.axis, []).append(pair)
    along = {axis: pairs for axis, pairs in along.items() if len(pairs) <= TOO_MANY}
    for pairs in list(along.values()) or ([[]] if not found.pairs else []):
        section = tables.difference_table(pairs, settings)
        section.show(console, leave_out=("p",), hoist=(*SETTING, "method", "axis"))
    if rest := len(found.pairs) - sum(map(len, along.values())):
        console.print(f"{rest} more paired differences are in report.md and differences.csv")


def print_verdicts(found: Findings, console: Console) -> None:
    """What the cells say about published numbers and claims."""
    settings = found.context.settings
    if judged := [v for v in found.numbers if v.verdict in JUDGED]:
        tables.numbers(judged, settings).show(console, leave_out=("published setting",))
    if judged_claims := [v for v in found.claims if v.difference is not None]:
        tables.claims(judged_claims, settings).show(console, leave_out=("p", "needed n"))
    console.print(f"published numbers: {verdict_counts([v.verdict for v in found.numbers])}")
    console.print(f"published claims: {verdict_counts([v.verdict for v in found.claims])}")


def write_report_files(found: Findings, output: Path) -> str:
    """Write every file of the report; returns the names of those to open first."""
    settings = found.context.settings
    frames = {
        "scores": scores_frame(found.context),
        "account": account.account_section(found.entries, settings.confidence).frame,
        "differences": tables.difference_table(found.pairs, settings).frame,
        "numbers": tables.numbers(found.numbers, settings).frame,
        "claims": tables.claims(found.claims, settings).frame,
        "power": power.power_section(found.context).frame,
        "replicates": power.spread_section(found.context).frame,
    }
    for name, frame in frames.items():
        write_atomic(output / f"{name}.csv", frame.to_csv(index=False))
    for table in found.context.tables:
        shape = pages.published_table(table, found.numbers, settings.confidence)
        write_atomic(output / "tables" / f"{table.name}.md", pages.published_markdown(table, shape))
        write_atomic(output / "tables" / f"{table.name}.tex", pages.published_latex(table, shape))
    write_atomic(output / "report.md", pages.markdown(found))
    if not settings.html:
        return f"{output}/report.md"
    from harness.report.figures import draw_all, svg  # matplotlib is slow to import

    drawn = {}
    for name, (figure, caption) in draw_all(found).items():
        drawn[name] = svg(figure), caption
        write_atomic(output / "figures" / f"{name}.svg", drawn[name][0])
    write_atomic(output / "report.html", pages.html(found, drawn))
    return f"{output}/report.html, report.md"
