"""python -m pytest tests/report/test_statistics.py"""

import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from run_statistics_case import run_case
from scipy import stats

from harness.evidence.statistics import (
    difference,
    mean_difference,
    mean_estimate,
    questions_for_effect,
    questions_for_width,
    score,
)

CASES = json.loads(Path(__file__).with_name("statistics_values.json").read_text())["cases"]
VIDEOS = np.repeat(np.arange(36), 3)
"""Of the CI subset's shape: 108 questions."""


def clustered_data(rng, n_videos=60, per_video=4, spread=0.25, mean=0.6):
    chance = np.clip(rng.normal(mean, spread, n_videos), 0, 1)
    values = rng.random((n_videos, per_video)) < chance[:, None]
    return values.ravel().astype(float), np.repeat(np.arange(n_videos), per_video)


def cr2_by_algebra(values, codes, labels):
    """Variance and degrees of freedom of the mean of types' means, from the definition of CR2 with dense matrices."""
    groups = int(labels.max()) + 1
    design = np.eye(groups)[labels]
    inverse = np.linalg.inv(design.T @ design)
    hat = design @ inverse @ design.T
    contrast = np.full(groups, 1 / groups)
    residual = values - hat @ values
    away = np.eye(len(values)) - hat
    total, columns = 0.0, []
    for cluster in np.unique(codes):
        own = codes == cluster
        values_, vectors = np.linalg.eigh(np.eye(own.sum()) - hat[np.ix_(own, own)])
        adjust = vectors @ np.diag(values_.clip(1e-12) ** -0.5) @ vectors.T
        weight = adjust @ design[own] @ inverse @ contrast
        total += (weight @ residual[own]) ** 2
        columns.append(away[:, own] @ weight)
    gram = np.array(columns) @ np.array(columns).T
    return total, np.trace(gram) ** 2 / (gram**2).sum()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['function']}: {case['note']}")
def test_reference_value(case):
    got, expected = run_case(case["function"], case), case["expected"]
    if isinstance(expected, dict):
        got = {name: got[name] for name in expected}
    assert got == pytest.approx(expected, abs=1.5e-6)


@pytest.mark.parametrize("types", [1, 4])
def test_closed_form_is_the_definition_of_the_variance_and_its_degrees(types):
    rng = np.random.default_rng(types)
    codes = np.sort(rng.integers(0, 40, 200))
    codes = np.unique(codes, return_inverse=True)[1]
    labels = rng.integers(0, types, 200)
    values = (rng.random(200) < rng.random(40)[codes]).astype(float)
    found = score(values, codes, labels if types > 1 else None)
    variance, df = cr2_by_algebra(values, codes, labels)
    assert found.df == pytest.approx(df, rel=1e-9)
    p, events = found.value / 100, min(values.sum(), 200 - values.sum())
    weight = 1 / (types * np.bincount(labels)[labels])
    alike = 1 / (weight**2).sum()
    assumed = 1 + 0.2 * ((np.bincount(codes, weight) ** 2).sum() * alike - 1)
    deff = (events * variance * alike / (p * (1 - p)) + 4 * assumed) / (events + 4)
    assert deff > 1 and found.deff == pytest.approx(deff) and found.n_eff == pytest.approx(alike / deff)


def test_videos_of_one_size_give_the_cluster_robust_variance_of_statsmodels():
    values, videos = clustered_data(np.random.default_rng(0))
    fit = sm.OLS(values, np.ones(240)).fit(cov_type="cluster", cov_kwds={"groups": videos}, use_t=True)
    variance, df = cr2_by_algebra(values, videos, np.zeros(240, int))
    assert variance == pytest.approx(float(fit.bse[0]) ** 2) and df == pytest.approx(59)
    assert score(values, videos).df == pytest.approx(59)


def test_interval_of_a_score_is_the_formula_with_a_t_quantile():
    values, videos = clustered_data(np.random.default_rng(1), n_videos=12)
    found = score(values, videos)
    t2, n, p = stats.t.ppf(0.95, found.df) ** 2, found.n_eff, found.value / 100
    middle = (p * n + t2 / 2) / (n + t2)
    half = np.sqrt(t2 * middle * (1 - middle) / (n + t2))
    assert found.interval(0.9) == pytest.approx((100 * (middle - half), 100 * (middle + half)))
    centre, error = found.centre(0.9)
    assert (centre, error * np.sqrt(t2)) == pytest.approx((100 * middle, 100 * half))


def test_questions_of_one_video_that_agree_widen_the_interval():
    values = np.tile([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], 10)
    alike, mixed = np.repeat(np.arange(20), 3), np.tile(np.arange(20), 3)
    (low, high), (low_mixed, high_mixed) = (score(values, of).interval(0.95) for of in (alike, mixed))
    assert high - low > 1.4 * (high_mixed - low_mixed)


def test_macro_average_weighs_types_alike_and_has_its_own_uncertainty():
    rng = np.random.default_rng(2)
    types = np.array(["big"] * 270 + ["small"] * 30)
    values = np.concatenate([rng.random(270) < 0.5, rng.random(30) < 0.5]).astype(float)
    found = score(values, np.arange(300), types)
    big, small = values[:270], values[270:]
    assert found.value == pytest.approx(50 * (big.mean() + small.mean()))
    assert found.n_eff * found.deff == pytest.approx(4 / (1 / 270 + 1 / 30))
    assert found.n_eff < 0.5 * score(values, np.arange(300)).n_eff


def test_one_type_is_the_plain_mean():
    values, videos = clustered_data(np.random.default_rng(3))
    assert score(values, videos, ["only"] * len(values)) == score(values, videos)


def test_a_single_video_says_almost_nothing():
    low, high = score([1, 0, 1, 1], ["v"] * 4).interval(0.95)
    assert high - low > 80
    assert difference([1, 0, 1, 1], [0, 0, 1, 1], ["v"] * 4).interval(0.95) == (-100, 100)


@pytest.mark.parametrize("one_way", [True, False])
def test_one_more_flip_never_narrows_the_interval(one_way):
    """Flips in videos of their own; all one way, or in turn."""
    width, base = [], np.tile([1.0, 0.0, 1.0], 36)
    for flips in range(12):
        changed = base.copy()
        for video in range(flips):
            place = 3 * video + (1 if one_way or video % 2 else 0)
            changed[place] = 1 - changed[place]
        low, high = difference(changed, base, VIDEOS).interval(0.95)
        width.append(high - low)
    assert all(later > earlier for earlier, later in zip(width, width[1:], strict=False))


@pytest.mark.parametrize(
    ("flips", "low", "high", "p"),
    [(0, -3.63, 3.63, 1), (1, -3.12, 4.93, 0.65), (4, -1.34, 8.59, 0.15), (6, 0.01, 10.88, 0.050)],
)
def test_few_flips_of_the_small_subset(flips, low, high, p):
    a = np.zeros(108)
    a[: 3 * flips : 3] = 1
    found = difference(a, np.zeros(108), VIDEOS)
    assert found.interval(0.95) == pytest.approx((low, high), abs=0.005) and found.p == pytest.approx(p, abs=0.005)
    assert (found.gained, found.lost) == (flips, 0)


@pytest.mark.parametrize("wrong", range(4))
def test_few_wrong_answers_of_the_small_subset(wrong):
    values = np.ones(108)
    values[: 3 * wrong : 3] = 0
    expected = [(93.9, 100), (92.8, 100), (91.7, 100), (90.6, 99.7)][wrong]
    assert score(values, VIDEOS).interval(0.95) == pytest.approx(expected, abs=0.05)


def test_the_p_value_is_the_level_at_which_the_interval_reaches_zero():
    rng = np.random.default_rng(4)
    found = difference(rng.random(108) < 0.6, rng.random(108) < 0.5, VIDEOS)
    low, high = found.interval(1 - found.p)
    assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-9)


def test_a_difference_the_other_way_round_is_its_mirror():
    rng = np.random.default_rng(5)
    b, videos = clustered_data(rng, n_videos=100)
    a = b.copy()
    wrong, right = np.flatnonzero(b == 0), np.flatnonzero(b == 1)
    a[wrong[:12]], a[right[:4]] = 1, 0
    found, swapped = difference(a, b, videos), difference(b, a, videos)
    assert (found.gained, found.lost, swapped.gained, swapped.lost) == (12, 4, 4, 12)
    assert found.value == pytest.approx(100 * 8 / 400) and swapped.value == -found.value
    assert swapped.p == pytest.approx(found.p)
    assert swapped.interval(0.95) == pytest.approx(tuple(-x for x in found.interval(0.95)[::-1]))


def test_p_values_are_uniform_under_no_effect():
    rng = np.random.default_rng(7)
    videos = np.repeat(np.arange(40), 3)
    p = [difference(rng.random(120) < 0.5, rng.random(120) < 0.5, videos).p for _ in range(400)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.035)


def test_mean_over_benchmarks_adds_independent_variances():
    rng = np.random.default_rng(8)
    parts = [difference(*(rng.random(300) < 0.5 for _ in range(2)), np.arange(300)) for _ in range(3)]
    found = mean_difference(parts)
    assert found.value == pytest.approx(np.mean([p.value for p in parts]))
    assert found.se == pytest.approx(np.sqrt(sum(p.se**2 for p in parts)) / 3)
    assert 299 < found.df <= 3 * 299 + 1
    assert found.n_eff == pytest.approx(9 / sum(1 / part.n_eff for part in parts))
    silent = [difference([1, 0] * 50, [1, 0] * 50, np.arange(100))] * 2
    assert mean_difference(silent).interval(0.95)[1] > 1  # nothing flipped anywhere, and still no certainty


def test_mean_score_over_benchmarks_lies_within_a_narrower_interval():
    rng = np.random.default_rng(9)
    parts = [score((rng.random(300) < chance).astype(float), np.arange(300)) for chance in (0.4, 0.6, 0.9)]
    found = mean_estimate(parts)
    low, high = found.interval(0.95)
    halves = [(part.interval(0.95)[1] - part.interval(0.95)[0]) / 2 for part in parts]
    assert found.value == pytest.approx(np.mean([part.value for part in parts])) and low < found.value < high
    together = np.sqrt(sum(half**2 for half in halves)) / 3
    assert together <= (high - low) / 2 <= 1.15 * together  # as if all were the mean: no narrower
    assert mean_estimate(parts[:1]) is parts[0]


def test_the_interval_of_a_mean_of_small_benchmarks_covers_it():
    """Each score near 100 % leans far towards one half; their mean must not."""
    rng, inside, draws = np.random.default_rng(4), 0, 200
    for _ in range(draws):
        parts = [score((rng.random(30) < 0.97).astype(float), np.repeat(np.arange(10), 3)) for _ in range(8)]
        low, high = mean_estimate(parts).interval(0.95)
        inside += low <= 97 <= high
    assert inside / draws >= 0.93


def test_needed_questions_give_the_width_and_the_power_promised():
    rng = np.random.default_rng(9)
    found = score((rng.random(400) < 0.6).astype(float), np.arange(400))
    needed = questions_for_width(found, 1.0, 0.95)
    assert needed == pytest.approx(found.deff * 0.24 * (1.96 / 0.01) ** 2, rel=0.05)
    gap = difference(rng.random(400) < 0.6, rng.random(400) < 0.6, np.arange(400))
    assert questions_for_effect(gap, 1.0, 0.95, 0.8) == pytest.approx(400 * (gap.se * 2.802) ** 2, rel=0.01)
    assert questions_for_effect(difference([1, 0], [1, 0], [0, 1]), 1.0, 0.95, 0.8) > 1000


def test_a_credit_between_right_and_wrong_has_the_interval_of_its_own_variance():
    """Part credits vary less than right and wrong answers of the same mean."""
    rng = np.random.default_rng(10)
    credits = rng.choice([0.25, 0.5, 0.75], 108)
    found = score(credits, VIDEOS)
    low, high = found.interval(0.95)
    variance, df = cr2_by_algebra(credits, VIDEOS, np.zeros(108, int))
    assert found.value == pytest.approx(100 * credits.mean())
    assert 1 < (high - low) / 2 / (100 * stats.t.ppf(0.975, df) * np.sqrt(variance)) < 1.5
    gap = difference(credits, np.full(108, 0.5), VIDEOS)
    assert gap.value == pytest.approx(100 * (credits.mean() - 0.5)) and gap.gained == (credits > 0.5).sum()


def test_no_question_is_an_error():
    with pytest.raises(ValueError, match="no question"):
        score([], [])
