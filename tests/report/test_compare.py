"""python -m pytest tests/report/test_compare.py

The committed baselines of the toy against their own answers with something planted in them.
"""

import shlex
from pathlib import Path

import pytest
import yaml
from verbs import composed

from harness.gate.baseline import load_baselines, read_baseline
from harness.gate.check import baseline_path
from harness.gate.compare import TIE, compare_rows, problem_of, tied

REPO = Path(__file__).resolve().parents[2]
CELLS = [
    pytest.param(cell, id=f"{baseline.name}-{cell.name}")
    for baseline in load_baselines("results/baselines")
    for cell in baseline.cells
]


def problem(cell, change):
    rows = {name: row | change(i, row) for i, (name, row) in enumerate(cell.answers.items())}
    return problem_of(compare_rows(cell, rows, rows), True, {})


@pytest.mark.parametrize("cell", CELLS)
def test_only_the_same_answers_pass(cell):
    assert problem(cell, lambda i, row: {}) == ""
    assert problem(cell, lambda i, row: {"indices": "other"})  # one token of every answer, ties or not
    assert problem(cell, lambda i, row: {"text": "Z"} if i == 7 else {})
    assert problem(cell, lambda i, row: {"next": row["next"] + 1} if i == 7 else {})


@pytest.mark.parametrize("cell", CELLS)
def test_rounding_that_decides_a_tie_passes(cell):
    ties = [i for i, row in enumerate(cell.answers.values()) if tied(row)][:2]
    if not ties:
        pytest.skip("no answer of this cell has a tie")
    assert problem(cell, lambda i, row: {"indices": "other", "margin": TIE / 3} if i in ties else {}) == ""
    clear = [i for i, row in enumerate(cell.answers.values()) if row["indices"] and not tied(row)]
    assert problem(cell, lambda i, row: {"indices": "other", "margin": TIE / 3} if i == clear[0] else {})


def test_ties_are_few_but_there_are_some():
    rows = [row for cell in CELLS for row in cell.values[0].answers.values()]
    assert 0 < sum(map(tied, rows)) < len(rows) / 4, "look at the tolerance"


def test_the_subset_is_a_part_of_the_whole_with_the_same_answers():
    whole = read_baseline(REPO / "results" / "baselines" / "toy_ablation.json")
    part = read_baseline(REPO / "results" / "baselines" / "toy_ablation_ci.json")
    assert len(part.cells) == len(whole.cells) == 48
    for cell in part.cells:
        key = cell.key | {"task": cell.key["task"] | {"subset": None}}
        (same,) = (other for other in whole.cells if other.key == key)
        rows = {name: row for name, row in same.answers.items() if name in cell.answers}
        assert compare_rows(cell, rows, rows).equal and len(cell.answers) <= len(same.answers) / 2


def test_the_job_checks_against_a_committed_baseline():
    job = yaml.safe_load((REPO / ".github" / "workflows" / "score-gate.yaml").read_text())["jobs"]["toy"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    run, check = commands[-2:]
    assert check.startswith(".venv/bin/python -m harness check ")
    asked, own = composed("check", *shlex.split(check.partition(" check ")[2]))
    path = baseline_path([asked.profile, asked.matrix.name, str(asked.task.subset)], asked.report.baselines)
    assert own.baseline is None and path.is_file() and asked.task.subset == "ci"
    script, *overrides = shlex.split(run.removeprefix("bash "))
    assert (REPO / script).is_file() and f"matrix={Path(script).stem}" in check and overrides == ["task.subset=ci"]
