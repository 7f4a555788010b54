"""python -m pytest tests/report/test_compare.py

The committed baselines of the toy against their own answers with something planted in them.
"""

import pytest

from harness.report.baseline import load_baselines
from harness.report.compare import TIE, compare_rows, problem_of, tied

CELLS = [
    pytest.param(cell, id=f"{baseline.name}-{cell.name}")
    for baseline in load_baselines("results/baselines")
    for cell in baseline.cells
]


def problem(cell, change):
    rows = {name: row | change(i, row) for i, (name, row) in enumerate(cell.answers.items())}
    return problem_of(compare_rows(cell, rows, rows), True, 0.0, 0.01)


@pytest.mark.parametrize("cell", CELLS)
def test_only_the_same_answers_pass(cell):
    assert problem(cell, lambda i, row: {}) == ""
    assert problem(cell, lambda i, row: {"indices": "other"})  # one token of every answer, ties or not
    assert problem(cell, lambda i, row: {"text": "E"} if i == 7 else {})
    assert problem(cell, lambda i, row: {"next": row["next"] + 1} if i == 7 else {})


@pytest.mark.parametrize("cell", CELLS)
def test_rounding_that_decides_a_tie_passes(cell):
    ties = [i for i, row in enumerate(cell.answers.values()) if tied(row)][:2]
    assert ties, "no answer of the toy has a tie: look at the tolerance"
    assert problem(cell, lambda i, row: {"indices": "other", "margin": TIE / 3} if i in ties else {}) == ""
    clear = [i for i, row in enumerate(cell.answers.values()) if row["indices"] and not tied(row)]
    assert problem(cell, lambda i, row: {"indices": "other", "margin": TIE / 3} if i == clear[0] else {})
