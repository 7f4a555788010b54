"""Uncertainty of scores and of differences, clustered by video.

Questions about one video share its difficulty, so videos, not questions, are the sampling units. A mean gets the
cluster-robust standard error of statsmodels (CR1) and a t interval with one degree of freedom less than videos; a
macro average over question types gets its standard error from resampling whole videos. Where no variation between
videos is left (all right, all wrong, no answer flipped) the standard error is 0 and says nothing: a Wilson or exact
bound takes its place, counting every video as one observation.

Units: values are fractions (0 or 1 per question) or their differences; every result is in points, 100 times that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
POINTS = 100.0
KEPT_DRAWS = 16_000_000
"""Draws up to this number are kept for the next call."""
ZERO = 1e-9
"""Standard errors below this many points are rounding noise of identical clusters."""


@dataclass(frozen=True)
class Estimate:
    """A score or a difference with its uncertainty.

    value, se: points. ``method`` names what the interval is made of: ``clustered t``, ``video bootstrap t``,
    ``Wilson over videos`` or ``exact bound over videos``.
    """

    value: float
    se: float
    n: int
    clusters: int
    df: float
    method: str

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided interval in points; scores stay within 0 to 100, differences within -100 to 100."""
        if self.method == "Wilson over videos":
            return _wilson(self.value / POINTS, self.clusters, confidence)
        if self.method == "exact bound over videos":
            # Were the chance of a flip larger than this, at least one of so many videos would have shown one.
            bound = POINTS * (1 - ((1 - confidence) / 2) ** (1 / self.clusters))
            return max(self.value - bound, -POINTS), min(self.value + bound, POINTS)
        half = stats.t.ppf(0.5 + confidence / 2, self.df) * self.se
        floor = -POINTS if isinstance(self, Difference) else 0.0
        return max(self.value - half, floor), min(self.value + half, POINTS)


@dataclass(frozen=True)
class Difference(Estimate):
    """``a - b`` on the questions both answered: ``gained`` are right in a only, ``lost`` in b only."""

    p: float
    gained: int
    lost: int


def score(
    values: ArrayLike, clusters: ArrayLike, groups: ArrayLike | None = None, *, resamples: int = 4000, seed: int = 0
) -> Estimate:
    """Mean of 0/1 values, or the macro average over groups, with its clustered uncertainty.

    Args:
        values: right (1) or wrong (0) per question, [n].
        clusters: the video of each question, [n].
        groups: question type of each question [n] for a macro average (mean of the types' means); None for the mean.
        resamples, seed: of the bootstrap behind a macro average.

    Raises:
        ValueError: no question, or lengths that differ.
    """
    values, codes, labels = _aligned(values, clusters, groups)
    n_clusters = int(codes.max()) + 1
    value, se, method = _centre(values, codes, labels, n_clusters, resamples, seed)
    if se < ZERO:
        se, method = 0.0, "Wilson over videos"
    return Estimate(value, se, len(values), n_clusters, n_clusters - 1, method)


def difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> Difference:
    """Paired difference of two cells on the same questions, clustered by video.

    Args:
        a, b: right (1) or wrong (0) per question of the two cells, [n], same order.
        clusters, groups, resamples, seed: as for :func:`score`.

    Returns:
        The difference in points with a two-sided p value against zero and the flips each way.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"paired cells need the same questions: {a.shape[0]} and {b.shape[0]} values")
    values, codes, labels = _aligned(a - b, clusters, groups)
    n_clusters = int(codes.max()) + 1
    value, se, method = _centre(values, codes, labels, n_clusters, resamples, seed)
    if se < ZERO:
        # Every video moved alike: a sign test over videos where they moved, no evidence at all where they did not.
        se, method = 0.0, "exact bound over videos"
        p = 1.0 if abs(value) < ZERO else min(1.0, 2 * 0.5**n_clusters)
    else:
        p = float(2 * stats.t.sf(abs(value) / se, n_clusters - 1))
    gained, lost = int((a > b).sum()), int((a < b).sum())
    return Difference(value, se, len(values), n_clusters, n_clusters - 1, method, p, gained, lost)


def mean_estimate(parts: Sequence[Estimate]) -> Estimate:
    """Mean of scores on separate benchmarks (their videos are independent), Welch-Satterthwaite degrees."""
    if len(parts) == 1:
        return parts[0]
    k, n, clusters = len(parts), sum(part.n for part in parts), sum(part.clusters for part in parts)
    value = sum(part.value for part in parts) / k
    variances = [(part.se / k) ** 2 for part in parts]
    se = math.sqrt(sum(variances))
    if se < ZERO:
        return Estimate(value, 0.0, n, clusters, clusters - 1, "Wilson over videos")
    df = sum(variances) ** 2 / sum(v**2 / max(p.df, 1) for v, p in zip(variances, parts, strict=True))
    return Estimate(value, se, n, clusters, df, "mean of clustered estimates")


def mean_difference(parts: Sequence[Difference]) -> Difference:
    """Mean of differences on separate benchmarks, as :func:`mean_estimate`."""
    if len(parts) == 1:
        return parts[0]
    mean = mean_estimate(parts)
    gained, lost = sum(p.gained for p in parts), sum(p.lost for p in parts)
    common = (mean.value, mean.se, mean.n, mean.clusters, mean.df)
    if not mean.se:
        p = 1.0 if abs(mean.value) < ZERO else min(1.0, 2 * 0.5**mean.clusters)
        return Difference(*common, "exact bound over videos", p, gained, lost)
    p = float(2 * stats.t.sf(abs(mean.value) / mean.se, mean.df))
    return Difference(*common, "mean of clustered differences", p, gained, lost)


def bootstrap(
    values: ArrayLike, clusters: ArrayLike, groups: ArrayLike | None = None, *, resamples: int = 4000, seed: int = 0
) -> Floats:
    """Scores of resamples of whole videos, in points, [resamples]; a type absent from a resample is left out of it."""
    values, codes, labels = _aligned(values, clusters, groups)
    n_clusters, n_groups = int(codes.max()) + 1, int(labels.max()) + 1
    cell = codes * n_groups + labels
    sums = np.bincount(cell, values, n_clusters * n_groups).reshape(n_clusters, n_groups)
    counts = np.bincount(cell, minlength=n_clusters * n_groups).reshape(n_clusters, n_groups).astype(float)
    replicates = []
    for counted in _draws(n_clusters, resamples, seed):
        draws = counted.astype(float)
        drawn_sums, drawn_counts = draws @ sums, draws @ counts
        means = np.divide(drawn_sums, drawn_counts, out=np.full_like(drawn_sums, np.nan), where=drawn_counts > 0)
        replicates.append(np.nanmean(means, axis=1))
    return POINTS * np.concatenate(replicates)


def _draws(n_clusters: int, resamples: int, seed: int) -> Iterable[NDArray[np.uint16]]:
    """How often each video is drawn, in blocks [resamples of the block, n_clusters]."""
    size = n_clusters, resamples, seed
    return _kept_draws(*size) if n_clusters * resamples <= KEPT_DRAWS else _new_draws(*size)


def _new_draws(n_clusters: int, resamples: int, seed: int) -> Iterator[NDArray[np.uint16]]:
    rng = np.random.default_rng(seed)
    block = max(1, 4_000_000 // n_clusters)  # about 32 MB of draws at a time
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        yield rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=size).astype(np.uint16)


@lru_cache(maxsize=4)
def _kept_draws(n_clusters: int, resamples: int, seed: int) -> tuple[NDArray[np.uint16], ...]:
    """The same for every cell of a benchmark: their videos are as many."""
    return tuple(_new_draws(n_clusters, resamples, seed))


def questions_for_width(estimate: Estimate, half_width: float, confidence: float) -> int | None:
    """Questions that make the two-sided interval ``half_width`` points wide each way; None when that cannot be said.

    Assumes the questions per video and the correlation within a video stay as they are.
    """
    if half_width <= 0 or estimate.se <= 0:
        return None
    t = stats.t.ppf(0.5 + confidence / 2, estimate.df)
    return math.ceil(float(estimate.n * (t * estimate.se / half_width) ** 2))


def questions_for_effect(estimate: Estimate, effect: float, confidence: float, power: float) -> int | None:
    """Questions needed to tell a difference of ``effect`` points from zero with that power; None when unknown."""
    if not effect or estimate.se <= 0:
        return None
    z = stats.norm.ppf(0.5 + confidence / 2) + stats.norm.ppf(power)
    return math.ceil(float(estimate.n * (z * estimate.se / abs(effect)) ** 2))


def _centre(
    values: Floats, codes: Codes, labels: Codes, n_clusters: int, resamples: int, seed: int
) -> tuple[float, float, str]:
    """Value and standard error in points, and the name of the estimator."""
    n_groups = int(labels.max()) + 1
    if n_clusters < 2:
        means = np.bincount(labels, values, n_groups) / np.bincount(labels, minlength=n_groups)
        return POINTS * float(means.mean()), 0.0, "clustered t"
    if n_groups > 1:
        means = np.bincount(labels, values, n_groups) / np.bincount(labels, minlength=n_groups)
        replicates = bootstrap(values, codes, labels, resamples=resamples, seed=seed)
        # The bootstrap variance lacks the factor G / (G - 1) of the unbiased one.
        se = float(replicates.std()) * math.sqrt(n_clusters / (n_clusters - 1))
        return POINTS * float(means.mean()), se, "video bootstrap t"
    if np.ptp(np.bincount(codes, values - values.mean())) < 1e-12:  # no variation: skip a fit on a singular problem
        return POINTS * float(values.mean()), 0.0, "clustered t"
    import statsmodels.api as sm

    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    return POINTS * float(values.mean()), POINTS * float(fit.bse[0]), "clustered t"


def _aligned(values: ArrayLike, clusters: ArrayLike, groups: ArrayLike | None) -> tuple[Floats, Codes, Codes]:
    values = np.asarray(values, float)
    if values.size == 0:
        raise ValueError("no question to average over")
    codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
    labels = np.zeros(len(values), int) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if not len(values) == len(codes) == len(labels):
        raise ValueError(f"lengths differ: {len(values)} values, {len(codes)} clusters, {len(labels)} groups")
    return values, codes, labels


def _wilson(fraction: float, n: int, confidence: float) -> tuple[float, float]:
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(fraction * n, n, alpha=1 - confidence, method="wilson")
    return POINTS * float(max(low, 0.0)), POINTS * float(min(high, 1.0))
