"""Verdicts on published claims, two for each: does the difference hold for other videos, and on these questions?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import special

from harness.evidence.cells import CellResult
from harness.evidence.statistics import Difference, mean_difference, questions_for_effect
from harness.settings.groups import ReportConfig
from harness.verdicts.context import Context
from harness.verdicts.expected import Claim, PublishedTable
from harness.verdicts.noise import SameQuestions, on_these_questions, sigma_of, weighed
from harness.verdicts.pairs import unequal_budget
from harness.verdicts.verdicts import CANNOT_TELL, NOT_COMPARABLE, NOT_RUN, cells_of, holm

HOLDS = "holds"
CONTRADICTED = "contradicted"


@dataclass(frozen=True)
class ClaimVerdict:
    """What our results say about one published claim (or one column of it).

    verdict: whether it holds for other videos like these. here: whether it does on these questions, so that a rerun
    would find the same. Both are corrected (Holm) for all judged claims of the same table.
    """

    claim: Claim
    columns: tuple[str, ...]
    verdict: str
    reason: str = ""
    difference: Difference | None = None
    needed: int | None = None
    """Questions that detect the published effect with the configured power."""
    p_holm: float | None = None
    cells: tuple[tuple[CellResult, CellResult], ...] = ()
    here: str = NOT_RUN
    rerun: SameQuestions | None = None


def judge_difference(claim: Claim, found: Difference, config: ReportConfig) -> tuple[str, str]:
    """Verdict on a claim for other videos, from its paired difference, before correction: (verdict, reason)."""
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


def judge_here(claim: Claim, value: float, sigma: float, p_holm: float, config: ReportConfig) -> str:
    """Verdict on a claim on these questions: against what a rerun of both cells would change."""
    if claim.direction == "none":
        if abs(value) + float(special.ndtri(config.confidence)) * sigma <= config.neutral_margin:
            return HOLDS
        return CONTRADICTED if p_holm < 1 - config.confidence else CANNOT_TELL
    if p_holm >= 1 - config.confidence:
        return CANNOT_TELL
    return HOLDS if (value > 0) == (claim.direction == "up") else CONTRADICTED


def judge_claims(context: Context) -> list[ClaimVerdict]:
    """Verdicts of all claims; p values are corrected within each table, and decide."""
    verdicts = []
    for table in context.tables:
        found = []
        for claim in table.claims:
            for columns in [(c,) for c in claim.columns] if claim.each else [tuple(claim.columns)]:
                found += _judge_claim(table, claim, columns, context)
        verdicts += _corrected(found, context.settings)
    return verdicts


def _judge_claim(table: PublishedTable, claim: Claim, columns: tuple[str, ...], context: Context) -> list[ClaimVerdict]:
    pairs, problems = [], []
    for column in columns:
        sides = []
        for row in (claim.a, claim.b):
            published = table.numbers[row, column]
            matching, nearest = cells_of(published, context.cells)
            sides.append([cell for cell in matching if cell.complete])
            if matching and not sides[-1]:
                problems.append(f"{row} on {column} is incomplete")
            elif not matching and nearest is not None:
                problems.append(f"{row} on {column}: {'; '.join(published.differences(nearest))}")
            elif not matching:
                problems.append(f"{row} on {column} was not run")
        pairs.append([(a, b) for a in sides[0] for b in sides[1]])
    if problems:
        word = NOT_COMPARABLE if any("not run" not in problem for problem in problems) else NOT_RUN
        return [ClaimVerdict(claim, columns, word, "; ".join(problems), here=word)]
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
    settings, parts, noise = context.settings, [], []
    for column, (a, b) in zip(columns, chosen, strict=True):
        number = table.numbers[claim.a, column]
        part = context.paired(a, b, number.metric, number.parser)
        if part is None:
            reason = "the cells share no scored question"
            return ClaimVerdict(claim, columns, NOT_COMPARABLE, reason, cells=chosen, here=NOT_COMPARABLE)
        flips = context.flips(a, number.metric, number.parser)
        parts.append(part)
        noise.append((flips.d_high, weighed(part) / flips.deff))
    found = mean_difference(parts)
    verdict, reason = judge_difference(claim, found, settings)
    published = claim.published
    if published is None and len(columns) == 1:
        published = table.numbers[claim.a, columns[0]].score - table.numbers[claim.b, columns[0]].score
    rerun = on_these_questions(found.value, sigma_of(noise), published, table.numbers[claim.a, columns[0]].rounding)
    effect = settings.neutral_margin if claim.direction == "none" else published
    needed = questions_for_effect(found, effect, settings.confidence, settings.power) if effect else None
    if verdict == CANNOT_TELL and effect and needed:
        reason += f"; needs about {needed} questions, has {found.n}"
        reason += f" to tell {abs(effect):.2g} points with power {settings.power:g}"
    a, b = chosen[0]
    if "frames" not in table.numbers[claim.b, columns[0]].setting:
        reason += f" ({a.setting['frames']} against {b.setting['frames']} frames)"
    if budget := unequal_budget(a, b):
        reason += f"; {budget}"
    return ClaimVerdict(claim, columns, verdict, reason, found, needed, cells=chosen, rerun=rerun)


def _corrected(verdicts: Sequence[ClaimVerdict], config: ReportConfig) -> list[ClaimVerdict]:
    """Holm over the judged claims of a table, for each of the two verdicts; equivalence needs no correction."""
    judged = [(v.difference, v.rerun) for v in verdicts if v.difference is not None and v.rerun is not None]
    general = iter(holm([difference.p for difference, _ in judged]))
    here = iter(holm([rerun.p_sign for _, rerun in judged]))
    found = []
    for v in verdicts:
        if v.difference is None or v.rerun is None:
            found.append(v)
            continue
        p, level = next(general), 1 - config.confidence
        verdict, reason = v.verdict, v.reason
        equivalence = v.claim.direction == "none" and verdict == HOLDS
        if verdict in (HOLDS, CONTRADICTED) and not equivalence and p >= level:
            verdict, reason = CANNOT_TELL, f"not after Holm over {len(judged)}; {reason}"
        if v.rerun.p_same_size is not None and v.rerun.p_same_size < level:
            reason += "; another size than published, beyond what a rerun changes"
        on_these = judge_here(v.claim, v.difference.value, v.rerun.sigma, next(here), config)
        found.append(replace(v, verdict=verdict, reason=reason, p_holm=p, here=on_these))
    return found
