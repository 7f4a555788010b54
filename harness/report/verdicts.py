"""Verdicts: is a published number reproduced, and does a published claim hold, given the uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.report.cells import CellResult
from harness.report.config import ReportConfig
from harness.report.expected import Claim, Published, Table
from harness.report.measures import estimate, paired, sample
from harness.report.statistics import (
    Difference,
    Estimate,
    mean_difference,
    questions_for_effect,
    questions_for_width,
    score,
)

REPRODUCED = "reproduced"
DIFFERS = "differs"
CANNOT_TELL = "cannot tell"
NOT_COMPARABLE = "not comparable"
NOT_RUN = "not run"
HOLDS = "holds"
CONTRADICTED = "contradicted"


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
    room = config.margin - abs(gap) - published.rounding
    if room > 0:
        needed = questions_for_width(estimate, room, 2 * config.confidence - 1)
    else:
        needed = questions_for_width(estimate, abs(gap) - published.rounding, config.confidence)
    return CANNOT_TELL, f"n too small: {_needs(needed, estimate.n)}", needed


def judge_cell(cell: CellResult, published: Published, config: ReportConfig) -> NumberVerdict:
    """Verdict of one cell on one published number."""
    if differences := published.differences(cell):
        return NumberVerdict(
            published, NOT_COMPARABLE, "; ".join(differences), cell, estimate(cell, published.metric, config)
        )
    if not cell.complete:
        reason = f"incomplete: {cell.missing} of {cell.n} questions are not answered"
        return NumberVerdict(published, NOT_COMPARABLE, reason, cell, estimate(cell, published.metric, config))
    found = estimate(cell, published.metric, config)
    if found is None:
        return NumberVerdict(published, NOT_COMPARABLE, "the questions have no public answer", cell)
    verdict, reason, needed = judge_score(found, published, config)
    if cell.failed:
        # A failed answer is wrong by rule, not by what the model would have said: both bounds have to agree.
        best = _if_failed_were_right(cell, published.metric, config)
        other, _, _ = judge_score(best, published, config)
        reason += f"; {cell.failed} failed answers count as wrong"
        if other != verdict:
            verdict, needed = CANNOT_TELL, None
            reason = (
                f"{cell.failed} failed answers decide (score {found.value:.1f} to {best.value:.1f}): run.retry=failed"
            )
    return NumberVerdict(published, verdict, reason, cell, found, needed)


def judge_numbers(tables: list[Table], cells: list[CellResult], config: ReportConfig) -> list[NumberVerdict]:
    """One verdict per published number and matching cell; the nearest cell's where none matches.

    Numbers that a source quotes for models without an adapter get no verdict.
    """
    real = [cell for cell in cells if not cell.toy]
    verdicts = []
    for table in tables:
        for published in table.numbers.values():
            if published.quoted:
                continue
            model = published.setting.get("model")
            candidates = [c for c in real if c.benchmark == published.task and c.setting["model"] == model]
            matching = [cell for cell in candidates if not published.differences(cell)]
            if matching:
                verdicts += [judge_cell(cell, published, config) for cell in matching]
            elif candidates:
                nearest = min(candidates, key=lambda cell: (len(published.differences(cell)), cell.id))
                verdicts.append(judge_cell(nearest, published, config))
            else:
                verdicts.append(NumberVerdict(published, NOT_RUN))
    return verdicts


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


def judge_claims(tables: list[Table], cells: list[CellResult], config: ReportConfig) -> list[ClaimVerdict]:
    """Verdicts of all claims; p values are corrected within each table."""
    real = [cell for cell in cells if not cell.toy]
    verdicts = []
    for table in tables:
        found = []
        for claim in table.claims:
            for columns in [(c,) for c in claim.columns] if claim.each else [tuple(claim.columns)]:
                found += _judge_claim(table, claim, columns, real, config)
        verdicts += _holm(found)
    return verdicts


def verdict_counts(verdicts: Sequence[NumberVerdict | ClaimVerdict]) -> str:
    """``3 reproduced, 1 differs, 178 not run``."""
    counts: dict[str, int] = {}
    for v in verdicts:
        counts[v.verdict] = counts.get(v.verdict, 0) + 1
    order = sorted(counts, key=lambda word: (word == NOT_RUN, -counts[word]))
    return ", ".join(f"{counts[word]} {word}" for word in order)


def _judge_claim(
    table: Table, claim: Claim, columns: tuple[str, ...], cells: list[CellResult], config: ReportConfig
) -> list[ClaimVerdict]:
    pairs, problems = [], []
    for column in columns:
        sides = []
        for row in (claim.a, claim.b):
            published = table.numbers[row, column]
            candidates = [
                c
                for c in cells
                if c.benchmark == published.task and c.setting["model"] == published.setting.get("model")
            ]
            matching = [c for c in candidates if not published.differences(c)]
            sides.append([cell for cell in matching if cell.complete])
            if matching and not sides[-1]:
                problems.append(f"{row} on {column} is incomplete")
            elif not matching and candidates:
                near = min(candidates, key=lambda c: len(published.differences(c)))
                problems.append(f"{row} on {column}: {'; '.join(published.differences(near))}")
            elif not matching:
                problems.append(f"{row} on {column} was not run")
        pairs.append([(a, b) for a in sides[0] for b in sides[1]])
    if problems:
        comparable = any("not run" not in problem for problem in problems)
        return [ClaimVerdict(claim, columns, NOT_COMPARABLE if comparable else NOT_RUN, "; ".join(problems))]
    if len(columns) == 1:
        return [_judge_pairs(table, claim, columns, (pair,), config) for pair in pairs[0]]
    return [_judge_pairs(table, claim, columns, tuple(column_pairs[0] for column_pairs in pairs), config)]


def _judge_pairs(table, claim, columns, chosen, config) -> ClaimVerdict:
    parts = [
        paired(a, b, table.numbers[claim.a, column].metric, config)
        for column, (a, b) in zip(columns, chosen, strict=True)
    ]
    if any(part is None for part in parts):
        return ClaimVerdict(claim, columns, NOT_COMPARABLE, "the cells share no scored question", cells=chosen)
    found = mean_difference(parts)
    verdict, reason = judge_difference(claim, found, config)
    published = claim.published
    if published is None and len(columns) == 1:
        published = table.numbers[claim.a, columns[0]].score - table.numbers[claim.b, columns[0]].score
    effect = config.neutral_margin if claim.direction == "none" else published
    needed = questions_for_effect(found, effect, config.confidence, config.power) if effect else None
    if verdict == CANNOT_TELL and needed:
        target = f"{abs(effect):.2g} points"
        reason += f"; {_needs(needed, found.n)} to tell {target} with power {config.power:g}"
    unstated = {"frames", "fps"} - set(table.numbers[claim.b, columns[0]].setting)
    if "frames" in unstated:
        a, b = chosen[0]
        reason += f" ({a.setting['frames']} against {b.setting['frames']} frames)"
    return ClaimVerdict(claim, columns, verdict, reason, found, needed, cells=chosen)


def _holm(verdicts: list[ClaimVerdict]) -> list[ClaimVerdict]:
    judged = [v for v in verdicts if v.difference is not None]
    if not judged:
        return verdicts
    from statsmodels.stats.multitest import multipletests

    corrected = multipletests([v.difference.p for v in judged], method="holm")[1]
    by_verdict = {id(v): float(p) for v, p in zip(judged, corrected, strict=True)}
    return [replace(v, p_holm=by_verdict[id(v)]) if id(v) in by_verdict else v for v in verdicts]


def _if_failed_were_right(cell: CellResult, metric: str, config: ReportConfig) -> Estimate:
    rows = cell.answered.copy()
    rows.loc[rows["status"] == "failed", "correct"] = 1.0
    taken = sample(cell.benchmark, metric, rows)
    return score(taken.values, taken.videos, taken.groups, resamples=config.resamples, seed=config.seed)


def _needs(needed: int | None, n: int) -> str:
    if needed is None:
        return "more questions of the same kind would not settle it"
    return f"needs about {needed} questions, has {n}"
