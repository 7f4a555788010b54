"""One row per cell: its score, what it should be, and every number that stands beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from harness.evidence.cells import CellResult
from harness.evidence.choose import key_of
from harness.evidence.samples import main_metric
from harness.evidence.statistics import Estimate
from harness.gate.compare import compare
from harness.report.account import account
from harness.report.costs import cost
from harness.settings.cell import key_differences
from harness.verdicts.context import Context
from harness.verdicts.expected import Published
from harness.verdicts.verdicts import NumberVerdict, judge_cell

INCOMPLETE = "incomplete"
SHOWN = 3
"""Differences that are named before the rest is counted."""


@dataclass(frozen=True)
class ScoreRow:
    """A cell on its benchmark's published metric.

    others: parser -> score, of every parser that is not the protocol's own. expected: the number that it should be,
    with its table. marks: that number, for a picture. verdict: what became of it, or why there is none.
    """

    cell: CellResult
    metric: str
    estimate: Estimate | None
    others: dict[str, float]
    expected: str
    marks: list[float]
    verdict: str

    @property
    def others_differ(self) -> bool:
        """Whether the choice of the parser matters."""
        own = None if self.estimate is None else self.estimate.value
        return any(own is None or abs(score - own) > 1e-9 for score in self.others.values())


def score_rows(context: Context, verdicts: Sequence[NumberVerdict] = ()) -> list[ScoreRow]:
    """The rows of all cells, in their order.

    Args:
        verdicts: on published numbers, corrected within their tables; a cell that has none is judged by itself.
    """
    judged = {(v.cell.id, v.published.id): v.verdict for v in verdicts if v.cell is not None}
    return [_row(cell, context, judged) for cell in context.cells]


def _row(cell: CellResult, context: Context, judged: Mapping[tuple[str, str], str]) -> ScoreRow:
    metric = main_metric(cell.benchmark)
    others = {name: found.value for name in cell.other_parsers if (found := context.estimate(cell, metric, name))}
    if cell.toy:
        expected, marks, verdict = _of_baseline(cell, metric, context)
    else:
        expected, marks, verdict = _of_tables(cell, context, judged)
    verdict = verdict if cell.complete else INCOMPLETE
    return ScoreRow(cell, metric, context.estimate(cell, metric), others, expected, marks, verdict)


def _of_baseline(cell: CellResult, metric: str, context: Context) -> tuple[str, list[float], str]:
    stored = context.baseline_of(cell)
    if stored is not None:
        return f"{stored.score[metric]:.1f}", [stored.score[metric]], compare(stored, cell).summary
    key = key_of(cell)
    near = [
        key_differences(other.key, key)
        for baseline in context.baselines
        for other in baseline.cells
        if all(other.key[group]["name"] == key[group]["name"] for group in ("task", "model", "method"))
    ]
    return "-", [], f"no baseline: {_some(min(near, key=len))}" if near else "no baseline"


def _of_tables(
    cell: CellResult, context: Context, judged: Mapping[tuple[str, str], str]
) -> tuple[str, list[float], str]:
    numbers = context.published(cell)
    if numbers:
        known = ((judged.get((cell.id, number.id)), number) for number in numbers)
        words = dict.fromkeys(word or judge_cell(cell, number, context).verdict for word, number in known)
        return ", ".join(_named(number) for number in numbers), [number.score for number in numbers], "; ".join(words)
    near = min(context.candidates(cell), key=lambda number: len(number.differences(cell)), default=None)
    if near is None:
        return "-", [], cell.mismatch or f"none published for {cell.setting['model']} on {cell.benchmark}"
    return "-", [], f"not comparable with {_named(near)}: {_some(near.differences(cell))}"


def _named(number: Published) -> str:
    parser = "" if number.parser == "release" else f", {number.parser}"
    return f"{number.text} ({number.table}{parser})"


def _some(lines: Sequence[str]) -> str:
    more = f"; {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more


def code_remark(cells: Sequence[CellResult]) -> str:
    """Says so where cells of one table were answered by different code; empty where they were not."""
    found = Counter(str(cell.cell.get("code") or "unknown") for cell in cells)
    if len(found) < 2:
        return ""
    listed = ", ".join(f"{code} ({n} cells)" for code, n in found.most_common())
    return f"Answered by different code: {listed}. Each cell's manifest.json names its commit."


def scores_frame(context: Context) -> pd.DataFrame:
    """One line per cell, metric and, for the published metric, parser; every setting in its own column."""
    rows = []
    for cell in context.cells:
        main, spent, took = main_metric(cell.benchmark), cost(cell), account([cell])
        own = [(name, cell.parser) for name in cell.scores()]
        for metric, parser in own + [(main, name) for name in cell.other_parsers]:
            found = context.estimate(cell, metric, parser)
            if found is None:
                continue
            low, high = found.interval(context.settings.confidence)
            rows.append(
                {
                    "cell": cell.id,
                    **{k: v for k, v in cell.setting.items() if k != "questions"},
                    "protocol": cell.protocol,
                    "metric": metric,
                    "parser": parser,
                    "main": (metric, parser) == (main, cell.parser),
                    "score": found.value,
                    "low": low,
                    "high": high,
                    "n": found.n,
                    "effective_n": found.n_eff,
                    "videos": found.clusters,
                    "questions": cell.n,
                    "failed": cell.failed,
                    "unparsed": cell.unparsed,
                    "missing": cell.missing,
                    "prompt_tokens": spent.tokens,
                    "encoded": took.encoded,
                    "prefilled": took.prefilled,
                    "slots": took.slots,
                    "slots_largest_layer": took.largest,
                    "slots_peak": took.peak,
                    "host_bytes": took.host,
                    "moved_bytes": took.moved,
                    "sees_question": took.sees_question,
                    "reusable": took.reusable,
                    "seconds": spent.total,
                    "flops": spent.flops,
                }
            )
    return pd.DataFrame(rows).round(6)
