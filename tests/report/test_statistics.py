"""python -m pytest tests/report/test_statistics.py"""

import numpy as np
import pytest
from scipy import stats

from harness.report.statistics import (
    bootstrap,
    difference,
    mean_difference,
    questions_for_effect,
    questions_for_width,
    score,
)


def clustered_data(rng, n_videos=60, per_video=4, spread=0.25, mean=0.6):
    chance = np.clip(rng.normal(mean, spread, n_videos), 0, 1)
    values = rng.random((n_videos, per_video)) < chance[:, None]
    return values.ravel().astype(float), np.repeat(np.arange(n_videos), per_video)


def cluster_robust_by_hand(values, clusters):
    residual = values - values.mean()
    sums = np.array([residual[clusters == c].sum() for c in np.unique(clusters)])
    g = len(sums)
    return 100 * np.sqrt(g / (g - 1) * (sums**2).sum()) / len(values)


def test_clustered_standard_error_is_the_textbook_formula():
    values, videos = clustered_data(np.random.default_rng(0))
    found = score(values, videos)
    assert found.se == pytest.approx(cluster_robust_by_hand(values, videos), rel=1e-10)
    half = stats.t.ppf(0.975, 59) * found.se
    assert found.interval(0.95) == pytest.approx((found.value - half, found.value + half))
    assert found.df == 59 and found.clusters == 60 and found.n == 240


def test_clusters_of_one_question_give_the_ordinary_standard_error():
    values = np.array([1, 0, 1, 1, 0, 1, 0, 1.0])
    assert score(values, range(8)).se == pytest.approx(100 * values.std(ddof=1) / np.sqrt(8))


def test_questions_of_one_video_that_agree_widen_the_interval():
    values = np.tile([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], 10)
    alike, mixed = np.repeat(np.arange(20), 3), np.tile(np.arange(20), 3)
    assert score(values, alike).se > 1.5 * score(values, mixed).se


def test_bootstrap_agrees_with_the_formula_and_is_seeded():
    values, videos = clustered_data(np.random.default_rng(1))
    replicates = bootstrap(values, videos, resamples=4000, seed=3)
    assert replicates.std() == pytest.approx(score(values, videos).se, rel=0.05)
    np.testing.assert_array_equal(replicates, bootstrap(values, videos, resamples=4000, seed=3))
    assert not np.array_equal(replicates, bootstrap(values, videos, resamples=4000, seed=4))


def test_macro_average_weighs_types_alike_and_has_its_own_standard_error():
    rng = np.random.default_rng(2)
    types = np.array(["big"] * 270 + ["small"] * 30)
    values = np.concatenate([rng.random(270) < 0.5, rng.random(30) < 0.5]).astype(float)
    found = score(values, np.arange(300), types)
    big, small = values[:270], values[270:]
    assert found.value == pytest.approx(50 * (big.mean() + small.mean()))
    by_hand = 50 * np.sqrt(big.var() / 270 + small.var() / 30)
    assert found.se == pytest.approx(by_hand, rel=0.06)
    assert found.se > 1.15 * score(values, np.arange(300)).se  # the micro formula would be too narrow here


def test_one_type_is_the_plain_mean():
    values, videos = clustered_data(np.random.default_rng(3))
    plain, macro = score(values, videos), score(values, videos, ["only"] * len(values))
    assert (macro.value, macro.se, macro.method) == (plain.value, plain.se, "clustered t")


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_right_or_all_wrong_still_has_an_interval(right):
    found = score([right] * 60, np.repeat(np.arange(20), 3))
    low, high = found.interval(0.95)
    assert found.se == 0 and found.method == "Wilson over videos"
    # Wilson on 20 observations: z^2 / (20 + z^2)
    width = 100 * stats.norm.ppf(0.975) ** 2 / (20 + stats.norm.ppf(0.975) ** 2)
    assert (low, high) == pytest.approx((100 - width, 100) if right else (0, width))


def test_a_single_video_says_almost_nothing():
    low, high = score([1, 0, 1, 1], ["v"] * 4).interval(0.95)
    assert high - low > 60


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(400):
        values, videos = clustered_data(rng, n_videos=25, per_video=3, spread=0.2, mean=0.5)
        low, high = score(values, videos).interval(0.95)
        covered += low <= 50 <= high
    assert 0.915 <= covered / 400 <= 0.985


def test_paired_difference_counts_flips_and_is_tighter_than_unpaired():
    rng = np.random.default_rng(5)
    b, videos = clustered_data(rng, n_videos=100)
    a = b.copy()
    wrong, right = np.flatnonzero(b == 0), np.flatnonzero(b == 1)
    a[wrong[:12]], a[right[:4]] = 1, 0
    found = difference(a, b, videos)
    assert (found.gained, found.lost) == (12, 4)
    assert found.value == pytest.approx(100 * 8 / 400)
    assert found.se == pytest.approx(cluster_robust_by_hand(a - b, videos))
    assert found.se < score(a, videos).se
    assert found.p == pytest.approx(2 * stats.t.sf(found.value / found.se, 99))
    swapped = difference(b, a, videos)
    assert (swapped.value, swapped.p, swapped.gained) == (-found.value, found.p, 4)


def test_identical_answers_give_a_bound_instead_of_certainty():
    values, videos = clustered_data(np.random.default_rng(6), n_videos=50)
    found = difference(values, values, videos)
    low, high = found.interval(0.95)
    assert found.value == 0 and found.p == 1 and (found.gained, found.lost) == (0, 0)
    assert high == pytest.approx(100 * (1 - 0.025 ** (1 / 50))) and low == -high


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


def test_needed_questions_give_the_width_and_the_power_promised():
    rng = np.random.default_rng(9)
    found = score((rng.random(400) < 0.6).astype(float), np.arange(400))
    needed = questions_for_width(found, 1.0, 0.95)
    assert needed == pytest.approx(0.24 * (1.96 / 0.01) ** 2, rel=0.05)
    gap = difference(rng.random(400) < 0.6, rng.random(400) < 0.6, np.arange(400))
    assert questions_for_effect(gap, 1.0, 0.95, 0.8) == pytest.approx(400 * (gap.se * 2.802) ** 2, rel=0.01)
    assert questions_for_effect(difference([1, 0], [1, 0], [0, 1]), 1.0, 0.95, 0.8) is None


def test_no_question_is_an_error():
    with pytest.raises(ValueError, match="no question"):
        score([], [])
