"""python -m pytest tests/report/test_check.py"""

import copy
import dataclasses
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from cell_folders import SEEN, VARIANTS, questions, rewrite, write_cell
from verbs import composed

from harness.cli import main as cli
from harness.errors import UserError
from harness.gate.baseline import COLUMNS, baseline_text, read_baseline
from harness.gate.check import main
from harness.settings.compose import REPO
from harness.store import FrameRecords, SeenFrames, read_manifest, write_manifest


def check(tmp_path, results="results", *overrides):
    settings = [f"check.baseline={tmp_path / 'toy.json'}", "matrix=ablation", *overrides]
    return main(*composed("check", f"results={tmp_path / results}", "report.cells=['*']", *settings))


OTHER_FRAMES = SeenFrames((0, 7, 20), SEEN.timestamps)
OTHER_TIMES = SeenFrames(SEEN.indices, (0.0, 0.5, 1.04))
UPDATE = "check.update_baseline=true"
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
    assert check(tmp_path, "results", UPDATE) == 0
    return read_baseline(tmp_path / "toy.json")


def record(tmp_path, results="results"):
    return json.loads((tmp_path / results / "report" / "check.json").read_text())


def test_the_same_answers_pass(tmp_path, baseline, capsys):
    assert check(tmp_path) == 0
    assert "verdict: pass (exit 0)" in capsys.readouterr().out
    assert record(tmp_path)["verdict"] == "pass" and len(baseline.cells) == 4 and baseline.exact
    assert baseline.provenance["versions"]["torch"] == "2.11.0" and baseline.provenance["commits"] == ["abc"]


def test_one_flipped_answer_fails_an_exact_baseline(tmp_path, baseline, capsys):
    changed = RIGHT.copy()
    changed[17] = ~changed[17]
    run(tmp_path, "now", changed, code="c1")
    assert check(tmp_path, "now") == 1
    assert "1 of 120 answers changed, 1 flips" in capsys.readouterr().out
    suite = ElementTree.parse(tmp_path / "now" / "report" / "check.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "4", "0")
    assert suite.find("testcase/failure").get("type") == "regression"


def test_kept_tokens_that_change_fail_although_every_letter_is_the_same(tmp_path, baseline):
    run(tmp_path, "now")
    for folder in (tmp_path / "now" / "runs").iterdir():
        rewrite(folder, lambda _, answer: answer | {"cache_length": [259, 268]})
    assert check(tmp_path, "now") == 1
    assert "kept 264.0 -> 263.5" in record(tmp_path, "now")["cells"][0]["details"][0]


def test_a_changed_positions_rule_is_a_regression_and_named(tmp_path, baseline, capsys):
    run(tmp_path, "now", np.random.default_rng(1).random(120) < 0.5, method__positions="v5")
    assert check(tmp_path, "now") == 1
    assert "setting changed: method.positions: truncated -> v5" in capsys.readouterr().out


def test_incomplete_is_2_and_a_regression_beside_it_wins(tmp_path, baseline):
    partly = [None, *RIGHT[1:]]
    run(tmp_path, "now", partly, ["full"])
    assert check(tmp_path, "now") == 2
    assert {c["verdict"] for c in record(tmp_path, "now")["cells"]} == {"incomplete"}
    run(tmp_path, "now", ~RIGHT, ["no_both"])
    assert check(tmp_path, "now") == 1


def test_a_cell_without_baseline_is_not_waved_through(tmp_path, baseline):
    run(tmp_path, variants=["full"], context=1000, digest="new")
    assert check(tmp_path) == 2


def changed(tmp_path, change):
    """Another run of which every answer's record is changed."""
    run(tmp_path, "now")
    for seen in (OTHER_FRAMES, OTHER_TIMES):
        FrameRecords(tmp_path / "now").keep(seen)
    for folder in (tmp_path / "now" / "runs").iterdir():
        rewrite(folder, change)


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"frames": OTHER_FRAMES.digest}, "frames"),
        ({"frames": OTHER_TIMES.digest}, "times"),
        ({"second_per_grid": 1.0}, "times"),
        ({"sampling_fps": 2.5}, "times"),
        ({"n_prompt": 2101}, "prompt"),
        ({"n_video": 2001}, "video"),
        ({"next_position": 701}, "next"),
        ({"chunk_budget": [99, 65]}, "shares"),
        ({"kept_digest": "other"}, "indices"),
        ({"text": "E"}, "text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_toy_would_answer_alike_is_compared_too(tmp_path, baseline, change, column):
    changed(tmp_path, lambda i, answer: answer | (change if i == 2 else {}))
    assert check(tmp_path, "now") == 1
    assert f"v0-2: {column} " in record(tmp_path, "now")["cells"][0]["details"][0]


TIE = {"kept_digest": "other", "kept_margin": 4e-7, "cache_length": [261, 267]}


def test_tokens_kept_by_a_tie_are_numerics(tmp_path, baseline, capsys):
    assert baseline.cells[0].answers["v0-0"]["margin"] == 3e-7
    changed(tmp_path, lambda i, answer: answer | (TIE if i == 0 else {}))
    drift(tmp_path, instruction_set="AVX512")
    assert check(tmp_path, "now") == 0
    printed = capsys.readouterr().out
    assert "equals baseline (1 ties decided otherwise); although instruction_set AVX2 -> AVX512" in printed
    assert record(tmp_path, "now")["cells"][0]["numerics"] == ["v0-0"]


@pytest.mark.parametrize(
    "change",
    [
        lambda i, a: a | (TIE if i == 1 else {}),  # no tie in the baseline
        lambda i, a: a | (TIE | {"kept_margin": 0.02} if i == 0 else {}),  # none now
        lambda i, a: a | (TIE | {"kept_margin": -1e-8} if i == 0 else {}),  # a token dropped for a worse one
        lambda i, a: a | (TIE | {"kept_margin": None} if i == 0 else {}),
        lambda i, a: a | (TIE | {"text": "E"} if i == 0 else {}),
        lambda i, a: a | (TIE | {"cache_length": [259, 268]} if i == 0 else {}),  # one slot less in all
        lambda i, a: a | {"kept_digest": "other"},
    ],
    ids=["no tie then", "no tie now", "worse kept", "unknown margin", "letter", "total", "one token per answer"],
)
def test_a_planted_change_fails_on_any_instruction_set(tmp_path, baseline, change):
    changed(tmp_path, change)
    drift(tmp_path, instruction_set="AVX512")
    assert check(tmp_path, "now") == 1


def test_ties_decided_otherwise_in_many_answers_are_a_change(tmp_path):
    """As by a rule for ties that was turned round: no single answer would show it."""
    run(tmp_path)
    for folder in (tmp_path / "results" / "runs").iterdir():
        rewrite(folder, lambda _, answer: answer | {"kept_margin": 0.0})
    assert check(tmp_path, "results", UPDATE) == 0
    changed(tmp_path, lambda i, answer: answer | (TIE | {"kept_margin": 0.0} if i < 13 else {}))
    assert check(tmp_path, "now") == 1
    assert "13 of 120 answers decide ties otherwise" in record(tmp_path, "now")["cells"][0]["reason"]


def seal_again(path, baseline, **changes):
    """Another content of a baseline, sealed as its own."""
    path.write_text(baseline_text(dataclasses.replace(baseline, **changes)))


def test_a_field_that_the_baseline_did_not_know_is_equal_at_its_default(tmp_path, baseline):
    cells = copy.deepcopy(baseline.cells)
    for cell in cells:
        del cell.key["video"]["grid_fps"], cell.key["method"]["max_guide_length"]
        cell.key["method"]["gone"] = 3
    seal_again(tmp_path / "toy.json", baseline, cells=cells)
    assert check(tmp_path) == 0
    run(tmp_path, "now", method__max_guide_length=9)
    assert check(tmp_path, "now") == 1
    assert "setting changed: method.max_guide_length: None -> 9" in record(tmp_path, "now")["cells"][0]["reason"]


@pytest.mark.parametrize("how", ["absent", "damaged"])
def test_lost_frames_are_an_error_not_a_difference(tmp_path, baseline, how):
    path = tmp_path / "results" / "frames" / f"{SEEN.digest}.json"
    path.unlink() if how == "absent" else path.write_text(path.read_text().replace("6", "7"))
    with pytest.raises(UserError, match=rf"120 answers of a cell refer to a record of frames .* is {how}"):
        check(tmp_path)


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "margin"])
def test_a_column_of_nothing_never_passes(tmp_path, baseline, column):
    cells = copy.deepcopy(baseline.cells)
    known = any(row[column] is not None for cell in cells for row in cell.answers.values())
    for cell in cells:
        for row in cell.answers.values():
            row[column] = None if known else "x"
    seal_again(tmp_path / "toy.json", baseline, cells=cells)
    assert check(tmp_path) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"exact": true', '"exact": false'),
        ('"device": "cpu"', '"device": "gpu"'),
        ('"overall": ', '"overall": 1'),
        ('["A"', '["B"'),
        ('"text",', '"words",'),
        ('"provenance": {', '"provenance": null, "x": {'),
        ('"seal": "', '"seal": "0'),
    ],
)
def test_an_edited_baseline_is_an_error_and_no_verdict(tmp_path, baseline, old, new):
    path = tmp_path / "toy.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=r"toy\.json is not a baseline"):
        check(tmp_path)


@pytest.mark.parametrize("field", ["score", "interval"])
def test_equal_answers_with_another_score_or_interval_are_a_regression(tmp_path, baseline, field):
    cells = copy.deepcopy(baseline.cells)
    value = getattr(cells[0], field)
    for key in value if isinstance(value, dict) else range(len(value)):
        value[key] += 0.5
    seal_again(tmp_path / "toy.json", baseline, cells=cells)
    assert check(tmp_path) == 1
    assert "equal answers have" in record(tmp_path)["cells"][0]["reason"]


def test_a_baseline_in_which_most_answers_flip_holds_nothing(tmp_path, baseline):
    measured = {"flips": 432, "n": 480, "flipped_videos": 159, "videos": 160}
    seal_again(tmp_path / "toy.json", baseline, exact=False, flip_rate=0.9, flips_measured=measured)
    with pytest.raises(UserError, match="0.9 of the answers .*flip"):
        check(tmp_path)


def test_advice_repeats_the_overrides(tmp_path, baseline, capsys):
    run(tmp_path, "now", variants=["full"])
    check(tmp_path, "now", "context.tokens=77")
    assert re.search("was not run: .* -m harness run results=", capsys.readouterr().out)
    assert "context.tokens=77" in record(tmp_path, "now")["cells"][0]["reason"]


def test_control_codes_of_stored_answers_are_written_out(tmp_path, baseline, capsys):
    changed(tmp_path, lambda i, answer: answer | {"text": "\x1b[31mB"})
    assert check(tmp_path, "now") == 1
    assert "\x1b" not in capsys.readouterr().out + (tmp_path / "now" / "report" / "check.xml").read_text()


def test_an_edited_answer_is_an_error_without_a_traceback(tmp_path, baseline):
    run(tmp_path, "now", variants=["full"])
    (path,) = (tmp_path / "now" / "runs").glob("*/answers.jsonl")
    path.write_text(path.read_text().replace('"text":"A"', '"text":5', 1))
    with pytest.raises(UserError, match="not as it was written"):
        check(tmp_path, "now")


def test_an_update_says_what_changes_against_the_old_file(tmp_path, baseline, capsys):
    changed(tmp_path, lambda i, answer: answer | ({"kept_digest": "other"} if i in (1, 2) else {}))
    capsys.readouterr()
    assert check(tmp_path, "now", UPDATE) == 0
    assert capsys.readouterr().out.count("2 of 120 answers changed, 0 flips") == 4
    (tmp_path / "toy.json").write_text("{}")
    assert check(tmp_path, "now", UPDATE) == 0 and check(tmp_path, "now") == 0
    assert "replaced without a comparison" in capsys.readouterr().err


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
    assert check(tmp_path, "now") == 3
    assert says in record(tmp_path, "now")["cells"][0]["reason"]


def test_equal_answers_in_another_environment_pass_with_a_note(tmp_path, baseline):
    run(tmp_path, "now")
    drift(tmp_path, device="cuda")
    assert check(tmp_path, "now") == 0
    assert "although device cpu -> cuda" in record(tmp_path, "now")["cells"][0]["reason"]


def test_equal_answers_by_another_reader_pass_and_name_both(tmp_path, baseline, capsys):
    run(tmp_path, "now", video__backend="pyav")
    assert check(tmp_path, "now") == 0
    assert capsys.readouterr().out.count("equals baseline; although video.backend: decord -> pyav") == 4


@pytest.mark.parametrize("column", [{"text": "E"}, {"kept_digest": "other"}, {"frames": OTHER_FRAMES.digest}])
def test_one_other_answer_by_another_reader_does_not_pass(tmp_path, baseline, column):
    run(tmp_path, "now", video__backend="pyav")
    FrameRecords(tmp_path / "now").keep(OTHER_FRAMES)
    for folder in (tmp_path / "now" / "runs").iterdir():
        rewrite(folder, lambda i, answer: answer | (column if i == 2 else {}))
    assert check(tmp_path, "now") == 3
    assert "; video.backend: decord -> pyav" in record(tmp_path, "now")["cells"][0]["reason"]


def test_another_reader_is_no_noise_and_excuses_no_other_setting(tmp_path, baseline):
    run(tmp_path, "now", video__backend="pyav")
    assert check(tmp_path, "now", "check.exact=false", "check.flip_rate=0.5") == 1
    assert check(tmp_path, "now", UPDATE) == 0
    assert read_baseline(tmp_path / "toy.json").flips_measured == {}
    run(tmp_path, "more", method__max_guide_length=9)
    assert check(tmp_path, "more") == 1
    assert "video.backend: pyav -> decord" in record(tmp_path, "more")["cells"][0]["reason"]


def test_a_version_raised_on_purpose_is_named_and_asks_for_a_new_baseline(tmp_path):
    run(tmp_path, versions={"core": 1, "method": 1})
    assert check(tmp_path, "results", UPDATE) == 0
    run(tmp_path, "now", ~RIGHT, versions={"core": 2, "method": 1})
    assert check(tmp_path, "now") == 1
    assert "declared version of core 1 -> 2" in record(tmp_path, "now")["cells"][0]["reason"]


def test_other_weights_are_drift(tmp_path, baseline):
    run(tmp_path, "now", ~RIGHT, weights="w1")
    assert check(tmp_path, "now") == 3


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
    assert check(tmp_path, "now", "check.exact=false", f"check.flip_rate={rate}") == expected


def test_flip_mode_without_a_rate_says_how_to_get_one(tmp_path, baseline):
    with pytest.raises(UserError, match="check.flip_rate=0.01"):
        check(tmp_path, "results", "check.exact=false")


def test_a_second_run_of_the_same_code_measures_the_flip_rate(tmp_path, baseline):
    again = RIGHT.copy()
    again[:3] = ~again[:3]
    run(tmp_path, "again", again)
    assert check(tmp_path, "again", UPDATE, "check.exact=false") == 0
    updated = read_baseline(tmp_path / "toy.json")
    assert updated.flip_rate == pytest.approx(3 / 120) and not updated.exact
    measured = updated.flips_measured
    assert (measured["flips"], measured["n"], measured["flipped_videos"], measured["videos"]) == (12, 480, 4, 160)
    run(tmp_path, "third")
    assert check(tmp_path, "third") == 0 and record(tmp_path, "third")["mode"] == "flips, 4 of 160 videos in two runs"


def test_flips_that_no_cell_shows_alone_are_seen_in_all_together(tmp_path, baseline):
    """Four cells lose five answers each, in as many videos: each might be noise, twenty losses and no gain are not."""
    measured = {"flips": 40, "n": 480, "flipped_videos": 40, "videos": 160}
    seal_again(tmp_path / "toy.json", baseline, exact=False, flip_rate=40 / 480, flips_measured=measured)
    shift = [np.roll(np.arange(40), 10 * i) for i in range(4)]
    for variant, order in zip(VARIANTS, shift, strict=True):
        moved = RIGHT.copy()
        lost = [v for v in order if RIGHT[3 * v]][:5]
        moved[[3 * v for v in lost]] = False
        run(tmp_path, "now", moved, variants=[variant])
    assert check(tmp_path, "now") == 1
    by_name = {cell["cell"]: cell["reason"] for cell in record(tmp_path, "now")["cells"]}
    assert "20 answers lost and 0 gained: worse, not noise" in by_name["all cells"]
    assert sum("worse" in reason for reason in by_name.values()) == 1


def test_no_baseline_from_incomplete_or_failed_cells(tmp_path, capsys):
    write_cell(tmp_path / "results", ASKED, list(RIGHT), failed={0})
    assert check(tmp_path, "results", UPDATE) == 2
    assert "1 failed" in capsys.readouterr().err and not (tmp_path / "toy.json").exists()


def test_a_missing_baseline_names_the_command(tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match="--update-baseline"):
        check(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "name"), [([], "toy_ablation.json"), (["task.subset=ci"], "toy_ablation_ci.json")]
)
def test_default_name_follows_profile_matrix_and_subset(tmp_path, overrides, name):
    update = ["--update-baseline", "matrix=ablation", f"report.baselines={tmp_path / 'own'}", *overrides]
    run(tmp_path)
    assert cli(["check", f"results={tmp_path / 'results'}", "report.cells=['*']", *update]) == 0
    assert (tmp_path / "own" / name).is_file()


SEALS = {
    "toy_ablation": "d445aa285acf88f0",
    "toy_ablation_ci": "2309512454b1544f",
    "toy_main_results": "36a467ba0b73c0bf",
}


def test_committed_baselines_are_those_that_were_measured():
    """A new baseline is a decision: write it with check --update-baseline, and put its seal here."""
    paths = sorted((REPO / "results" / "baselines").glob("*.json"))
    assert {path.stem: json.loads(path.read_text())["seal"] for path in paths} == SEALS
    assert all(read_baseline(path).exact for path in paths)


def test_a_part_of_a_benchmark_that_nobody_asked_for_is_said(tmp_path, capsys):
    for name in ("results", "now"):
        write_cell(tmp_path / name, ASKED, list(RIGHT), variant="full", digest="full")
    assert check(tmp_path, "results", UPDATE) == 0 and check(tmp_path, "now") == 0
    assert "only 120 of 1,549 questions of the published benchmark" in capsys.readouterr().out
