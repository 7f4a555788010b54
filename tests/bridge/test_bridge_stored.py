"""The verb on stored answers: what it says is what can be counted by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from cell_folders import questions, rewrite
from twin_cells import one_cell, write_twin
from verbs import composed

from harness.errors import UserError
from harness.evidence.loading import load_cells
from harness.tools.bridge.bridge import main
from harness.verdicts.context import Context

LVB = ("matrix.task=[lvbench]",)
ASKED = questions("lvbench", 6, 2)
A, MIDDLE = one_cell(*LVB), one_cell(*LVB, "matrix.context=[33]")
B = one_cell(*LVB, "matrix.context=[33]", "matrix.frames=[16]")
SLOW = one_cell(*LVB, "matrix.fps=[1]")
SAID = {A.id: "++++++++++--", MIDDLE.id: "++++++++----", B.id: "+++++++----+"}


@pytest.fixture
def results(tmp_path):
    for cell in (A, MIDDLE, B):
        write_twin(tmp_path, cell, ASKED, SAID[cell.id])
    return tmp_path


def bridge(results, *words, **own):
    config, given = composed("bridge", f"results={results}", f"data.root={results}/none", *words)
    return main(config, dataclasses.replace(given, **own))


def chains(results):
    (path,) = (results / "bridge").glob("*/bridge.json")
    return json.loads(path.read_text())["chains"]


def test_contributions_are_the_differences_counted_by_hand(results, capsys):
    assert bridge(results, cells=[A.id, B.id]) == 0
    (chain,) = chains(results)
    points = 100 / 12
    assert [step["name"] for step in chain["steps"]] == ["context", "frames"]
    assert [step["value"] for step in chain["steps"]] == pytest.approx([-2 * points, 0])
    assert [(step["gained"], step["lost"]) for step in chain["steps"]] == [(0, 2), (1, 1)]
    assert chain["remainder"]["value"] == chain["remainder"]["low"] == chain["remainder"]["high"] == 0
    assert chain["start"] == pytest.approx(10 * points) and chain["difference"] == pytest.approx(-2 * points)
    assert (chain["n"], chain["videos"]) == (12, 6)
    # The second derivation: the report's own paired differences of the same cells.
    cells = {cell.id: cell for cell in load_cells(results)}
    for step, (after, before) in zip(chain["steps"], ((MIDDLE, A), (B, MIDDLE)), strict=True):
        found = Context(list(cells.values())).paired(cells[after.id], cells[before.id])
        assert (step["value"], step["low"], step["high"]) == (found.value, *found.interval(0.95))
    printed = capsys.readouterr().out
    assert "12 questions about 6 videos are shared" in printed and "context: 65" in printed
    folder = next((results / "bridge").iterdir())
    assert (folder / "waterfall.svg").read_text().startswith("<svg")
    assert (folder / "waterfall.png").stat().st_size > 5000
    assert "context: 65 -> 33" in (folder / "bridge.md").read_text()


def test_both_orders_show_interaction(results, capsys):
    write_twin(results, one_cell(*LVB, "matrix.frames=[16]"), ASKED, "++++++------")
    assert bridge(results, cells=[A.digest, B.digest], both=True) == 0
    there, back = chains(results)
    assert [step["name"] for step in back["steps"]] == ["frames", "context"]
    assert [round(step["value"] * 12 / 100) for step in back["steps"]] == [-4, 2]
    assert there["difference"] == pytest.approx(back["difference"])
    assert "context: -16.67 in this order, +16.67 in the reverse one, interaction -33.33" in capsys.readouterr().out


def test_a_denominator_needs_no_new_answers(results):
    write_twin(results, SLOW, ASKED, "+++++-!!??--")
    assert bridge(results, cells=[SLOW.id] * 2, denominator=["all", "parsed"]) == 0
    (chain,) = chains(results)
    assert [step["name"] for step in chain["steps"]] == ["denominator"]
    assert chain["start"] == pytest.approx(100 * 5 / 12) and chain["end"] == pytest.approx(100 * 5 / 8)
    assert chain["steps"][0]["failed"] == 2
    assert chain["steps"][0]["gained"] is chain["steps"][0]["lost"] is None  # no answer turned


def test_a_parser_that_reads_more_is_a_factor(results):
    folder = write_twin(results, SLOW, ASKED, "+" * 12)
    rewrite(folder, lambda i, old: old | {"text": f"An answer: {ASKED[i].answer}" if i < 4 else old["text"]})
    (cell,) = load_cells(results, [SLOW.id])
    scores = {name: float(np.nanmean(cell.correct(name))) for name in (cell.parser, *cell.other_parsers)}
    low, high = min(scores, key=scores.get), max(scores, key=scores.get)
    assert scores[low] < scores[high]
    assert bridge(results, cells=[SLOW.id] * 2, parser=[low, high]) == 0
    (step,) = chains(results)[0]["steps"]
    assert step["value"] == pytest.approx(100 * (scores[high] - scores[low]))


def test_only_shared_questions_count_and_it_is_said(results, capsys):
    write_twin(results, SLOW, ASKED[:8], "++++++--")
    assert bridge(results, cells=[A.id, SLOW.id]) == 0
    (chain,) = chains(results)
    assert (chain["n"], chain["only_a"], chain["only_b"]) == (8, 4, 0)
    assert chain["start"] == 100 and chain["end"] == 75
    assert "4 questions of A are not among them" in capsys.readouterr().out


def test_the_last_factor_needs_no_twin_where_b_is_stored(results):
    absent = dataclasses.replace(B.model, name="gone", path="models/gone")
    gone = dataclasses.replace(B, model=absent, weights="0" * 12)
    write_twin(results, gone, ASKED, "+" * 5 + "-" * 7)
    assert bridge(results, cells=[A.id, gone.id], order=["model"]) == 0
    (chain,) = chains(results)
    assert [step["name"] for step in chain["steps"]] == ["context", "frames", "model"]
    assert chain["remainder"]["value"] == 0 and not chain["left"]


def test_what_cannot_be_twinned_is_named_and_its_part_is_unexplained(results, capsys, monkeypatch):
    def readers(backend):
        if backend == "pyav":
            raise UserError("video.backend=pyav does not work here")

    monkeypatch.setattr("harness.tools.bridge.chain.reader_class", readers)
    absent = dataclasses.replace(B.model, name="gone", path="models/gone")
    gone = dataclasses.replace(B, model=absent, video=dataclasses.replace(B.video, backend="pyav"), weights="0" * 12)
    write_twin(results, gone, ASKED, "+" * 5 + "-" * 7)
    assert bridge(results, cells=[A.id, gone.id]) == 0
    (chain,) = chains(results)
    assert [step["name"] for step in chain["steps"]] == ["context", "frames"]
    assert [each["factor"] for each in chain["left"]] == ["decoder: decord -> pyav", "model: toy -> gone"]
    assert chain["left"][0]["why"] == "video.backend=pyav does not work here"
    assert "weights: model.path=models/gone is neither" in chain["left"][1]["why"]
    assert round(chain["remainder"]["value"] * 12 / 100) == -3
    assert (chain["remainder"]["gained"], chain["remainder"]["lost"]) == (0, 3)
    assert "not changed: model: toy -> gone" in capsys.readouterr().out


def test_answers_of_an_older_version_are_a_factor_of_their_own(results):
    old = dataclasses.replace(A, versions={**A.versions, "core": 0})
    write_twin(results, old, ASKED, "+" * 12)
    assert bridge(results, cells=[old.id, B.id]) == 0
    (chain,) = chains(results)
    assert [step["name"] for step in chain["steps"]] == ["code and weights (A)", "context", "frames"]
    assert chain["steps"][0]["text"] == f"code and weights: core 0 -> {A.versions['core']}"
    assert round(chain["steps"][0]["value"] * 12 / 100) == -2


def test_a_published_number_is_met_on_its_terms(results, capsys):
    words = (*LVB, "matrix.semantics=[release_2026]", "matrix.frames=[1024]", "matrix.context=[16000]")
    known = one_cell(*words, "model.yarn_factor=4", "model.dtype=bfloat16", "method.chunk_frames=32")
    named = dataclasses.replace(known.model, name="qwen2_5_vl_7b", path="models/absent")
    there = dataclasses.replace(known, model=named, weights="0" * 12)
    here = dataclasses.replace(there, video=dataclasses.replace(there.video, max_frames=512))
    write_twin(results, here, ASKED, "++++++------")
    write_twin(results, there, ASKED, "++++++++----")
    for name in ("B.full.lvbench", "B.4", "B.4.lvbench"):
        assert bridge(results, cells=[here.id, name], output=str(results / "bridge" / "one")) == 0
        (chain,) = chains(results)
        assert [step["text"] for step in chain["steps"]] == ["frames: 512 -> 1024"]
        assert chain["steps"][0]["value"] == pytest.approx(100 * 2 / 12)
        assert chain["remainder"]["value"] == pytest.approx(48.48 - 100 * 8 / 12)
        assert chain["end"] == 48.48
    assert "no answers to pair with" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"table B has no number 'fulll\.lvbench'; rows: no_both, "):
        bridge(results, cells=[here.id, "B.fulll.lvbench"])


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["lvbench"], "name two results, A and B; 1 given"),
        (["lvbench-toy", B.id], "'lvbench-toy' means 3 cells of .*; name one of them"),
        (["nothing", B.id], "'nothing' is no cell below .*, no import and no published number"),
        (["[frames=64", B.id], r"is no setting; write '\[task=mlvu,frames=64,context=1000\]'"),
        (["[matrix=ablation,task=lvbench,frames=64]", B.id], "is 12 cells; say more"),
    ],
)
def test_ends_that_are_none(results, cells, message):
    with pytest.raises(UserError, match=message):
        bridge(results, cells=cells)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"parser": ["release", "mine"]},
            r"bridge\.parser=\['release', 'mine'\] is not known; give one or two of .*anchored",
        ),
        ({"denominator": ["some"]}, "give one or two of all, answered, parsed"),
        ({"subset": "half"}, "bridge.subset=half is not known; allowed: null, ci, mini"),
    ],
)
def test_words_that_are_not_known_are_refused(results, own, message):
    with pytest.raises(UserError, match=message):
        bridge(results, cells=[A.id, B.id], **own)


def test_a_page_that_cannot_be_written_is_said_before_anything_is_answered(results, monkeypatch):
    (results / "file").write_text("mine")
    monkeypatch.setattr("harness.run.run.answer", lambda *_: pytest.fail("answered first"))
    with pytest.raises(UserError, match="file cannot be written: .*; choose another with output=<folder>"):
        bridge(results, cells=[A.id, B.id], output=str(results / "file"))
    assert (results / "file").read_text() == "mine"


def test_different_benchmarks_are_refused(results):
    write_twin(results, one_cell(), questions("mlvu", 2), "++++++")
    with pytest.raises(UserError, match="A asks lvbench and B asks mlvu"):
        bridge(results, cells=[A.id, one_cell().id])
