"""`compare`: two results folders with planted differences."""

from __future__ import annotations

import json
import shutil

import pytest
from cell_folders import questions, rewrite, write_cell

from harness.cli import main

ASKED = questions("lvbench", 8)


@pytest.fixture
def folders(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for variant in ("full", "no_both"):
        write_cell(a, ASKED, [True] * 12 + [False] * 12, variant=variant, digest=variant[:2])
    shutil.copytree(a, b)
    return a, b


@pytest.fixture
def compare(folders, tmp_path):
    def call(*words):
        status = main(["compare", *map(str, folders), "--output", str(tmp_path / "out"), *words])
        return status, json.loads((tmp_path / "out" / "compare.json").read_text())

    return call


def cell(root, variant):
    (found,) = (root / "runs").glob(f"*-{variant}-*")
    return found


def test_a_copy_is_the_same(compare, capsys):
    status, found = compare()
    assert status == 0 and found["same"] and len(found["cells"]) == 2
    out = capsys.readouterr().out
    assert "same (2 cells). same = the same cells" in out
    assert [c["difference"] for c in found["cells"]] == [0.0, 0.0]


def test_every_flip_comes_with_both_texts(folders, compare, tmp_path):
    rewrite(cell(folders[1], "full"), lambda i, r: r | ({"text": "I think (D)"} if i in (0, 1) else {}))
    status, found = compare("--limit", "1")
    changed = next(c for c in found["cells"] if "-full-" in c["a"])
    assert status == 1 and not found["same"]
    assert [(f["right"], f["text_a"], f["text_b"]) for f in changed["flips"]] == [
        ("a", "A", "I think (D)"),
        ("a", "B", "I think (D)"),
    ]
    assert changed["difference"] == pytest.approx(-100 * 2 / 24) and changed["interval"][0] < 0
    assert any("2 of 24 answers differ, 2 flips" in reason for reason in found["reasons"])
    markdown = (tmp_path / "out" / "compare.md").read_text()
    assert "I think (D)" in markdown and "the first 1 of 2" in markdown


def test_kept_tokens_that_tie_are_the_same_and_others_drift(folders, compare):
    # The first answer of every cell has a margin of 3e-7: a tie.
    rewrite(cell(folders[1], "full"), lambda i, r: r | ({"kept_digest": "other"} if i == 0 else {}))
    status, found = compare()
    assert status == 0 and [len(c["ties"]) for c in found["cells"]].count(1) == 1
    rewrite(cell(folders[1], "full"), lambda i, r: r | ({"kept_digest": "other"} if i in (0, 3) else {}))
    status, found = compare()
    assert status == 1 and sum(c["kept_drift"] for c in found["cells"]) == 1
    assert compare("compare.exact=false")[0] == 0  # no score moved


def test_scores_that_moved_differ_under_the_loose_rule_too(folders, compare):
    for folder, letters in zip(folders, ("ABCD", "BCDA"), strict=True):
        rewrite(cell(folder, "full"), lambda i, r, letters=letters: r | {"text": letters[i % 4]})
    status, found = compare("compare.exact=false")
    assert status == 1 and any("scores differ by -100.00 points" in reason for reason in found["reasons"])


def test_settings_cells_and_questions_that_only_one_has_are_named(folders, compare):
    a, b = folders
    shutil.rmtree(cell(b, "full"))
    write_cell(b, ASKED, [True] * 12 + [False] * 12, variant="full", digest="zz", method__chunk_frames=16)
    write_cell(b, ASKED, [True] * 24, variant="full", digest="yy", context=8000)
    file = cell(b, "no_both") / "answers.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    status, found = compare()
    assert status == 1 and found["only_a"] == [] and len(found["only_b"]) == 1 and "c8000" in found["only_b"][0]
    assert any("method.chunk_frames: 32 -> 16" in reason for reason in found["reasons"])
    assert any("1 questions are answered in A only" in reason for reason in found["reasons"])
    (part,) = [each for each in found["cells"] if each["only_a"]]
    assert part["n"] == 23 and part["score_a"] == part["score_b"] == pytest.approx(100 * 12 / 23)


def test_what_answered_them_is_listed_and_decides_nothing(folders, compare, capsys):
    from harness.store import read_manifest, write_manifest

    folder = cell(folders[1], "full")
    manifest = read_manifest(folder)
    object.__setattr__(manifest, "device", "NVIDIA H200")
    write_manifest(folder, manifest)
    status, found = compare()
    assert status == 0
    assert ["device: cpu -> NVIDIA H200"] in [c["environment"] for c in found["cells"]]
    assert "device: cpu -> NVIDIA H200" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"), [(["one"], "takes two results folders, 1 given"), (["{}", "nowhere"], "nowhere holds no cells")]
)
def test_bad_input(folders, capsys, words, said):
    assert main(["compare", *(word.format(folders[0]) for word in words)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (["compare", "{a}", "{b}", "--output", "{file}"], "output=<folder>"),
        (["export", "lmms_eval", "results={a}", "output={file}"], "output=<folder>"),
        (["report", "results={a}", "report.cells=['*']", "report.output={file}"], "report.output=<folder>"),
    ],
)
def test_an_output_that_is_no_folder_is_named_with_its_own_setting(folders, tmp_path, capsys, words, setting):
    file = tmp_path / "file"
    file.write_text("mine")
    assert main([word.format(a=folders[0], b=folders[1], file=file) for word in words]) == 2
    assert capsys.readouterr().err == f"error: {file} cannot be written: File exists; choose another with {setting}\n"
    assert file.read_text() == "mine"
