"""python -m pytest tests/report/test_expected.py"""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from cell_folders import questions, write_cell

from harness.benchmarks.benchmark import benchmark
from harness.compress.method import method_class, method_names
from harness.errors import UserError
from harness.evidence.loading import load_cells
from harness.verdicts.expected import load_tables

REPO = Path(__file__).resolve().parents[2]
SOURCE = REPO.parent / "shared" / "expected_tables.md"
TABLES = {table.id: table for table in load_tables("results/expected")}


def printed_numbers(letter):
    """Scores in the Markdown table of the source, row by row; only cells with a decimal point and no sign count."""
    section = re.search(rf"^## {letter}\. .*?(?=^## |\Z)", SOURCE.read_text(), re.DOTALL | re.MULTILINE)[0]
    rows = [line for line in section.splitlines() if line.startswith("|") and "---" not in line][1:]
    return [re.findall(r"(?<= )\d+\.\d+(?= \|)", row) for row in rows]


@pytest.mark.skipif(not SOURCE.is_file(), reason="shared/expected_tables.md is not beside the repository")
@pytest.mark.parametrize("letter", list("ABCDEF"))
def test_numbers_are_those_of_the_source(letter):
    table = TABLES[letter]
    ours = [[n.text for (row, _), n in table.numbers.items() if row == r["id"]] for r in table.rows]
    theirs = printed_numbers(letter)
    if letter == "A":  # there a row is a benchmark; the release's second number for LVBench stands in the text
        ours, theirs = [sorted(ours[0])], [sorted(row[0] for row in theirs)]
    if letter == "B":  # the last column is the mean
        ours = [[*row, f"{r['published_mean']:.2f}"] for row, r in zip(ours, table.rows, strict=True)]
    assert ours == theirs


def test_published_means_and_claims_follow_from_the_numbers():
    table = TABLES["B"]
    for row in table.rows:
        assert sum(row["scores"].values()) / 4 == pytest.approx(row["published_mean"], abs=0.0051)
    for table in TABLES.values():
        for claim in table.claims:
            if claim.published is None:
                continue
            gaps = [table.numbers[claim.a, c].score - table.numbers[claim.b, c].score for c in claim.columns]
            assert sum(gaps) / len(gaps) == pytest.approx(claim.published, abs=0.07 if claim.id == "E6" else 0.051)


def test_contradicting_sources_are_separate_rows():
    lvbench = {n.score: n for n in TABLES["A"].numbers.values() if n.column == "lvbench"}
    assert (lvbench[50.4].setting["frames"], lvbench[48.5].setting["frames"]) == (2048, 1024)
    assert lvbench[48.5].source != lvbench[50.4].source
    assert TABLES["A"].numbers["full", "videomme"].setting["fps"] == 4


def test_every_number_names_a_metric_and_settings_that_cells_have(tmp_path):
    for task in ("videomme", "mlvu", "longvideobench", "lvbench"):
        write_cell(tmp_path, questions(task, 2), [True] * 6, task=task)
    words = set().union(*(cell.setting for cell in load_cells(tmp_path)))
    words |= {field.name for name in method_names() for field in dataclasses.fields(method_class(name))}
    words |= {f"method.{word}" for word in words}
    for table in TABLES.values():
        for number in table.numbers.values():
            assert set(number.setting) <= words, number.id
            spec = benchmark(number.task).metrics
            assert number.metric in spec.whole or any(number.metric.startswith(f"{p}_") for p in spec.groups), number.id


def published_cell(tmp_path, task="lvbench", n_videos=2, digest="0", **changes):
    write_cell(tmp_path, questions(task, n_videos), [True] * 3 * n_videos, task=task, digest=digest, **changes)
    return next(cell for cell in load_cells(tmp_path) if cell.manifest.digest == digest)


def test_a_cell_of_the_published_setting_differs_in_nothing_but_its_size(tmp_path):
    for i, task in enumerate(("lvbench", "longvideobench", "mlvu", "videomme")):
        cell = published_cell(tmp_path, task, digest=str(i))
        (only,) = TABLES["B"].numbers["full", task].differences(cell)
        assert only.startswith("questions: 6 here")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method__semantics": "paper"}, "semantics: paper here, release_2026 published"),
        ({"method__positions": "float"}, "positions: float here, truncated published"),
        ({"method__quirks": {"stale_scores": False}}, "quirks: stale_scores=False here, default published"),
        ({"video__fps": 4.0}, "fps: 4 here, 2 published"),
        ({"context": 1000}, "context: 1000 here, 16000 published"),
        ({"model__yarn_factor": 1.0}, "yarn_factor: 1 here, 4 published"),
        ({"task__subset": "ci"}, "subset: ci here, whole benchmark published"),
        ({"variant": "none"}, "method: none here, adaretake published"),
    ],
)
def test_each_setting_that_differs_is_named(tmp_path, changes, says):
    assert says in TABLES["B"].numbers["full", "lvbench"].differences(published_cell(tmp_path, **changes))


def test_subtitles_never_match_without(tmp_path):
    cell = published_cell(tmp_path, "videomme", task__protocol="release_subtitles")
    assert "subtitles: yes here, no published" in TABLES["B"].numbers["full", "videomme"].differences(cell)


def test_an_unstated_setting_is_no_difference(tmp_path):
    cell = published_cell(tmp_path, variant="none", video__max_frames=77, digest="n")
    found = TABLES["C"].numbers["qwen2_5_vl_7b", "lvbench"].differences(cell)
    assert [text.split(":")[0] for text in found] == ["questions"]


def test_a_file_that_is_no_table_is_named(tmp_path):
    data = yaml.safe_load((REPO / "results/expected/readme_main.yaml").read_text())
    data["rows"][0]["scores"]["imaginary"] = 1.0
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(UserError, match="bad.yaml.*imaginary"):
        load_tables(tmp_path)


SMALLER = {"vidcom2": -1, "bolt": 1, "flexselect": 1}


def test_modern_methods_are_claimed_against_their_own_baseline():
    table = TABLES["M"]
    for claim in table.claims:
        a, b = table.numbers[claim.a, claim.columns[0]], table.numbers[claim.b, claim.columns[0]]
        assert a.setting["model"] == b.setting["model"] and b.setting["method"] == "none", claim.id
        sign = SMALLER[a.setting["method"]] if claim.direction != "none" else 0
        gaps = [table.numbers[claim.a, c].score - table.numbers[claim.b, c].score for c in claim.columns]
        assert all((gap > 0) - (gap < 0) == sign for gap in gaps), claim.id
        assert claim.direction == {-1: "down", 0: "none", 1: "up"}[sign]
    assert {number.setting["split"] for number in table.numbers.values() if number.task == "mlvu"} == {"dev"}
    assert {n.parser for n in table.numbers.values() if n.task == "longvideobench"} == {"lmms_eval_longvideobench"}


def test_two_sources_of_plain_qwen3_vl_agree():
    sources = [
        {c: n.score for (r, c), n in TABLES["M"].numbers.items() if r == f"q3_32_{x}_base"} for x in ("vidcom2", "bolt")
    ]
    assert sources[0].keys() == sources[1].keys() and len(sources[0]) == 3
    assert all(abs(sources[0][column] - sources[1][column]) < 0.31 for column in sources[0])


def test_what_users_report_is_marked_as_such():
    table = TABLES["U"]
    assert "reported by users" in table.source and table.numbers["plain_yarn", "videomme"].setting["yarn_factor"] == 4
    assert table.numbers["plain_yarn", "videomme"].text == "68.56"
    assert table.numbers["plain_yarn", "videomme"].score > table.numbers["adaretake_published", "videomme"].score
