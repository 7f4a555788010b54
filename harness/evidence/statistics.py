"""Uncertainty of scores and of differences between cells, clustered by video.

Questions about one video share its difficulty, so videos, not questions, are the sampling units. The variance of a
mean, or of a mean of types' means, is the bias-reduced cluster-robust one (CR2) with the degrees of freedom of Bell and
McCaffrey. It sets how many independent questions the answers are worth; with few events (wrong answers, flips) that
number leans on an assumed correlation within a video. On that many questions a score gets the interval of Agresti and
Coull, a paired difference that of Bonett and Price, each with a t quantile: both stay honest where nothing varied.

Values are fractions, 0 or 1 per question, or graded between them where questions count together; every result is in
points, 100 times that.

Source: Bell and McCaffrey 2002 (CR2, degrees); Korn and Graubard 1998 (effective questions); Agresti and Coull 1998;
Bonett and Price 2012. Their coverage here: ``scripts/bench_statistics.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from harness.benchmarks.benchmark import benchmark as benchmark_of
from harness.evidence.cells import Asked

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
POINTS = 100.0
RHO0 = 0.2
"""Correlation within a video that is assumed where too few events were seen to measure one."""
KAPPA = 4.0
"""Events that the assumption weighs as much as."""
RHO_ALONE = 0.3
"""Correlation assumed in a type that one single video has: nothing can be measured there."""


@dataclass(frozen=True)
class Estimate:
    """A score with its uncertainty.

    value: points. n, clusters: questions and videos. df: degrees of freedom of the variance. n_eff: independent
    questions that these are worth, the design effect ``deff`` less than the questions weighed alike.
    """

    value: float
    n: int
    clusters: int
    df: float
    n_eff: float
    deff: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided interval in points, within 0 to 100 (Agresti and Coull, on ``n_eff`` questions)."""
        t, z = quantile(confidence, self.df), float(special.ndtri(0.5 + confidence / 2))
        n = max(self.n_eff * (z / t) ** 2, 1.0)  # what one video says is worth one question
        right = min(max(self.value / POINTS, 0.0), 1.0) * n
        middle = (right + z**2 / 2) / (n + z**2)
        reach = z * math.sqrt(middle * (1 - middle) / (n + z**2))
        return POINTS * max(middle - reach, 0.0), POINTS * min(middle + reach, 1.0)

    def centre(self, confidence: float) -> tuple[float, float]:
        """Middle of the interval, before it is cut to 0 to 100, and its standard error, in points."""
        t2 = min(quantile(confidence, self.df) ** 2, self.n_eff * float(special.ndtri(0.5 + confidence / 2)) ** 2)
        p = (self.value / POINTS * self.n_eff + t2 / 2) / (self.n_eff + t2)
        return POINTS * p, POINTS * math.sqrt(max(p * (1 - p), 0.0) / (self.n_eff + t2))


@dataclass(frozen=True)
class Difference(Estimate):
    """``a - b`` on the questions both answered.

    middle, se: centre of every interval and its standard error, in points, with one flip added each way. p: against no
    difference, two-sided, from the same interval. gained, lost: questions right in a only, and in b only.
    """

    middle: float
    se: float
    p: float
    gained: int
    lost: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided interval in points, within -100 to 100 (Bonett and Price, on ``n_eff`` questions)."""
        half = quantile(confidence, self.df) * self.se
        return max(self.middle - half, -POINTS), min(self.middle + half, POINTS)


def score(values: ArrayLike, clusters: ArrayLike, groups: ArrayLike | None = None) -> Estimate:
    """Mean of values from 0 to 1, or the macro average over groups, with its clustered uncertainty.

    Raises ValueError for no question, or lengths that differ.

    Args:
        values: right (1), wrong (0) or between per question, [n].
        clusters: the video of each question, [n].
        groups: question type of each question [n] for a macro average (mean of the types' means); None for the mean.
    """
    values, codes, labels = _aligned(values, clusters, groups)
    sizes = np.bincount(labels)
    right = np.bincount(labels, values)
    p = float(np.mean(right / sizes))
    alone = (right + 1) * (sizes - right + 1) / (sizes + 2.0) ** 2
    found = _clustered(values, codes, labels, p * (1 - p), min(float(right.sum()), len(values) - right.sum()), alone)
    return Estimate(POINTS * p, len(values), *found)


def difference(a: ArrayLike, b: ArrayLike, clusters: ArrayLike, groups: ArrayLike | None = None) -> Difference:
    """Paired difference of two cells' values on the same questions in the same order; otherwise as :func:`score`."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"paired cells need the same questions: {a.shape[0]} and {b.shape[0]} values")
    values, codes, labels = _aligned(a - b, clusters, groups)
    sizes = np.bincount(labels)
    up, down = (float(np.mean(np.bincount(labels, part) / sizes)) for part in (values.clip(0), (-values).clip(0)))
    flips = np.bincount(labels, values != 0)
    moment = up + down - (up - down) ** 2
    found = _clustered(values, codes, labels, moment, float(flips.sum()), (flips + 2) / (sizes + 2))
    _, df, n_eff, _ = found
    gain, loss = (up * n_eff + 1) / (n_eff + 2), (down * n_eff + 1) / (n_eff + 2)
    middle = gain - loss
    se = math.sqrt((gain + loss - middle**2) / (n_eff + 2))
    p = float(2 * special.stdtr(df, -abs(middle) / se))
    counts = int((values > 0).sum()), int((values < 0).sum())
    return Difference(POINTS * (up - down), len(values), *found, POINTS * middle, POINTS * se, p, *counts)


def mean_estimate(parts: Sequence[Estimate]) -> Estimate:
    """Mean of scores on separate benchmarks, whose videos are independent (degrees: Welch and Satterthwaite).

    Its interval is that of one score on as many effective questions as the mean is worth. The mean of the parts'
    intervals would not do: each leans towards one half by what its own few questions leave open, and so would they all.
    """
    if len(parts) == 1:
        return parts[0]
    _, df = _combined([part.centre(0.95)[1] for part in parts], [part.df for part in parts])
    return Estimate(*_mean(parts, df))


def mean_difference(parts: Sequence[Difference]) -> Difference:
    """Mean of differences on separate benchmarks, degrees of freedom by Welch and Satterthwaite."""
    if len(parts) == 1:
        return parts[0]
    se, df = _combined([part.se for part in parts], [part.df for part in parts])
    middle = sum(part.middle for part in parts) / len(parts)
    p = float(2 * special.stdtr(df, -abs(middle) / se))
    flips = sum(part.gained for part in parts), sum(part.lost for part in parts)
    return Difference(*_mean(parts, df), middle, se, p, *flips)


def questions_for_width(estimate: Estimate, half_width: float, confidence: float) -> int:
    """Questions, on more videos of the same kind, whose two-sided interval is ``half_width`` points wide each way."""
    t = quantile(confidence, estimate.df)
    p = (estimate.value / POINTS * estimate.n_eff + t**2 / 2) / (estimate.n_eff + t**2)
    return math.ceil(estimate.n * p * (1 - p) * (POINTS * t / half_width) ** 2 / estimate.n_eff)


def questions_for_effect(found: Difference, effect: float, confidence: float, power: float) -> int:
    """Questions, on more videos of the same kind, that tell ``effect`` points (not 0) from zero with that power."""
    z = special.ndtri(0.5 + confidence / 2) + special.ndtri(power)
    return math.ceil(float(found.n * (z * found.se / effect) ** 2))


@lru_cache(maxsize=4096)
def quantile(confidence: float, df: float) -> float:
    """Of the t distribution, for a two-sided interval."""
    return float(special.stdtrit(df, 0.5 + confidence / 2))


def _clustered(
    values: Floats, codes: Codes, labels: Codes, moment: float, events: float, alone: Floats
) -> tuple[int, float, float, float]:
    """Clusters, degrees of freedom, effective number of questions and design effect of a mean of groups' means.

    Args:
        values, codes, labels: [n], the last two count from 0.
        moment: variance of one question's value.
        events: that the variance was measured by.
        alone: per group, variance of one question of it; used where a single cluster has the group.
    """
    n_clusters, n_groups = int(codes.max()) + 1, int(labels.max()) + 1
    cells, shape = codes * n_groups + labels, (n_clusters, n_groups)
    inside: Floats = np.bincount(cells, minlength=n_clusters * n_groups).reshape(shape).astype(float)
    sizes = inside.sum(axis=0)
    n_weighed = n_groups**2 / float((1 / sizes).sum())
    if n_clusters == 1:
        return 1, 1.0, 1.0, n_weighed
    residuals = values - (np.bincount(labels, values) / sizes)[labels]
    sums = np.bincount(cells, residuals, n_clusters * n_groups).reshape(shape)
    share = inside / sizes
    single = share.max(axis=0) == 1
    factor = np.where(share == 1, 0.0, 1 / (n_groups * sizes * np.sqrt(1 - np.where(share == 1, 0.0, share))))
    unseen = alone * (1 + RHO_ALONE * (sizes - 1)) / (n_groups**2 * sizes)
    variance = float(((sums * factor).sum(axis=1) ** 2).sum() + unseen[single].sum())
    weights = (inside / (n_groups * sizes)).sum(axis=1)
    assumed = 1 + (float((weights**2).sum()) * n_weighed - 1) * RHO0
    seen = variance * n_weighed / moment if events and moment >= 1e-15 else assumed
    deff = (events * seen + KAPPA * assumed) / (events + KAPPA)
    # Questions in one video are worth no more than as many alone; a graded value is, for it varies less than a coin.
    if np.isin(values, (-1.0, 0.0, 1.0)).all():
        deff = max(1.0, deff)
    return n_clusters, _degrees(inside * factor, (inside * factor**2).sum(axis=1), sizes), n_weighed / deff, deff


def _degrees(weights: Floats, diagonal: Floats, sizes: Floats) -> float:
    """Degrees of freedom of the CR2 variance (Bell and McCaffrey); weights [clusters, groups], diagonal [clusters]."""
    scaled = weights / np.sqrt(sizes)
    norms = (scaled**2).sum(axis=1)
    trace = float(diagonal.sum() - norms.sum())
    square = float((diagonal**2).sum() - 2 * (diagonal * norms).sum() + ((scaled.T @ scaled) ** 2).sum())
    return max(1.0, trace**2 / square) if square > 0 else 1.0


def _combined(errors: Sequence[float], dfs: Sequence[float]) -> tuple[float, float]:
    """Standard error of the mean of independent parts, and its degrees of freedom (Welch and Satterthwaite)."""
    variances = [(error / len(errors)) ** 2 for error in errors]
    total = sum(variances)
    return math.sqrt(total), total**2 / sum(v**2 / df for v, df in zip(variances, dfs, strict=True))


def _mean(parts: Sequence[Estimate], df: float) -> tuple[float, int, int, float, float, float]:
    """The fields of an `Estimate` of a mean in which every part has the same weight."""
    effective = len(parts) ** 2 / sum(1 / part.n_eff for part in parts)
    weighed = len(parts) ** 2 / sum(1 / (part.n_eff * part.deff) for part in parts)
    n, clusters = sum(part.n for part in parts), sum(part.clusters for part in parts)
    return sum(part.value for part in parts) / len(parts), n, clusters, df, effective, weighed / effective


def _aligned(values: ArrayLike, clusters: ArrayLike, groups: ArrayLike | None) -> tuple[Floats, Codes, Codes]:
    values = np.asarray(values, float)
    if values.size == 0:
        raise ValueError("no question to average over")
    codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
    labels = np.zeros(len(values), int) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if not len(values) == len(codes) == len(labels):
        raise ValueError(f"lengths differ: {len(values)} values, {len(codes)} clusters, {len(labels)} groups")
    return values, codes, labels


@dataclass(frozen=True)
class Sample:
    """What a metric averages: unit ids [n], values [n] (0 to 1), videos [n], types [n] (None: one plain mean)."""

    units: NDArray[np.object_]
    values: Floats
    videos: Codes
    groups: Codes | None


def shared(a: Asked, b: Asked, right_a: Floats, right_b: Floats) -> tuple[Codes, Codes]:
    """Places of the questions scored in both, sorted by their ids, in a and in b."""
    places_a, places_b = a.by_name[~np.isnan(right_a[a.by_name])], b.by_name[~np.isnan(right_b[b.by_name])]
    if a is b:
        both = places_a[~np.isnan(right_b[places_a])]
        return both, both
    of_a, of_b = a.names[places_a], b.names[places_b]
    return places_a[np.isin(of_a, of_b)], places_b[np.isin(of_b, of_a)]


def main_metric(benchmark: str) -> str:
    """The metric of the benchmark's published table."""
    return benchmark_of(benchmark).metrics.main


def sample(asked: Asked, benchmark: str, metric: str, correct: Floats, places: Codes) -> Sample:
    """The questions over which ``metric`` is a mean, or a mean of means; empty when no question counts in the metric.

    Args:
        benchmark, metric: as for ``Asked.counted``.
        correct: per question, see ``CellResult.correct``.
        places: of the questions to take, in this order.
    """
    counted = asked.counted(benchmark, metric)
    at = places[counted.inside[places] & ~np.isnan(correct[places])]
    types = None if counted.types is None else counted.types[at]
    if counted.units is None:
        return Sample(asked.names[at], correct[at], asked.videos[at], types)
    table = {"unit": counted.units[at], "correct": correct[at], "video": asked.videos[at]}
    table |= {} if types is None else {"type": types}
    units = pd.DataFrame(table).groupby("unit").agg({"correct": "min"} | dict.fromkeys(list(table)[2:], "first"))
    groups = None if types is None else units["type"].to_numpy(np.intp)
    values = units["correct"].to_numpy(float)
    if counted.credit is not None:
        by_unit = (unit for _, unit in pd.Series(at).groupby(counted.units[at]))  # in the order of `units`
        scored = ([{"score": correct[i], "tags": asked.questions[i].tags} for i in unit] for unit in by_unit)
        values = np.array([counted.credit(items) for items in scored])
    return Sample(units.index.to_numpy(object), values, units["video"].to_numpy(), groups)
