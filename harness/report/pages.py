"""The report as files: Markdown, one static HTML page, and the published tables with our numbers beside theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.benchmarks.benchmark import benchmark
from harness.evidence.cells import CellResult
from harness.evidence.section import interval_text, plain
from harness.evidence.statistics import main_metric
from harness.report.costs import Entry, account_section
from harness.report.tables import ScoreRow, claims, cost_table, difference_table, numbers, over_context, scores
from harness.verdicts import power
from harness.verdicts.context import Context
from harness.verdicts.expected import Published, PublishedTable
from harness.verdicts.pairs import Pair, Rung
from harness.verdicts.verdicts import (
    CANNOT_TELL,
    CONTRADICTED,
    DIFFERS,
    HOLDS,
    JUDGED,
    NOT_COMPARABLE,
    NOT_RUN,
    REPRODUCED,
    ClaimVerdict,
    NumberVerdict,
    verdict_counts,
)


@dataclass(frozen=True)
class Reason:
    """One possible reason. ``text`` is a sentence or two with the cell's own numbers."""

    topic: str
    text: str


def why_not(verdicts: list[NumberVerdict]) -> list[tuple[CellResult, list[NumberVerdict], list[Reason]]]:
    """Cells with a number that differs or is left open: (cell, those verdicts, the reasons that apply)."""
    open_ones: dict[CellResult, list[NumberVerdict]] = {}
    for verdict in verdicts:
        if verdict.cell is not None and verdict.verdict in (DIFFERS, CANNOT_TELL):
            open_ones.setdefault(verdict.cell, []).append(verdict)
    return [(cell, group, reasons(cell, group[0].published)) for cell, group in open_ones.items()]


def reasons(cell: CellResult, published: Published | None = None) -> list[Reason]:
    """All known reasons that apply to a cell, and what the source of ``published`` leaves open."""
    found: list[Reason] = []
    for source in (_positions, _semantics, _budget, _parsers, _failures, _composition, _yarn, _environment):
        found += source(cell)
    if published is not None:
        unstated = [
            k for k in ("semantics", "frames", "fps", "long_side", "yarn_factor", "dtype") if _silent(published, k)
        ]
        if unstated:
            found.append(Reason("not stated", f"The source does not state: {', '.join(unstated)}."))
    return found


def _silent(published: Published, key: str) -> bool:
    return key not in published.setting and not (key == "semantics" and published.setting.get("method") == "none")


TEXTS = {
    "truncated": "The rule `truncated` (transformers 4.52 to 5.2) drops the fraction of the seconds per grid: in "
    "{still} of {n} videos, sampled above 2 fps, all frames have one temporal id, in {coarse} more the steps are too "
    "small.",
    "v5": "The rule `v5` (transformers 5.4 and later) puts the text inside the video's range of ids; the published "
    "numbers come from code that puts it behind the video.",
    "paper": "Follows the paper's equations. The paper's own tables come from the first public code (release_2025), "
    "the README's from release_2026; both deviate from the equations.",
    "release": "The budget is a share of the whole prompt, and the first chunk is evicted by stale scores of the text "
    "before it, so that nearly all of it stays (quirk stale_first_chunk).",
    "heavy_hitters": "Temporal adaptation scales a layer's share by its heavy hitters and does not keep the total "
    "(quirk heavy_hitter_adaptation).",
    "guide": "The guide is placed by the plain text index, usually far before its chunk (quirk guide_by_text_index).",
    "half_video": "Temporal ratios describe each chunk by the content at half its time (quirk half_video_ratios).",
    "over": "In {over} of {n} answers the cache after the prefill is larger than the context of {context}, by "
    "{mean:.0f} slots on average (largest {most:.0f}): first chunk, floors and rounding are not paid for.",
    "whole": "{whole} of {n} prompts fit into the context: nothing was compressed there.",
    "failed": "{n} failed answers count as wrong ({kinds}); the release drops such samples from its mean.",
    "unparsed": "{n} of {of} answers hold no letter ({share:.1f} %) and count as wrong.",
    "yarn": "This base row ran {state}. The release's configs use factor 4 for its methods and none for its plain "
    "baseline; YaRN multiplies attention logits by 1.296 at all lengths. A twin {twin} tells the effect.",
    "attention": "Attention ran on {backend}; the published numbers are flash-attn 2 numbers in bfloat16.",
    "frames": "Frames come straight from {decoder}; the release reads JPEG files of ffmpeg's default quality.",
}


def _positions(cell: CellResult) -> Iterator[Reason]:
    rule, rates = cell.setting.get("positions"), _sampling_rates(cell)
    if rule == "truncated" and rates and cell.setting["model"].startswith(("qwen2_5", "toy")):
        still = {video for video, rate in rates.items() if rate > 2}
        coarse = sum(rate <= 2 and (2 / rate) % 1 > 1e-6 for rate in rates.values())
        text = TEXTS["truncated"].format(still=len(still), n=len(rates), coarse=coarse)
        yield Reason("positions", text + _score_split(cell, "the former", still))
    elif rule == "v5":
        yield Reason("positions", TEXTS["v5"])


def _semantics(cell: CellResult) -> Iterator[Reason]:
    setting = cell.setting
    if setting["method"] != "adaretake":
        return
    semantics, temporal = setting["semantics"], cell.variant in ("full", "no_layer")
    applies = {
        "paper": semantics == "paper",
        "release": semantics != "paper",
        "heavy_hitters": semantics == "release_2025" and temporal,
        "guide": semantics == "release_2026",
        "half_video": semantics == "release_2026" and temporal,
    }
    for name in (name for name, does in applies.items() if does):
        yield Reason("semantics", TEXTS[name])
    if setting["quirks"] != "default":
        yield Reason("semantics", f"Quirks were switched: {setting['quirks']}.")


def _budget(cell: CellResult) -> Iterator[Reason]:
    context = cell.setting["context"]
    kept = [a.n_cache_mean for a in cell.answers.values() if a.ok and a.n_cache_mean is not None]
    if context == "full" or not kept:
        return
    if over := [slots - context for slots in kept if slots > context + 0.5]:
        mean = sum(over) / len(over)
        facts = {"over": len(over), "n": len(kept), "context": context, "mean": mean, "most": max(over)}
        yield Reason("budget", TEXTS["over"].format(**facts))
    if whole := sum(a.ok and a.n_prompt is not None and a.n_prompt <= context for a in cell.answers.values()):
        yield Reason("budget", TEXTS["whole"].format(whole=whole, n=len(kept)))


def _parsers(cell: CellResult) -> Iterator[Reason]:
    metric, before = main_metric(cell.benchmark), cell.answered()["correct"].to_numpy()
    own = cell.scores().get(metric)
    if own is None:
        return
    lines = []
    for name in cell.other_parsers:
        changed = int((cell.answered(name)["correct"].to_numpy() != before).sum())
        score = cell.scores(name)[metric]
        lines.append(f"`{name}` changes {changed} of {len(before)} verdicts (score {score:.1f} instead of {own:.1f})")
    yield Reason("parser", f"The table's score is parsed with `{cell.parser}`; {'; '.join(lines)}.")


def _failures(cell: CellResult) -> Iterator[Reason]:
    if cell.failed:
        kinds = Counter((a.error or {}).get("type", "?") for a in cell.answers.values() if not a.ok)
        listed = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(3))
        yield Reason("failed", TEXTS["failed"].format(n=cell.failed, kinds=listed))
    if cell.unparsed:
        share = 100 * cell.unparsed / cell.n
        yield Reason("unparsed", TEXTS["unparsed"].format(n=cell.unparsed, of=cell.n, share=share))


def _composition(cell: CellResult) -> Iterator[Reason]:
    counts = benchmark(cell.benchmark).counts.get(cell.setting["split"], {})
    whole = counts.get("questions")
    if not whole or cell.n == whole:
        return
    parts = []
    for tag, expected in counts.items():
        if not isinstance(expected, dict):
            continue
        ours = Counter(str(question.tags.get(tag)) for question in cell.questions)
        for value, n in expected.items():
            here, there = 100 * ours[str(value)] / cell.n, 100 * n / whole
            if abs(here - there) > 2:
                parts.append(f"{tag} {value} {here:.0f} % instead of {there:.0f} %")
    mix = f"; its mix differs: {', '.join(parts)}" if parts else ""
    yield Reason("questions", f"{cell.n} questions, the whole benchmark has {whole}{mix}.")


def _yarn(cell: CellResult) -> Iterator[Reason]:
    if cell.setting["method"] == "none":
        factor = cell.setting["yarn_factor"]
        state, twin = ("without YaRN", "with factor 4") if factor == 1 else (f"with YaRN factor {factor:g}", "without")
        yield Reason("YaRN", TEXTS["yarn"].format(state=state, twin=twin))


def _environment(cell: CellResult) -> Iterator[Reason]:
    backend, decoder = cell.manifest.attention_backend, cell.cell["video"].get("backend")
    if backend and "flash" not in backend:
        yield Reason("attention", TEXTS["attention"].format(backend=backend))
    if decoder:
        yield Reason("frames", TEXTS["frames"].format(decoder=decoder))


def _sampling_rates(cell: CellResult) -> dict[str, float]:
    """Video id -> true sampling fps."""
    return {a.video_id: a.sampling_fps for a in cell.answers.values() if a.sampling_fps}


def _score_split(cell: CellResult, name: str, videos: set[str]) -> str:
    rows = cell.answered()
    inside = rows["video_id"].isin(videos)
    if not inside.any() or inside.all():
        return ""
    a, b = 100 * rows[inside]["correct"].mean(), 100 * rows[~inside]["correct"].mean()
    return f" Accuracy is {a:.1f} on {name} and {b:.1f} on the others."


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
        account_section(found.entries, settings.confidence),
        difference_table(found.pairs, settings),
        numbers(found.numbers, settings),
        claims(found.claims, settings),
        power.power_section(found.context),
        power.spread_section(found.context),
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
        account=account_section(found.entries, settings.confidence),
        pairs=difference_table(found.pairs, settings),
        numbers=numbers(judged, settings),
        incomparable=numbers(incomparable, settings),
        numbers_left=len(found.numbers) - len(judged) - len(incomparable),
        numbers_summary=verdict_counts([v.verdict for v in found.numbers]),
        claims=claims(judged_claims, settings),
        claims_left=len(found.claims) - len(judged_claims),
        claims_summary=verdict_counts([v.verdict for v in found.claims]),
        power=power.power_section(context),
        spread=power.spread_section(context),
        reasons=why_not(found.numbers),
        figures=figures,
        costs=cost_table(context),
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
