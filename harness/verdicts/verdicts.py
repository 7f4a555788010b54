"""Verdicts on published numbers: is one reproduced, given what differs between two runs over the same questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from harness.evidence.cells import CellResult
from harness.evidence.statistics import Estimate
from harness.settings.groups import ReportConfig
from harness.verdicts.context import Context
from harness.verdicts.expected import Published
from harness.verdicts.noise import FlipRate, Gap, gap_between, weighed

T = TypeVar("T")
REPRODUCED = "reproduced"
DIFFERS = "differs"
CANNOT_TELL = "cannot tell"
NOT_COMPARABLE = "not comparable"
NOT_RUN = "not run"
JUDGED = (REPRODUCED, DIFFERS, CANNOT_TELL)
"""Verdicts on a number that some cell was run for."""


@dataclass(frozen=True)
class NumberVerdict:
    """What our results say about one published number."""

    published: Published
    verdict: str
    reason: str = ""
    cell: CellResult | None = None
    estimate: Estimate | None = None
    gap: Gap | None = None
    """None where nothing was judged."""
    best: Gap | None = None
    """The gap if every failed answer had been right; None where none failed."""
    flips: FlipRate | None = None
    p_holm: float | None = None
    """p value corrected (Holm) for all judged numbers of the same table."""


def gap_verdict(gap: Gap, margin: float, p_holm: float, confidence: float) -> tuple[str, bool]:
    """The verdict on a gap, and whether a difference is detectable, be it within the margin or not."""
    detectable = p_holm < 1 - confidence
    if gap.resolution <= margin:
        return REPRODUCED, detectable
    return DIFFERS if detectable else CANNOT_TELL, detectable


def judge_gaps(gap: Gap, best: Gap | None, margin: float, p_holm: float, config: ReportConfig) -> tuple[str, str]:
    """Verdict and reason; with failed answers (``best``) both bounds have to agree."""
    verdict, detectable = gap_verdict(gap, margin, p_holm, config.confidence)
    if best is not None:
        other, also = gap_verdict(best, margin, p_holm, config.confidence)
        if other != verdict or (verdict == DIFFERS and gap.gap * best.gap < 0):
            return CANNOT_TELL, f"failed answers decide ({gap.gap:+.2f} to {best.gap:+.2f} points): run.retry=failed"
        detectable = detectable and also
    notes = [f"{gap.gap:+.2f} points, reproduced within {gap.resolution:.2f}"]
    if verdict == REPRODUCED and detectable:
        notes.append("a difference is detectable")
    if gap.explains > 0:
        notes.append(f"differs if fewer than {100 * gap.explains:.2g} % of answers flip between runs")
    if gap.reproduces > 0:
        notes.append(f"reproduced if fewer than {100 * gap.reproduces:.2g} % do")
    return verdict, "; ".join(notes)


def measure(cell: CellResult, published: Published, context: Context) -> NumberVerdict:
    """The gap between a cell and a number, its answers parsed as those behind the number were; not yet a verdict."""
    found = context.estimate(cell, published.metric, published.parser)
    if differences := published.differences(cell):
        return NumberVerdict(published, NOT_COMPARABLE, "; ".join(differences), cell, found)
    if not cell.complete:
        reason = f"incomplete: {cell.missing} of {cell.n} questions are not answered"
        return NumberVerdict(published, NOT_COMPARABLE, reason, cell, found)
    if found is None:
        return NumberVerdict(published, NOT_COMPARABLE, "the questions have no public answer", cell)
    flips = context.flips(cell, published.metric, published.parser)
    gap, best = _gap(found, published, flips, context.settings), None
    if cell.failed:
        # A failed answer is wrong by rule, not by what the model would have said: both bounds have to agree.
        bound = context.best_case(cell, published.metric, published.parser) or found
        best = _gap(bound, published, flips, context.settings)
    return NumberVerdict(published, CANNOT_TELL, "", cell, found, gap, best, flips)


def _gap(found: Estimate, published: Published, flips: FlipRate, config: ReportConfig) -> Gap:
    n = weighed(found)
    plain = flips.deff == 1 and abs(n - found.n) < 1e-6
    return gap_between(
        found.value,
        published.score,
        published.rounding,
        flips.d_high,
        n / flips.deff,
        margin_of(published, config),
        config.confidence,
        found.n if plain else None,
    )


def margin_of(published: Published, config: ReportConfig) -> float:
    """Points within which the number counts as reproduced: its table's own margin, else the configured one."""
    return config.margin if published.margin is None else published.margin


def judge_cell(cell: CellResult, published: Published, context: Context) -> NumberVerdict:
    """Verdict of one cell on one published number, by itself: corrected for no other number."""
    return settle([measure(cell, published, context)], context.settings)[0]


def settle(measured: Sequence[NumberVerdict], config: ReportConfig) -> list[NumberVerdict]:
    """The verdicts on the numbers of one table; "differs" is corrected (Holm) for all that are judged."""
    gaps = [v.gap for v in measured if v.gap is not None]
    # Of two bounds the one that is nearer counts, and nothing differs where they lie on both sides.
    raw = [max(v.gap.p, v.best.p if v.best else 0.0) for v in measured if v.gap is not None]
    corrected = iter(holm(raw))
    found = []
    for v in measured:
        if v.gap is None or v.flips is None:
            found.append(v)
            continue
        p = next(corrected)
        verdict, reason = judge_gaps(v.gap, v.best, margin_of(v.published, config), p, config)
        if verdict == CANNOT_TELL and v.gap.p < 1 - config.confidence <= p and v.best is None:
            reason += f"; not after Holm over {len(gaps)}"
        if v.cell is not None and v.cell.failed:
            reason += f"; {v.cell.failed} failed answers count as wrong"
        reason += f"; flip rate up to {100 * v.flips.d_high:.2g} %, {v.flips.source}"
        found.append(replace(v, verdict=verdict, reason=reason, p_holm=p))
    return found


def judge_numbers(context: Context) -> list[NumberVerdict]:
    """One verdict per published number and matching cell; the nearest cell's where none matches.

    Numbers that a source quotes for models without an adapter get no verdict.
    """
    verdicts = []
    for table in context.tables:
        measured = []
        for published in table.numbers.values():
            if published.quoted:
                continue
            matching, nearest = cells_of(published, context.cells)
            if matching:
                measured += [measure(cell, published, context) for cell in matching]
            elif nearest is not None:
                measured.append(measure(nearest, published, context))
            else:
                measured.append(NumberVerdict(published, NOT_RUN))
        verdicts += settle(measured, context.settings)
    return verdicts


def cells_of(published: Published, cells: Sequence[CellResult]) -> tuple[list[CellResult], CellResult | None]:
    """The cells of a published number's setting, and the nearest one of its model and benchmark."""
    asked = (published.task, published.setting.get("model"))
    candidates = [c for c in cells if not c.toy and (c.benchmark, c.setting["model"]) == asked]
    matching = [cell for cell in candidates if not published.differences(cell)]
    return matching, min(candidates, key=lambda c: (len(published.differences(c)), c.id), default=None)


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm), in their order."""
    order = sorted(range(len(p)), key=lambda k: p[k])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[k]))
        corrected[k] = largest
    return corrected


def verdict_counts(verdicts: Sequence[str]) -> str:
    """``3 reproduced, 1 differs, 178 not run``."""
    counts: dict[str, int] = defaultdict(int)
    for word in verdicts:
        counts[word] += 1
    order = sorted(counts, key=lambda word: (word == NOT_RUN, -counts[word]))
    return ", ".join(f"{counts[word]} {word}" for word in order)
