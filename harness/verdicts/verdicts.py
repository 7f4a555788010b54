"""Verdicts on published numbers: is one reproduced, given what differs between two runs over the same questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from scipy import special

from harness.evidence.cells import CellResult
from harness.evidence.statistics import Difference, Estimate, mean_difference, questions_for_effect
from harness.settings.groups import ReportConfig
from harness.verdicts.context import Context
from harness.verdicts.expected import Claim, Published, PublishedTable
from harness.verdicts.noise import (
    ASSUMED_SOURCE,
    CAREFUL,
    FlipRate,
    Gap,
    SameQuestions,
    gap_between,
    on_these_questions,
    reachable_margin,
    sigma_of,
    weighed,
)
from harness.verdicts.pairs import unequal_budget

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
    notes = [f"{gap.gap:+.2f} points, reproduced within {gap.resolution:.2f} (margin {margin:.2f})"]
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
    margin = margin_of(published, config, flips, n)
    judged = partial(
        gap_between, found.value, published.score, published.rounding, n_eff=n / flips.deff, margin=margin,
        confidence=config.confidence, exact_n=found.n if plain else None,
    )  # fmt: skip
    gap = judged(d_high=flips.d_high)
    if flips.source == ASSUMED_SOURCE:  # nobody knows that it is not more, and "differs" has to stand all the same
        gap = replace(gap, p=judged(d_high=CAREFUL * flips.d_high).p)
    return replace(gap, margin=margin)


def margin_of(published: Published, config: ReportConfig, flips: FlipRate, n: float) -> float:
    """Points within which a number counts as reproduced.

    It is the margin of the number's table, else the configured one. Where the flip rate is assumed, it is at least the
    smallest that an equal process reaches in 95 of 100 runs: a narrower one would never say "reproduced".

    Args:
        n: effective number of questions.
    """
    asked = config.margin if published.margin is None else published.margin
    if flips.source != ASSUMED_SOURCE:
        return asked
    return max(asked, reachable_margin(n, flips.d_high, published.rounding, config.confidence))


def judge_cell(cell: CellResult, published: Published, context: Context) -> NumberVerdict:
    """Verdict of one cell on one published number, by itself: corrected for no other number."""
    return settle_numbers([measure(cell, published, context)], context.settings)[0]


def settle_numbers(measured: Sequence[NumberVerdict], config: ReportConfig) -> list[NumberVerdict]:
    """The verdicts on the numbers of one table; "differs" is corrected (Holm) for all that are judged."""
    # Of two bounds the nearer one counts, and nothing differs where they lie on both sides.
    raw = [max(v.gap.p, v.best.p if v.best else 0.0) for v in measured if v.gap is not None]
    corrected, verdicts = iter(holm(raw)), []
    for v in measured:
        if v.gap is None or v.flips is None:
            verdicts.append(v)
            continue
        p = next(corrected)
        verdict, reason = judge_gaps(v.gap, v.best, v.gap.margin, p, config)
        if verdict == CANNOT_TELL and v.gap.p < 1 - config.confidence <= p and v.best is None:
            reason += f"; not after Holm over {len(raw)}"
        if v.cell is not None and v.cell.failed:
            reason += f"; {v.cell.failed} failed answers count as wrong"
        reason += f"; flip rate up to {100 * v.flips.d_high:.2g} %, {v.flips.source}"
        verdicts.append(replace(v, verdict=verdict, reason=reason, p_holm=p))
    return verdicts


def judge_numbers(context: Context) -> list[NumberVerdict]:
    """One verdict per published number and matching cell; the nearest cell's where none matches.

    Numbers that a source quotes for models without an adapter get no verdict.
    """
    verdicts = []
    for table in context.tables:
        measured = []
        for published in (number for number in table.numbers.values() if not number.quoted):
            matching, nearest = cells_of(published, context.cells)
            cells = matching or ([] if nearest is None else [nearest])
            measured += [measure(cell, published, context) for cell in cells] or [NumberVerdict(published, NOT_RUN)]
        verdicts += settle_numbers(measured, context.settings)
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
    counts = Counter(verdicts)
    order = sorted(counts, key=lambda word: (word == NOT_RUN, -counts[word]))
    return ", ".join(f"{counts[word]} {word}" for word in order)


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
    if claim.published is not None and high < abs(claim.published):
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
        judged = []
        for claim in table.claims:
            for columns in [(c,) for c in claim.columns] if claim.each else [tuple(claim.columns)]:
                judged += _judge_claim(table, claim, columns, context)
        verdicts += _corrected(judged, context.settings)
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
    chosen = [(pair,) for pair in pairs[0]] if len(columns) == 1 else [tuple(of_column[0] for of_column in pairs)]
    return [_judge_pairs(table, claim, columns, cells, context) for cells in chosen]


def _judge_pairs(
    table: PublishedTable,
    claim: Claim,
    columns: tuple[str, ...],
    chosen: tuple[tuple[CellResult, CellResult], ...],
    context: Context,
) -> ClaimVerdict:
    settings, parts, noise = context.settings, [], []
    first, second = table.numbers[claim.a, columns[0]], table.numbers[claim.b, columns[0]]
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
        published = first.score - second.score
    rerun = on_these_questions(found.value, sigma_of(noise), published, first.rounding)
    effect = settings.neutral_margin if claim.direction == "none" else published
    needed = questions_for_effect(found, effect, settings.confidence, settings.power) if effect else None
    if verdict == CANNOT_TELL and effect and needed:
        reason += f"; needs about {needed} questions, has {found.n}"
        reason += f" to tell {abs(effect):.2g} points with power {settings.power:g}"
    a, b = chosen[0]
    if "frames" not in second.setting:
        reason += f" ({a.setting['frames']} against {b.setting['frames']} frames)"
    if budget := unequal_budget(a, b):
        reason += f"; {budget}"
    return ClaimVerdict(claim, columns, verdict, reason, found, needed, cells=chosen, rerun=rerun)


def _corrected(verdicts: Sequence[ClaimVerdict], config: ReportConfig) -> list[ClaimVerdict]:
    """Holm over the judged claims of a table, for each of the two verdicts; equivalence needs no correction."""
    general = holm([v.difference.p for v in verdicts if v.difference is not None])
    here = iter(holm([v.rerun.p_sign for v in verdicts if v.rerun is not None]))
    corrected, level, p_values = [], 1 - config.confidence, iter(general)
    for v in verdicts:
        if v.difference is None or v.rerun is None:
            corrected.append(v)
            continue
        p = next(p_values)
        verdict, reason = v.verdict, v.reason
        equivalence = v.claim.direction == "none" and verdict == HOLDS
        if verdict in (HOLDS, CONTRADICTED) and not equivalence and p >= level:
            verdict, reason = CANNOT_TELL, f"not after Holm over {len(general)}; {reason}"
        if v.rerun.p_same_size is not None and v.rerun.p_same_size < level:
            reason += "; another size than published, beyond what a rerun changes"
        on_these = judge_here(v.claim, v.difference.value, v.rerun.sigma, next(here), config)
        corrected.append(replace(v, verdict=verdict, reason=reason, p_holm=p, here=on_these))
    return corrected
