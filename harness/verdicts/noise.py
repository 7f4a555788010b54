"""What differs between two runs over the same questions: the noise that "reproduced" is judged against.

A published score is no parameter: it is a second run over the same questions. With the questions fixed, the gap between
two runs is the sum of answers that flip. If a share ``d`` of them flips and nothing else differs, its standard
deviation is 100 sqrt(d / N) points, N the effective number of questions, whatever the score is. How far new videos
would move a score is another question; the interval beside the score answers that one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from harness.evidence.statistics import POINTS, Estimate, difference, score

ASSUMED = 0.05
"""Flip rate where none was measured: careful, as no rerun on another machine is known to flip more."""
ASSUMED_SOURCE = "assumed"
CAREFUL = 2
"""Times the assumed rate for which a gap has to be more than noise before it "differs"."""
FEW = 5
"""Expected flips below which their difference is counted (Skellam), not taken for normal."""


@dataclass(frozen=True)
class FlipRate:
    """Share of answers that turn right or wrong between two runs, and the largest share not excluded (one-sided 95 %).

    d, d_high: fractions. flips, n: answers, over all pairs of runs. flipped_videos, videos: of each pair. deff: design
    effect of the signed flips. measured: whether runs were compared, else the rate was given or assumed.
    """

    d: float
    d_high: float
    source: str
    deff: float = 1.0
    flips: int = 0
    n: int = 0
    flipped_videos: int = 0
    videos: int = 0
    measured: bool = False


@dataclass(frozen=True)
class Runs:
    """The same questions answered in two runs: right or wrong, [n] each, their videos, and types of a macro average."""

    a: ArrayLike
    b: ArrayLike
    clusters: ArrayLike
    groups: ArrayLike | None = None


def flip_rate(runs: Sequence[Runs]) -> FlipRate:
    """The flip rate between runs that differ in nothing but noise, pooled.

    A video of several pairs is one cluster of the rate: its answers flip for the same reasons. The signed flips of
    different pairs are their own.
    """
    flipped = np.concatenate([np.not_equal(pair.a, pair.b) for pair in runs])
    videos = np.concatenate([np.asarray(pair.clusters) for pair in runs])
    own = [np.unique(np.asarray(pair.clusters), return_inverse=True)[1] for pair in runs]
    starts = np.cumsum([0, *(int(codes.max()) + 1 for codes in own)])
    alone = np.concatenate([codes + start for codes, start in zip(own, starts, strict=False)])
    types = [pair.groups for pair in runs if pair.groups is not None]
    signed = difference(
        np.concatenate([np.asarray(pair.a, float) for pair in runs]),
        np.concatenate([np.asarray(pair.b, float) for pair in runs]),
        alone,
        np.concatenate([np.asarray(of) for of in types]) if len(types) == len(runs) else None,
    )
    found = score(flipped, videos)
    flips, of_videos = int(flipped.sum()), len(np.unique(alone[flipped]))
    text = f"{flips} of {len(flipped)} answers in {len(runs)} pair{'s' * (len(runs) > 1)} of runs"
    high = found.interval(0.90)[1] / POINTS
    return FlipRate(
        found.value / POINTS, high, text, signed.deff, flips, len(flipped), of_videos, int(starts[-1]), True
    )


def given(rate: float | None) -> FlipRate:
    """A rate that nobody measured here: the given one, else the assumed one."""
    return FlipRate(ASSUMED, ASSUMED, ASSUMED_SOURCE) if rate is None else FlipRate(rate, rate, "given")


@dataclass(frozen=True)
class Gap:
    """Our score against a published one on the same questions, in points.

    sigma: standard deviation of the noise. resolution: the smallest margin within which the number is reproduced. p:
    chance of such a gap if only noise differs. explains: share of answers that would have to flip between runs to
    explain the gap (below it: differs). reproduces: the largest share that still lets it count as reproduced. margin:
    points that count as the same.
    """

    gap: float
    sigma: float
    resolution: float
    p: float
    explains: float
    reproduces: float
    margin: float = 0.0


def gap_between(
    ours: float,
    theirs: float,
    rounding: float,
    d_high: float,
    n_eff: float,
    margin: float = 1.0,
    confidence: float = 0.95,
    exact_n: int | None = None,
) -> Gap:
    """Judge one number.

    Args:
        ours, theirs: points; ``theirs`` known up to ``rounding``, half a unit of its last digit.
        d_high: share of answers that may flip between runs.
        n_eff: effective number of questions of the signed flips.
        margin: points that count as the same.
        exact_n: questions of a plain mean whose flips do not cluster: with few expected flips p is counted.
    """
    one, two = (float(special.ndtri(level)) for level in (confidence, 0.5 + confidence / 2))
    gap, sigma = ours - theirs, POINTS * math.sqrt(d_high / n_eff)
    beyond = max(0.0, abs(gap) - rounding)
    if exact_n is not None and exact_n * d_high < FEW:
        p = _counted(beyond, exact_n, d_high)
    else:
        p = _two_sided(beyond, sigma)
    room = max(0.0, margin - abs(gap) - rounding)
    return Gap(
        gap,
        sigma,
        abs(gap) + rounding + one * sigma,
        p,
        max(beyond / POINTS, n_eff * (beyond / (POINTS * two)) ** 2),
        n_eff * (room / (POINTS * one)) ** 2,
    )


def reachable_margin(n_eff: float, d: float, rounding: float, confidence: float) -> float:
    """The smallest margin, in points, within which two runs of one process reproduce each other `confidence` of the
    time, if a share `d` of the answers flips between them.
    """
    one, two = (float(special.ndtri(level)) for level in (confidence, 0.5 + confidence / 2))
    return rounding + (one + two) * POINTS * math.sqrt(d / n_eff)


def _counted(beyond: float, n: int, d: float) -> float:
    """Two-sided chance that the difference of two counts of flips is so large."""
    questions = math.ceil(beyond / POINTS * n - 1e-9)
    if questions <= 0:
        return 1.0
    # The difference of two Poisson counts of mean m reaches k with the chance that a noncentral chi-square of 2k
    # degrees of freedom and noncentrality 2m stays below 2m (Johnson 1959).
    return min(1.0, 2 * float(special.chndtr(n * d, 2 * questions, n * d))) if d else 0.0


def _two_sided(size: float, sigma: float) -> float:
    if sigma == 0:
        return 1.0 if size == 0 else 0.0
    return float(2 * special.ndtr(-size / sigma))


@dataclass(frozen=True)
class SameQuestions:
    """A difference between two cells on fixed questions.

    sigma: standard deviation of a rerun's difference, in points. p_sign: against no difference. p_same_size: chance
    that ours and the published difference are as far apart, if both are runs of one process; None without the latter.
    """

    sigma: float
    p_sign: float
    p_same_size: float | None


def on_these_questions(
    value: float, sigma: float, published: float | None = None, rounding: float = 0
) -> SameQuestions:
    """Whether the sign of a difference of ``value`` points survives a rerun, and whether its size is the published one.

    Args:
        sigma: see `sigma_of`.
        published: difference of two published numbers, each known up to ``rounding``.
    """
    size = None
    if published is not None:
        size = _two_sided(max(0.0, abs(value - published) - 2 * rounding), sigma * math.sqrt(2))
    return SameQuestions(sigma, _two_sided(abs(value), sigma), size)


def sigma_of(parts: Sequence[tuple[float, float]]) -> float:
    """Noise of a mean of differences, in points.

    Args:
        parts: of each benchmark the share of answers that may flip and the effective number of questions.
    """
    return POINTS * math.sqrt(sum(d / n for d, n in parts)) / len(parts)


def weighed(found: Estimate) -> float:
    """Questions of an estimate, weighed as its metric weighs them, before any clustering."""
    return found.n_eff * found.deff
