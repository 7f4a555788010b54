"""`show`: stored answers given again, checked and drawn."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from cell_folders import rewrite
from method_cases import CASES
from tiny_checkpoints import save_tiny

from harness.cli import main
from harness.models.families import open_model
from harness.report.style import picture
from harness.run.run import main as run
from harness.settings.compose import compose_config
from harness.store import Answer, failed_answer, read_answers
from harness.tools.show import again
from harness.tools.show.kept import kept_of


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> tuple[Path, Path]:
    """Data and results: two variants at two contexts, answered by the embedded checkpoint on the CPU."""
    from harness.toy.benchmarks import build

    data, results = tmp_path_factory.mktemp("toy") / "data", tmp_path_factory.mktemp("toy") / "results"
    build(data, scale=0.06)
    words = ["matrix=ablation", "matrix.task=[lvbench]", "matrix.variant=[no_both,full]", "matrix.frames=[32]"]
    words += ["matrix.context=[64]", "task.max_new_tokens=2", "model.device=cpu", "engine.threads=1"]
    assert run(compose_config([*words, f"data.root={data}", f"results={results}"])) == 0
    return data, results


@pytest.fixture
def show(toy, tmp_path, monkeypatch):
    """Runs the verb on a copy of the results; counts the videos that are opened."""
    opened = []
    open_sampled = again.open_sampled
    monkeypatch.setattr(again, "open_sampled", lambda path, *a: opened.append(path) or open_sampled(path, *a))
    shutil.copytree(toy[1], tmp_path / "results")

    def call(*words: str) -> int:
        call.opened = opened
        return main(["show", *words, f"data.root={toy[0]}", f"results={tmp_path / 'results'}"])

    call.results = tmp_path / "results"
    call.cells = sorted((call.results / "runs").iterdir())
    call.names = list(read_answers(call.cells[0]))
    return call


def test_cells_give_their_answer_again_side_by_side_of_one_encoding(show, capsys):
    name = show.names[0]
    assert show(name, "cell=lvbench*") == 0
    out = capsys.readouterr().out
    assert "2 of 2 answers are the stored ones" in out and len(show.opened) == 1
    for which in (*(cell.name for cell in show.cells), "lvbench.side_by_side"):
        assert picture(show.results / "report", name, which).read_bytes().startswith(b"\x89PNG")


def test_another_answer_is_a_finding(show, capsys):
    name = show.names[0]
    change = {"text": "planted", "kept_digest": "0" * 16}
    rewrite(show.cells[0], lambda _, record: record | (change if record["question_id"] == name else {}))
    assert show(name, f"cell={show.cells[0].name},{show.cells[1].name[-8:]}") == 1
    out = capsys.readouterr().out
    assert "not the stored answer (text, kept_digest differ; stored text: planted)" in out
    assert "1 of 2 answers are the stored ones" in out


def test_only_kept_tokens_that_tie_are_no_finding():
    trace = {"kept_digest": "a", "kept_margin": 1e-9, "n_prompt": 9}
    stored = Answer("q", "v", "ok", text="A", **{**trace, "kept_digest": "b"})
    now = Answer("q", "v", "ok", text="A", **trace)

    def found(stored: Answer, other_video: bool = False) -> again.Again:
        ask = again.Ask(None, None, None, stored)
        generation = SimpleNamespace(text="A", trace=now)
        return again.Again(ask, generation, None, {}, None, other_video)

    assert found(stored).differs == ["kept_digest"] and found(stored).tie
    assert not found(msgspec.structs.replace(stored, kept_margin=1e-3)).tie
    assert not found(msgspec.structs.replace(stored, text="B")).tie
    assert found(stored, True).differs == ["video", "kept_digest"] and not found(stored, True).tie


def test_flips_are_shown_up_to_the_limit(show, capsys):
    a, b = show.cells
    for cell, text in ((a, "A"), (b, "B")):
        rewrite(cell, lambda _, record, text=text: record | {"text": text})
    assert show("--flips", a.name, b.name, "--limit", "1") == 1
    out = capsys.readouterr().out
    assert "questions flip between" in out and "of 2 answers are the stored ones" in out and len(show.opened) == 1


def test_what_is_stored_as_failed_is_said(show, capsys):
    for cell in show.cells:
        (record,) = [a for name, a in read_answers(cell).items() if name == show.names[0]]
        failed = failed_answer(
            record.question_id, record.video_id, RuntimeError("no frames"), prompt_digest=record.prompt_digest
        )
        line = failed.to_line(cell.name)
        (cell / "answers.jsonl").write_bytes(line)
    assert show(show.names[0]) == 1
    assert capsys.readouterr().out.count("is stored as failed: RuntimeError: no frames") == 2 and not show.opened


def test_unknown_names_come_with_near_ones(show, monkeypatch, capsys):
    assert show("nothing-like-it", "cell=lvbench*") == 2
    assert "there are, for example:" in capsys.readouterr().err
    assert show(show.names[0], "cell=lvbench-toy-adaretake-paper-fill") == 2
    assert show.cells[0].name in capsys.readouterr().err
    assert show("--flips", show.cells[0].name, "lvbench") == 2
    assert "means 2 cells" in capsys.readouterr().err
    monkeypatch.setattr("harness.tools.show.show.MOST", 1)
    assert show(show.names[0]) == 2
    assert "2 cells are too many for one picture" in capsys.readouterr().err
    assert show() == 2
    assert "name questions" in capsys.readouterr().err


def test_a_cell_of_other_weights_is_not_answered_again(show, monkeypatch, capsys):
    monkeypatch.setattr(again, "weights_identity", lambda path: "other")
    assert show(show.names[0]) == 2
    assert "weights " in (said := capsys.readouterr().err) and "-> other changed since" in said


def test_question_ids_stay_inside_the_folder(tmp_path):
    for name in ("../up", "..", "a/b", "plain 1"):
        path = picture(tmp_path, name, "cell")
        assert path.parent.parent == tmp_path / "pictures" and path.parent.name not in ("..", ".")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    adapter = open_model(str(save_tiny("qwen2_5_vl", tmp_path_factory.mktemp("tiny"), layers=4)), device="cpu")
    frames = np.random.default_rng(0).integers(0, 255, (24, 56, 84, 3)).astype(np.uint8)
    return adapter, adapter.encode(frames, keep_frames=True, keep_attention=True)


UNRECORDED = ("video_x2l", "uniform_frames", "aks", "bolt")
"""Their slots are averages of tokens, or their frames are others than those of the video as encoded."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_drawn_is_what_the_cache_holds(tiny, case):
    adapter, video = tiny
    method = case.build()
    context = adapter.prompt("Which?", video).n_text + 54  # of 72; less is too little for two native forms
    trace = adapter.answer(video, "Which?", method, context, max_new_tokens=1, record=True).trace
    kept = kept_of(trace, video)
    if method.name in UNRECORDED:
        assert kept is None
        return
    text = trace.n_prompt - trace.n_video
    if case.name == "adaretake release_2026":  # a chunk that stays whole keeps its guide, which is no video
        text += 22
    assert kept.layers.sum(1).tolist() == pytest.approx([length - text for length in trace.cache_length])
