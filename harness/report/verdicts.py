"""Verdicts: is a published number reproduced, and does a published claim hold, given the uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.report.cells import CellResult
from harness.report.config import ReportConfig
from harness.report.context import Context
from harness.report.expected import Claim, Published, PublishedTable
from harness.report.pairs import unequal_budget
from harness.report.statistics import (
    Difference,
    Estimate,
    mean_difference,
    questions_for_effect,
    questions_for_width,
)

REPRODUCED = "reproduced"
DIFFERS = "differs"
CANNOT_TELL = "cannot tell"
NOT_COMPARABLE = "not comparable"
NOT_RUN = "not run"
HOLDS = "holds"
CONTRADICTED = "contradicted"
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
    needed: int | None = None
    """Questions that would settle a ``cannot tell`` at the same score."""


@dataclass(frozen=True)
class ClaimVerdict:
    """What our results say about one published claim (or one column of it)."""

    claim: Claim
    columns: tuple[str, ...]
    verdict: str
    reason: str = ""
    difference: Difference | None = None
    needed: int | None = None
    """Questions that detect the published effect with the configured power."""
    p_holm: float | None = None
    """p value corrected (Holm) for all judged claims of the same table."""
    cells: tuple[tuple[CellResult, CellResult], ...] = ()


def judge_score(estimate: Estimate, published: Published, config: ReportConfig) -> tuple[str, str, int | None]:
    """Compare one score with one published number (two one-sided tests for equivalence).

    The published number is known up to its rounding, so the whole rounding interval has to be within the margin
    (``reproduced``) or outside the confidence interval (``differs``).

    Returns:
        verdict, reason, and for ``cannot tell`` the questions needed (None: more questions would not settle it).
    """
    low, high = published.score - published.rounding, published.score + published.rounding
    # Two one-sided tests at level 1 - confidence are the two-sided interval of confidence 2 * confidence - 1.
    near_low, near_high = estimate.interval(2 * config.confidence - 1)
    if near_low > high - config.margin and near_high < low + config.margin:
        return REPRODUCED, f"within {config.margin:g} points with {100 * config.confidence:g} % confidence", None
    wide_low, wide_high = estimate.interval(config.confidence)
    gap = estimate.value - published.score
    if wide_low > high or wide_high < low:
        interval = f"{100 * config.confidence:g} % interval {wide_low:.1f} to {wide_high:.1f}"
        return DIFFERS, f"{gap:+.{published.digits}f} points; the {interval} excludes {published.text}", None
    room, beyond = config.margin - abs(gap) - published.rounding, abs(gap) - published.rounding
    needed = None
    if room > 0:
        needed = questions_for_width(estimate, room, 2 * config.confidence - 1)
    elif beyond > 0:
        needed = questions_for_width(estimate, beyond, config.confidence)
    return CANNOT_TELL, f"n too small: {_needs(needed, estimate.n)}", needed


def judge_cell(cell: CellResult, published: Published, context: Context) -> NumberVerdict:
    """Verdict of one cell on one published number, its answers parsed as those behind the number were."""
    found = context.estimate(cell, published.metric, published.parser)
    if differences := published.differences(cell):
        return NumberVerdict(published, NOT_COMPARABLE, "; ".join(differences), cell, found)
    if not cell.complete:
        reason = f"incomplete: {cell.missing} of {cell.n} questions are not answered"
        return NumberVerdict(published, NOT_COMPARABLE, reason, cell, found)
    if found is None:
        return NumberVerdict(published, NOT_COMPARABLE, "the questions have no public answer", cell)
    verdict, reason, needed = judge_score(found, published, context.settings)
    if cell.failed:
        # A failed answer is wrong by rule, not by what the model would have said: both bounds have to agree.
        best = context.best_case(cell, published.metric, published.parser) or found
        other, _, _ = judge_score(best, published, context.settings)
        reason += f"; {cell.failed} failed answers count as wrong"
        if other != verdict:
            verdict, needed = CANNOT_TELL, None
            span = f"score {found.value:.1f} to {best.value:.1f}"
            reason = f"{cell.failed} failed answers decide ({span}): run.retry=failed"
    return NumberVerdict(published, verdict, reason, cell, found, needed)


def judge_numbers(context: Context) -> list[NumberVerdict]:
    """One verdict per published number and matching cell; the nearest cell's where none matches.

    Numbers that a source quotes for models without an adapter get no verdict.
    """
    verdicts = []
    for table in context.tables:
        for published in table.numbers.values():
            if published.quoted:
                continue
            matching, nearest = _of(published, context.cells)
            if matching:
                verdicts += [judge_cell(cell, published, context) for cell in matching]
            elif nearest is not None:
                verdicts.append(judge_cell(nearest, published, context))
            else:
                verdicts.append(NumberVerdict(published, NOT_RUN))
    return verdicts


def _of(published: Published, cells: Sequence[CellResult]) -> tuple[list[CellResult], CellResult | None]:
    """The cells of a published number's setting, and the nearest one of its model and benchmark."""
    asked = (published.task, published.setting.get("model"))
    candidates = [c for c in cells if not c.toy and (c.benchmark, c.setting["model"]) == asked]
    matching = [cell for cell in candidates if not published.differences(cell)]
    return matching, min(candidates, key=lambda c: (len(published.differences(c)), c.id), default=None)


def judge_difference(claim: Claim, found: Difference, config: ReportConfig) -> tuple[str, str]:
    """Verdict on a claim's direction from its paired difference: (verdict, reason)."""
    low, high = found.interval(config.confidence)
    if claim.direction == "none":
        near_low, near_high = found.interval(2 * config.confidence - 1)
        if -config.neutral_margin < near_low and near_high < config.neutral_margin:
            return HOLDS, f"no effect beyond {config.neutral_margin:g} points"
        if low > 0 or high < 0:
            return CONTRADICTED, "the interval excludes zero"
        return CANNOT_TELL, f"an effect beyond {config.neutral_margin:g} points is not excluded"
    low, high = (low, high) if claim.direction == "up" else (-high, -low)
    if low > 0:
        return HOLDS, "the interval excludes zero"
    if high < 0:
        return CONTRADICTED, "the interval lies on the other side of zero"
    size = abs(claim.published) if claim.published is not None else None
    if size is not None and high < size:
        return CANNOT_TELL, f"the interval holds zero, and excludes the published size {claim.published:+g}"
    return CANNOT_TELL, "the interval holds zero"


def judge_claims(context: Context) -> list[ClaimVerdict]:
    """Verdicts of all claims; p values are corrected within each table."""
    verdicts = []
    for table in context.tables:
        found = []
        for claim in table.claims:
            for columns in [(c,) for c in claim.columns] if claim.each else [tuple(claim.columns)]:
                found += _judge_claim(table, claim, columns, context)
        verdicts += _holm(found)
    return verdicts


def verdict_counts(verdicts: Sequence[NumberVerdict | ClaimVerdict]) -> str:
    """``3 reproduced, 1 differs, 178 not run``."""
    counts: dict[str, int] = {}
    for v in verdicts:
        counts[v.verdict] = counts.get(v.verdict, 0) + 1
    order = sorted(counts, key=lambda word: (word == NOT_RUN, -counts[word]))
    return ", ".join(f"{counts[word]} {word}" for word in order)


def _judge_claim(table: PublishedTable, claim: Claim, columns: tuple[str, ...], context: Context) -> list[ClaimVerdict]:
    pairs, problems = [], []
    for column in columns:
        sides = []
        for row in (claim.a, claim.b):
            published = table.numbers[row, column]
            matching, nearest = _of(published, context.cells)
            sides.append([cell for cell in matching if cell.complete])
            if matching and not sides[-1]:
                problems.append(f"{row} on {column} is incomplete")
            elif not matching and nearest is not None:
                problems.append(f"{row} on {column}: {'; '.join(published.differences(nearest))}")
            elif not matching:
                problems.append(f"{row} on {column} was not run")
        pairs.append([(a, b) for a in sides[0] for b in sides[1]])
    if problems:
        comparable = any("not run" not in problem for problem in problems)
        return [ClaimVerdict(claim, columns, NOT_COMPARABLE if comparable else NOT_RUN, "; ".join(problems))]
    if len(columns) == 1:
        return [_judge_pairs(table, claim, columns, (pair,), context) for pair in pairs[0]]
    return [_judge_pairs(table, claim, columns, tuple(column_pairs[0] for column_pairs in pairs), context)]


def _judge_pairs(
    table: PublishedTable,
    claim: Claim,
    columns: tuple[str, ...],
    chosen: tuple[tuple[CellResult, CellResult], ...],
    context: Context,
) -> ClaimVerdict:
    settings, parts = context.settings, []
    for column, (a, b) in zip(columns, chosen, strict=True):
        number = table.numbers[claim.a, column]
        part = context.paired(a, b, number.metric, number.parser)
        if part is None:
            return ClaimVerdict(claim, columns, NOT_COMPARABLE, "the cells share no scored question", cells=chosen)
        parts.append(part)
    found = mean_difference(parts)
    verdict, reason = judge_difference(claim, found, settings)
    published = claim.published
    if published is None and len(columns) == 1:
        published = table.numbers[claim.a, columns[0]].score - table.numbers[claim.b, columns[0]].score
    effect = settings.neutral_margin if claim.direction == "none" else published
    needed = questions_for_effect(found, effect, settings.confidence, settings.power) if effect else None
    if verdict == CANNOT_TELL and effect and needed:
        reason += f"; {_needs(needed, found.n)} to tell {abs(effect):.2g} points with power {settings.power:g}"
    a, b = chosen[0]
    if "frames" not in table.numbers[claim.b, columns[0]].setting:
        reason += f" ({a.setting['frames']} against {b.setting['frames']} frames)"
    if budget := unequal_budget(a, b):
        reason += f"; {budget}"
    return ClaimVerdict(claim, columns, verdict, reason, found, needed, cells=chosen)


def _holm(verdicts: list[ClaimVerdict]) -> list[ClaimVerdict]:
    judged = [v.difference.p for v in verdicts if v.difference is not None]
    if not judged:
        return verdicts
    from statsmodels.stats.multitest import multipletests

    corrected = iter(multipletests(judged, method="holm")[1])
    return [v if v.difference is None else replace(v, p_holm=float(next(corrected))) for v in verdicts]


def _needs(needed: int | None, n: int) -> str:
    if needed is None:
        return "more questions of the same kind would not settle it"
    return f"needs about {needed} questions, has {n}"
