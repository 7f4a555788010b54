"""python -m pytest tests/report/test_power_spread.py"""

import numpy as np
import pytest
from cell_folders import context, questions, write_cell

from harness.verdicts import power
from harness.verdicts.noise import Runs, flip_rate, given
from harness.verdicts.power import largest_rate, smallest_difference, smallest_gap


@pytest.mark.parametrize(
    ("n", "gaps"),
    [
        (2700, (0.43, 0.59, 0.81, 1.26)),
        (1957, (0.50, 0.68, 0.95, 1.47)),
        (1337, (0.59, 0.82, 1.13, 1.76)),
        (1549, (0.55, 0.76, 1.06, 1.64)),
    ],
)
def test_the_smallest_gap_that_is_found(n, gaps):
    """Video-MME, MLVU's macro average, LongVideoBench, LVBench at 0.5, 1, 2 and 5 % of flips."""
    assert [smallest_gap(n, rate, 0.95, 0.8) for rate in (0.005, 0.01, 0.02, 0.05)] == pytest.approx(gaps, abs=0.0051)


def test_a_gap_of_that_size_is_found_as_often_as_it_says():
    from harness.verdicts.noise import gap_between

    rng, gap = np.random.default_rng(0), smallest_gap(1549, 0.02, 0.95, 0.8)
    noise = 100 * (rng.binomial(1549, 0.01, 2000) - rng.binomial(1549, 0.01, 2000)) / 1549
    found = np.mean([gap_between(50 + gap + e, 50.0, 0.05, 0.02, 1549).p < 0.05 for e in noise])
    assert found == pytest.approx(0.8, abs=0.03)
    quiet = np.mean([gap_between(50 + e, 50.0, 0.05, 0.02, 1549).p < 0.05 for e in noise])
    assert quiet < 0.055


def test_the_flip_rate_that_a_margin_bears():
    rate = largest_rate(2700, 1.0, 0.95)
    assert 0.05 + 1.645 * 100 * np.sqrt(rate / 2700) == pytest.approx(1.0, abs=1e-3)
    assert 0.05 < largest_rate(2700, 1.0, 0.95) < 0.10 and largest_rate(2700, 0.05, 0.95) == 0


def test_questions_of_a_claim_are_those_of_the_smallest_difference():
    """9,338 questions show 0.82 points between cells that disagree on 8 % (B4)."""
    assert smallest_difference(9338, 0.08, 0.95, 0.8) == pytest.approx(0.82, abs=0.005)


def test_the_rows_of_the_report(tmp_path):
    asked = questions("lvbench", 103, 15)
    right = np.random.default_rng(0).random(len(asked)) < 0.5
    write_cell(tmp_path, asked, right.tolist(), variant="full", digest="1")
    write_cell(tmp_path, asked, right.tolist(), variant="no_both", digest="2")
    write_cell(tmp_path, asked[:60], right[:60].tolist(), variant="full", digest="3", task__subset="mini")
    frame = power.power_section(context(tmp_path)).frame
    assert frame["questions"].tolist() == ["1545", "60"] and frame["videos"].tolist() == ["103", "4"]
    assert frame.filter(like="gap found").iloc[0, 0].startswith("0.55 / 0.76 / 1.06 / 1.6")


def test_spread_of_replicates_stands_beside_the_sampling_error(tmp_path):
    asked = questions("lvbench", 40)
    right = np.arange(120) % 2 == 0
    for replicate, flips in ((0, []), (1, [0, 2, 4]), (2, [3, 6])):
        answered = right.copy()
        answered[flips] ^= True
        write_cell(tmp_path, asked, answered.tolist(), digest=str(replicate), task__replicate=replicate)
    found = context(tmp_path)
    frame = power.spread_section(found).frame
    assert frame["drawn anew"].tolist() == ["replicate"] and frame["scores"].tolist() == ["50.0 / 47.5 / 50.0"]
    assert frame["flips"].tolist() == ["5 of 240"] and frame["in videos"].tolist() == ["4 of 80"]
    assert float(frame["spread"][0]) == pytest.approx(np.std([50, 47.5, 50], ddof=1), abs=0.005)
    # Replicates of the options' order are not what differs between two runs of one benchmark.
    assert found.flips(found.cells[0], "overall", "release") == given(None)


def test_a_flip_rate_is_pooled_over_pairs_of_runs():
    rng = np.random.default_rng(1)
    videos = np.repeat(np.arange(100), 3)
    runs = []
    for _ in range(3):
        a = rng.random(300) < 0.5
        runs.append(Runs(a, a ^ (rng.random(300) < 0.02), videos))
    one, three = flip_rate(runs[:1]), flip_rate(runs)
    assert three.n == 900 and three.videos == 300 and three.flips >= one.flips
    assert three.d_high - three.d < one.d_high - one.d
    assert (given(0.01).source, given(0.01).d_high, given(None).source, given(None).d_high) == (
        "given",
        0.01,
        "assumed",
        0.05,
    )
