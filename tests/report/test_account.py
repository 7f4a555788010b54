"""python -m pytest tests/report/test_account.py"""

import csv

import pytest
from cell_folders import cell_record, configuration, context, questions, rewrite, write_cell

from harness.report.costs import account_section, entries
from harness.report.report import main
from harness.settings.compose import compose_config
from harness.settings.matrix import build_cells

SAID = {"sees_question": True, "reusable": False}


def cell(results, task="lvbench", right=(True, True, True, False), digest="0", took=None, said=SAID, **changes):
    asked = questions(task, 2, 2)
    folder = write_cell(results, asked, list(right), record=cell_record(task, **changes) | said, digest=digest)
    took = took or {}
    rewrite(folder, lambda i, record: record | {key: values[i] for key, values in took.items()})


TOOK = {
    "n_encoded": [2000, 2000, 1000, 1000],
    "prefilled": [2400.0, 2600.0, 1200.0, 1400.0],
    "cache_peak": [700.0, 700.0, 500.0, 500.0],
    "cache_length": [[100, 300], [200, 200], [50, 150], [100, 100]],
    "evidence_seen": [True, False, True, None],
    "host_bytes": [0, 4194304, 0, 0],
    "moved_bytes": [0, 1048576, 0, 0],
}


def test_an_account_is_made_of_what_the_answers_measured(tmp_path):
    cell(tmp_path, took=TOOK)
    (found,) = entries(context(tmp_path))
    took = found.account
    assert (took.encoded, took.prefilled, took.peak, took.slots, took.largest) == (1500, 1900, 600, 150, 187.5)
    assert (took.host, took.moved, took.sees_question, took.reusable) == (2**20, 2**18, True, False)
    row = account_section([found], 0.95).frame.iloc[0]
    shown = {name: row[name] for name in ("asked", "score", "prefilled", "slots", "largest", "host", "moved")}
    assert shown == {
        "asked": "16000", "score": "75.0", "prefilled": "1900", "slots": "150", "largest": "188", "host": "1",
        "moved": "0.25",
    }  # fmt: skip
    assert (row["sees question"], row["reusable"]) == ("yes", "no")
    assert took.evidence == 2 / 3 and row["evidence"] == "66.7"


def test_a_failed_answer_takes_no_part_and_an_old_one_says_nothing(tmp_path):
    asked = questions("lvbench", 2, 2)
    write_cell(tmp_path, asked, [True] * 4, failed={1}, digest="0")
    (found,) = entries(context(tmp_path))
    assert (found.account.prefilled, found.account.host, found.account.sees_question) == (2400, None, None)
    assert found.account.slots == 264 and account_section([found], 0.95).frame.iloc[0]["reusable"] == "-"


def test_benchmarks_weigh_the_same_in_a_mean_and_subsets_stay_apart(tmp_path):
    cell(tmp_path, "lvbench", took={"prefilled": [1000.0] * 4}, digest="0")
    cell(tmp_path, "mlvu", took={"prefilled": [3000.0] * 4}, right=[True] * 4, digest="1")
    cell(tmp_path, "mlvu", took={"prefilled": [9000.0] * 4}, digest="2", task__subset="mini")
    pooled, *single = entries(context(tmp_path))
    assert (pooled.benchmark, pooled.account.prefilled, pooled.estimate.value) == ("mean of 2", 2000, 87.5)
    assert [entry.benchmark for entry in single] == ["lvbench", "mlvu", "mlvu (mini)"]


def test_the_account_is_in_every_form_of_the_report(tmp_path, capsys):
    cell(tmp_path, took=TOOK)
    main(configuration(tmp_path, "report.html=false"))
    assert "What an answer takes" in capsys.readouterr().out
    assert "## What an answer takes" in (tmp_path / "report" / "report.md").read_text()
    with (tmp_path / "report" / "account.csv").open() as lines:
        (row,) = csv.DictReader(lines)
    assert row["prefilled"] == "1900"
    with (tmp_path / "report" / "scores.csv").open() as lines:
        row = next(csv.DictReader(lines))
    assert float(row["prefilled"]) == 1900 and float(row["slots_largest_layer"]) == 187.5
    assert (row["sees_question"], row["reusable"], float(row["moved_bytes"])) == ("True", "False", 2**18)


@pytest.mark.parametrize(("method", "sees", "reusable"), [("adaretake", True, False), ("retake", False, True)])
def test_a_manifest_says_what_the_cache_is_good_for(method, sees, reusable):
    made = build_cells(compose_config(["task=mlvu", f"method={method}"]))[0]
    assert (made.record()["sees_question"], made.record()["reusable"]) == (sees, reusable)
    assert not {"sees_question", "reusable"} & made.identity.keys()
