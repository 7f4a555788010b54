"""python -m pytest tests/report/test_gate.py"""

import numpy as np
import pytest
from scipy import stats

from harness.gate.compare import ALPHA, Flips, KnownNoise, Noise, gate_fails, gate_p

VIDEOS = np.repeat(np.arange(36), 3).tolist()


def cell(lost=(), gained=(), benchmark="lvbench"):
    return Flips(benchmark, VIDEOS, [i in lost for i in range(108)], [i in gained for i in range(108)])


def test_flips_of_one_video_are_one_event():
    spread, together = (gate_p({"a": cell(lost)}, Noise(2, 72)) for lost in ((0, 3, 6), (0, 1, 2)))
    assert spread["flips a"] < together["flips a"] and together["flips a"] > 0.2
    assert spread["worse a"] == pytest.approx(1 / 8) and together["worse a"] == pytest.approx(1 / 2)
    assert gate_p({"a": cell((0,), (1,))}, Noise(2, 72))["worse a"] == 1  # one lost and one gained: the video is even


def test_tail_knows_how_well_the_rate_is_known():
    """The same share of flipped videos: measured on few videos it excludes less, on very many it is the binomial."""
    few, many = (Noise(n // 36, n).tail(6, 36, 108) for n in (36, 36_000_000))
    assert few > 5 * many and many == pytest.approx(stats.binom.sf(5, 36, 1 / 36), rel=1e-3)
    rate = 1 - (35 / 36) ** (1 / 3)
    assert KnownNoise(rate).tail(6, 36, 108) == pytest.approx(many, rel=1e-3)


def test_nothing_measured_to_flip_lets_one_flip_pass():
    assert gate_fails(gate_p({"a": cell()}, Noise(0, 36))) == []
    assert gate_fails(gate_p({"a": cell((0,))}, Noise(0, 36))) == []
    assert gate_fails(gate_p({"a": cell(range(0, 60, 3))}, Noise(0, 36)))


def test_the_limits_of_all_tests_add_up_to_alpha():
    names = [f"{kind} {name}" for kind in ("flips", "worse") for name in ("a", "b", "c", "all")]
    limits = {name: ALPHA / 4 if name.endswith("all") else ALPHA / 12 for name in names}
    assert sum(limits.values()) == pytest.approx(ALPHA)
    assert gate_fails({name: 0.999 * limit for name, limit in limits.items()}) == names
    assert gate_fails({name: limit for name, limit in limits.items()}) == []


def test_cells_of_a_benchmark_share_their_videos():
    """Lost in one cell and gained in another is no loss of the video; of two benchmarks they are two videos."""
    same = gate_p({"a": cell(range(0, 30, 3)), "b": cell((), range(0, 30, 3))}, Noise(20, 72))
    other = gate_p({"a": cell(range(0, 30, 3)), "b": cell((), range(0, 30, 3), "mlvu")}, Noise(20, 72))
    assert same["worse all"] == 1 and other["worse all"] == pytest.approx(stats.binom.sf(9, 20, 0.5))


def test_false_alarms_are_rare_where_flips_come_together():
    """Four cells of 36 videos: in 3 % of them, a question flips with chance a half; the rate stems from one pair."""
    rng, alarms = np.random.default_rng(0), 0

    def pair():
        flipped = (rng.random((4, 36, 1)) < 0.03) & (rng.random((4, 36, 3)) < 0.5)
        return flipped, rng.random((4, 36, 3)) < 0.5

    for _ in range(250):
        before, _ = pair()
        flipped, ways = pair()
        cells = {
            str(i): Flips("lvbench", VIDEOS, (flipped[i] & ways[i]).ravel(), (flipped[i] & ~ways[i]).ravel())
            for i in range(4)
        }
        alarms += bool(gate_fails(gate_p(cells, Noise(int(before.any(-1).sum()), 144))))
    assert alarms <= 6  # 1 % of 250, and three standard deviations
