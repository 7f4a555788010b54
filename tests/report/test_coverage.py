"""python -m pytest tests/report/test_coverage.py

The small version of ``scripts/bench_statistics.py``: fixed seeds, seconds.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_statistics.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_statistics_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("icc", "least"), [(0.0, 93), (0.1, 93), (0.3, 92)])
def test_five_flips_that_all_go_one_way_are_covered(bench, icc, least):
    """108 questions on 36 videos, where a clustered standard error alone covers 84 to 88 %."""
    subset = bench.design("108 / 36", 36, 108)
    found = bench.simulate_difference(subset, 5 / 108, 1.0, icc, 400, np.random.default_rng(0))
    assert found.coverage >= least and found.half < 8


def test_every_small_case_is_covered(bench, capsys):
    assert bench.main(["--quick"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["cases"] == 30 and record["below"] == []


def test_an_interval_that_is_too_narrow_is_found(bench):
    subset = bench.design("108 / 36", 36, 108)
    found = bench.simulate_score(subset, 0.65, 0.1, 400, np.random.default_rng(0))
    narrow = bench.Cell(found.kind, found.design, found.icc, found.case, 88.0, found.half, found.floor)
    assert bench.below([found], 400) == [] and bench.below([narrow], 400) == [narrow]


def test_draws_have_the_correlation_that_they_are_named_for(bench):
    of, rng = bench.design("300 / 100", 100, 300), np.random.default_rng(0)
    for icc in (0.0, 0.3):
        right = bench.answers(of, 0.65, icc, 400, rng)
        gained, lost = bench.flips(of, 0.1, 0.05, icc, 400, rng)
        for counts, p in ((right, 0.65), (gained, 0.1), (lost, 0.05)):
            assert counts.mean() / 3 == pytest.approx(p, rel=0.05)
            assert counts.var() / (3 * p * (1 - p)) == pytest.approx(1 + 2 * icc, rel=0.08)
