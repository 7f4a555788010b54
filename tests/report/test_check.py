"""python -m pytest tests/report/test_gate.py"""

import dataclasses
import json
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from cell_folders import VARIANTS, questions, rewrite, write_cell

from harness.errors import UserError
from harness.report import check as gate
from harness.report.baseline import NOT_SETTING, read_baseline
from harness.report.config import ReportConfig
from harness.store import read_manifest, write_manifest


def config(tmp_path, results="results", **check):
    settings = {"baseline": str(tmp_path / "toy.json"), "update_baseline": False, "exact": None, "flip_rate": None}
    return SimpleNamespace(
        results=str(tmp_path / results),
        report=ReportConfig(output=str(tmp_path / "report"), cells=["*"]),
        check=SimpleNamespace(**settings | check),
        profile="toy",
        matrix=SimpleNamespace(name="ablation"),
        task=SimpleNamespace(subset=None),
    )


ASKED = questions("lvbench", 40)
RIGHT = np.random.default_rng(0).random(120) < 0.8


def run(tmp_path, results="results", right=RIGHT, variants=VARIANTS, digest="", **changes):
    for variant in variants:
        write_cell(
            tmp_path / results,
            ASKED,
            list(right),
            variant=variant,
            digest=f"{digest}{variant}",
            model__name="toy",
            **changes,
        )


@pytest.fixture
def baseline(tmp_path):
    run(tmp_path)
    assert gate.main(config(tmp_path, update_baseline=True)) == 0
    return read_baseline(tmp_path / "toy.json")


def record(tmp_path):
    return json.loads((tmp_path / "report" / "check.json").read_text())


def test_the_same_answers_pass(tmp_path, baseline, capsys):
    assert gate.main(config(tmp_path)) == 0
    assert "verdict: pass (exit 0)" in capsys.readouterr().out
    assert record(tmp_path)["verdict"] == "pass" and len(baseline.cells) == 4 and baseline.exact
    assert baseline.provenance["versions"]["torch"] == "2.11.0" and baseline.provenance["commits"] == ["abc"]


def test_one_flipped_answer_fails_an_exact_baseline(tmp_path, baseline, capsys):
    changed = RIGHT.copy()
    changed[17] = ~changed[17]
    run(tmp_path, "now", changed, code="c1")
    assert gate.main(config(tmp_path, "now")) == 1
    assert "1 of 120 answers changed, 1 flips" in capsys.readouterr().out
    suite = ElementTree.parse(tmp_path / "report" / "check.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "4", "0")
    assert suite.find("testcase/failure").get("type") == "regression"


def test_kept_tokens_that_change_fail_although_every_letter_is_the_same(tmp_path, baseline):
    run(tmp_path, "now")
    for folder in (tmp_path / "now" / "runs").iterdir():
        rewrite(folder, lambda _, answer: answer | {"cache_length": [259, 268]})
    assert gate.main(config(tmp_path, "now")) == 1
    assert "with 264.0 tokens kept -> " in record(tmp_path)["cells"][0]["details"][0]


def test_a_changed_positions_rule_is_a_regression_and_named(tmp_path, baseline, capsys):
    run(tmp_path, "now", np.random.default_rng(1).random(120) < 0.5, method__positions="v5")
    assert gate.main(config(tmp_path, "now")) == 1
    assert "setting changed: method.positions: truncated -> v5" in capsys.readouterr().out


def test_incomplete_is_2_and_a_regression_beside_it_wins(tmp_path, baseline):
    partly = [None, *RIGHT[1:]]
    run(tmp_path, "now", partly, ["full"])
    assert gate.main(config(tmp_path, "now")) == 2
    assert {c["verdict"] for c in record(tmp_path)["cells"]} == {"incomplete"}
    run(tmp_path, "now", ~RIGHT, ["no_both"])
    assert gate.main(config(tmp_path, "now")) == 1


def test_a_cell_without_baseline_is_not_waved_through(tmp_path, baseline):
    run(tmp_path, variants=["full"], context=1000, digest="new")
    assert gate.main(config(tmp_path)) == 2


def drift(tmp_path, **changes):
    for folder in (tmp_path / "now" / "runs").iterdir():
        write_manifest(folder, dataclasses.replace(read_manifest(folder), **changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"versions": {"torch": "2.12.0", "transformers": "5.23.0"}}, "torch 2.11.0 -> 2.12.0"),
        ({"device": "cuda"}, "device cpu -> cuda"),
        ({"attention_backend": "eager"}, "attention_backend sdpa -> eager"),
        ({"starts": [{"versions": {"torch": "2.12.0"}, "device": "cpu"}]}, "torch 2.11.0 -> 2.12.0"),
    ],
)
def test_other_answers_in_another_environment_are_drift(tmp_path, baseline, changes, says):
    run(tmp_path, "now", ~RIGHT)
    drift(tmp_path, **changes)
    assert gate.main(config(tmp_path, "now")) == 3
    assert says in record(tmp_path)["cells"][0]["reason"]


def test_equal_answers_in_another_environment_pass_with_a_note(tmp_path, baseline):
    run(tmp_path, "now")
    drift(tmp_path, device="cuda")
    assert gate.main(config(tmp_path, "now")) == 0
    assert "although device cpu -> cuda" in record(tmp_path)["cells"][0]["reason"]


def test_other_weights_are_drift(tmp_path, baseline):
    run(tmp_path, "now", ~RIGHT, weights="w1")
    assert gate.main(config(tmp_path, "now")) == 3


def flipped(share, seed=2, only=None):
    rng = np.random.default_rng(seed)
    flip = rng.random(120) < share
    if only is not None:
        flip &= only
    return RIGHT ^ flip


@pytest.mark.parametrize(
    ("right", "expected"),
    [(flipped(0.03), 0), (flipped(0.3), 1), (flipped(0.14, only=RIGHT), 1), (RIGHT, 0)],
    ids=["as the rate says", "far more", "only losses", "none"],
)
def test_flip_mode_allows_noise_and_nothing_else(tmp_path, baseline, right, expected):
    run(tmp_path, "now", right)
    rate = 0.15 if np.array_equal(right, flipped(0.14, only=RIGHT)) else 0.03
    assert gate.main(config(tmp_path, "now", exact=False, flip_rate=rate)) == expected


def test_flip_mode_without_a_rate_says_how_to_get_one(tmp_path, baseline):
    with pytest.raises(UserError, match="check.flip_rate=0.01"):
        gate.main(config(tmp_path, exact=False))


def test_a_second_run_of_the_same_code_measures_the_flip_rate(tmp_path, baseline):
    again = RIGHT.copy()
    again[:3] = ~again[:3]
    run(tmp_path, "again", again)
    assert gate.main(config(tmp_path, "again", update_baseline=True, exact=False)) == 0
    updated = read_baseline(tmp_path / "toy.json")
    assert updated.flip_rate == pytest.approx(3 / 120) and not updated.exact
    assert updated.flips_measured["n"] == 480


def test_no_baseline_from_incomplete_or_failed_cells(tmp_path, capsys):
    write_cell(tmp_path / "results", ASKED, list(RIGHT), failed={0})
    assert gate.main(config(tmp_path, update_baseline=True)) == 2
    assert "1 failed" in capsys.readouterr().err and not (tmp_path / "toy.json").exists()


def test_a_missing_baseline_names_the_command(tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match="--update-baseline"):
        gate.main(config(tmp_path))


def test_default_name_follows_profile_matrix_and_subset(tmp_path):
    settings = config(tmp_path)
    settings.check.baseline = None
    assert gate.baseline_path(settings).name == "toy_ablation.json"
    settings.task.subset = "ci"
    assert gate.baseline_path(settings).name == "toy_ablation_ci.json"


def test_a_new_field_of_a_cell_is_classed_alike_here_and_in_its_identity():
    from harness.config import Config
    from harness.plan.cell import GROUPS
    from harness.setting import rule_of

    for group in set(GROUPS) - {"method"}:
        names = {f.name for f in dataclasses.fields(getattr(Config(), group)) if rule_of(f).runtime}
        assert names == NOT_SETTING.get(group, set()), group
