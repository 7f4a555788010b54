"""The tables of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.evidence.cells import CellResult
from harness.evidence.loading import key_of
from harness.evidence.section import Section, interval_text, number_text, p_text
from harness.evidence.statistics import Estimate, main_metric
from harness.gate.compare import compare
from harness.report.costs import Cost, account, cost
from harness.settings.cell import key_differences
from harness.settings.groups import ReportConfig
from harness.verdicts.context import Context
from harness.verdicts.expected import Published
from harness.verdicts.pairs import TITLES, Pair, Rung
from harness.verdicts.verdicts import ClaimVerdict, NumberVerdict, judge_cell

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


def scores(rows: Sequence[ScoreRow], config: ReportConfig) -> Section:
    """One row per cell on its benchmark's published metric."""
    confidence = f"{100 * config.confidence:g} %"
    frame = pd.DataFrame([_score(row, f"{confidence} interval", config.confidence) for row in rows])
    notes = (
        "score: percent, answers parsed as the protocol's numbers were (column parser); failed and unparsed answers "
        "count as wrong, missing ones nowhere. Other parsers' scores stand beside it.",
        "slots: cache slots after the prefill as measured, mean over layers and answers; context is what was asked.",
        "interval: clustered by video, a macro average (m_avg) too; not corrected for many comparisons.",
        f"verdict on a published number: margin {config.margin:g} points against the noise between two runs, "
        f"confidence {confidence}, not against the interval; toy cells are compared with the committed baseline only.",
    )
    left = ("benchmark", "metric", "model", "method", "protocol", "parser", "other parsers", "expected", "verdict")
    remark = code_remark([row.cell for row in rows])
    return Section("Scores", frame, left, notes, (remark,) if remark else ())


def _score(row: ScoreRow, interval: str, confidence: float) -> dict[str, str]:
    cell, setting, found = row.cell, row.cell.setting, row.estimate
    score = number_text(None if found is None else found.value, ".1f")
    return {
        "benchmark": cell.task,
        "metric": row.metric,
        "model": setting["model"],
        "method": cell.method_title,
        "protocol": cell.protocol,
        "frames": str(setting["frames"]),
        "fps": f"{setting['fps']:g}",
        "context": str(setting["context"]),
        "slots": number_text(cell.slots),
        "score": score if cell.complete else f"{score} (incomplete)",
        interval: "-" if found is None else interval_text(found.interval(confidence)),
        "n": str(cell.n),
        "failed": str(cell.failed),
        "unparsed": str(cell.unparsed),
        "missing": str(cell.missing),
        "parser": cell.parser,
        "other parsers": ", ".join(f"{name} {value:.1f}" for name, value in row.others.items()) or "-",
        "expected": row.expected,
        "verdict": row.verdict,
    }


def silent(rows: Sequence[ScoreRow]) -> list[str]:
    """Columns of the score table that say nothing about these rows: counts of zero, parsers that agree."""
    names = [name for name in ("failed", "unparsed", "missing") if not any(getattr(row.cell, name) for row in rows)]
    return names + ([] if any(row.others_differ for row in rows) else ["parser", "other parsers"])


def difference_table(pairs: Sequence[Pair], config: ReportConfig) -> Section:
    """Paired differences, question by question."""
    title = "Paired differences"
    if not pairs:
        none = "No paired differences: no two of these cells differ in exactly one setting on the same questions."
        return Section(title, pd.DataFrame(), remarks=(none,))
    frame = pd.DataFrame([_difference(pair, config.confidence) for pair in pairs])
    notes = (
        "Cells that differ in one setting only, paired on the questions that both answered, clustered by video; no "
        "correction for many comparisons. A mean is of the benchmarks' differences, each with the same weight.",
        "flips: questions that only a / only b has right. slots: measured cache slots of a / b; budgets are equal when "
        "these are within 5 %.",
    )
    return Section(title, frame, ("benchmark", "model", "method", "axis", "a", "b", "budget"), notes)


def _difference(pair: Pair, confidence: float) -> dict[str, str]:
    found, setting, (a, b) = pair.difference, pair.setting, pair.names
    return {
        "benchmark": pair.benchmark,
        **{name: _word(setting.get(name, "-")) for name in ("model", "frames", "fps", "context")},
        "method": "-" if pair.axis in TITLES else pair.cells[0][0].method_title,
        "axis": pair.axis,
        "a": a,
        "b": b,
        "a - b": f"{found.value:+.2f}",
        f"{100 * confidence:g} % interval": interval_text(found.interval(confidence), sign=True),
        "p": p_text(found.p),
        "flips +/-": f"{found.gained} / {found.lost}",
        "n": str(found.n),
        "slots": " / ".join(number_text(slots) for slots in pair.slots),
        "budget": pair.budget,
    }


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def over_context(rungs: Sequence[Rung], pairs: Sequence[Pair], config: ReportConfig) -> Section:
    """Accuracy along the context per method, and what each variant is worth there, with the measured slots."""
    title = "Accuracy over context"
    if not rungs:
        return Section(title, pd.DataFrame())
    contexts = sorted({rung.at for rung in rungs}, reverse=True)
    rows: dict[tuple[str, ...], dict[int, str]] = {}
    for rung in rungs:
        low, high = rung.estimate.interval(config.confidence)
        text = f"{rung.estimate.value:.1f} ({low:.1f} to {high:.1f}), {number_text(rung.slots)} slots"
        setting = rung.cells[0].setting
        rows.setdefault((rung.benchmark, rung.cells[0].method_title, *_place(setting)), {})[rung.at] = text
    for pair in pairs:
        context = pair.setting.get("context")
        if pair.axis == "variant" and context in contexts:
            interval = interval_text(pair.difference.interval(config.confidence), sign=True)
            text = f"{pair.difference.value:+.1f} ({interval})"
            text += "" if pair.budget != "not equal" else ", not at equal budget"
            rows.setdefault((pair.benchmark, " minus ".join(pair.names), *_place(pair.setting)), {})[context] = text
    known = sorted(dict.fromkeys(row[0] for row in rows), key=lambda name: not name.startswith("mean of"))
    frame = pd.DataFrame(
        [
            dict(zip(("benchmark", "method", *PLACE), row, strict=True))
            | {f"context {context}": texts.get(context, "-") for context in contexts}
            for row, texts in sorted(rows.items(), key=lambda item: known.index(item[0][0]))
        ]
    )
    note = f"Percent with the {100 * config.confidence:g} % interval and measured cache slots; differences are paired."
    return Section(title, frame, ("benchmark", "method", "model"), (note,))


PLACE = ("model", "frames", "fps")
"""Settings that a ladder over the context does not change."""


def _place(setting: dict[str, Any]) -> tuple[str, ...]:
    return tuple(_word(setting.get(name, "-")) for name in PLACE)


def numbers(verdicts: Sequence[NumberVerdict], config: ReportConfig) -> Section:
    """One row per published number."""
    rows = []
    for v in verdicts:
        setting, found = v.published.setting, v.estimate
        rows.append(
            {
                "table": v.published.table,
                "row": v.published.title,
                "column": v.published.column,
                "published setting": "; ".join(
                    f"{k} {setting[k]}" for k in ("semantics", "frames", "fps", "context") if k in setting
                ),
                "published": v.published.text,
                "ours": number_text(None if found is None else found.value, ".1f"),
                "interval": "-" if found is None else interval_text(found.interval(config.confidence)),
                "within": "-" if v.gap is None else f"{v.gap.resolution:.2f}",
                "p (Holm)": "-" if v.p_holm is None else p_text(v.p_holm),
                "parser": v.published.parser,
                "verdict": v.verdict,
                "why": v.reason,
            }
        )
    notes = (
        f"Judged against what differs between two runs over the same questions; margin {config.margin:g} points "
        f"(report.margin), confidence {100 * config.confidence:g} %. within: the smallest margin within which the "
        "number is reproduced. interval: of the score, for other videos; it takes no part in the verdict.",
        "p (Holm): that only noise differs, corrected for the judged numbers of the table. The flip rate is that of "
        "replicates in the store, else report.flip_rate, else assumed (docs/verdicts.md).",
        "Our answers are parsed as those behind the published number were.",
    )
    left = ("table", "row", "column", "published setting", "parser", "verdict", "why")
    return Section("Published numbers", pd.DataFrame(rows), left, notes)


def claims(verdicts: Sequence[ClaimVerdict], config: ReportConfig) -> Section:
    """One row per published claim."""
    rows = []
    for v in verdicts:
        found = v.difference
        rows.append(
            {
                "claim": v.claim.id if not v.claim.each else f"{v.claim.id} {v.columns[0]}",
                "text": v.claim.text,
                "published": number_text(v.claim.published, "+.2f"),
                "ours": number_text(None if found is None else found.value, "+.2f"),
                "interval": "-" if found is None else interval_text(found.interval(config.confidence), sign=True),
                "p": "-" if found is None else p_text(found.p),
                "p (Holm)": "-" if v.p_holm is None else p_text(v.p_holm),
                "flips +/-": "-" if found is None else f"{found.gained} / {found.lost}",
                "needed n": "-" if v.needed is None else str(v.needed),
                "verdict": v.verdict,
                "on these questions": v.here,
                "why": v.reason,
            }
        )
    notes = (
        "verdict: for other videos like these. on these questions: whether a rerun would find the same, against "
        "answers that flip. Both are corrected (Holm) for the judged claims of the table; intervals are not.",
        f"A claim of no effect holds within {config.neutral_margin:g} points (report.neutral_margin).",
        f"needed n: questions that show the published effect with power {config.power:g} at this rate of "
        "answers on which the two cells disagree.",
    )
    return Section(
        "Published claims", pd.DataFrame(rows), ("claim", "text", "verdict", "on these questions", "why"), notes
    )


def cost_table(context: Context) -> Section:
    """What one answer of each cell costs on average."""
    frame = pd.DataFrame([_cost(cell, cost(cell)) for cell in context.cells])
    note = (
        "Means per answer. kept: cache slots after the prefill, mean over layers. work: floating-point operations of "
        "the language model counted from shapes (chunks of equal length, the guide as long as all text), vision left "
        "out: siblings share it."
    )
    return Section("Cost of an answer", frame, ("benchmark", "model", "method", "setting", "stages"), (note,))


def _cost(cell: CellResult, spent: Cost) -> dict[str, str]:
    share = None if not spent.kept or not spent.tokens else 100 * spent.kept / spent.tokens
    return {
        "benchmark": cell.task,
        "model": cell.setting["model"],
        "method": cell.method_title,
        "setting": f"{cell.setting['frames']} frames, context {cell.setting['context']}",
        "prompt tokens": number_text(spent.tokens),
        "kept": number_text(spent.kept),
        "share": "-" if share is None else f"{share:.1f} %",
        "seconds": number_text(spent.total, ".2f"),
        "stages": ", ".join(f"{stage} {value:.2f}" for stage, value in spent.seconds.items()) or "-",
        "work": "-" if spent.flops is None else _flops(spent.flops),
        "peak memory": "-" if spent.peak_memory is None else f"{spent.peak_memory / 2**30:.2f} GiB",
    }


def _flops(value: float) -> str:
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value / 1e6:.0f} MFLOP"
