"""Planted gaps on the toy, with the real pipeline: a run is changed behind its back, goes through lmms-eval's file of
samples, and the bridge finds what was changed."""

from __future__ import annotations

import dataclasses
import json

import pytest
from verbs import composed

from harness.evidence.loading import load_cells
from harness.run.loop import Loop
from harness.run.run import main as run
from harness.settings.compose import compose_config
from harness.store import answer_files, iter_answers
from harness.tools.bridge.bridge import main
from harness.tools.exchange import importing
from harness.toy.benchmarks import build

OURS = "[task=mlvu,variant=full,semantics=paper,frames=64,fps=2,context=65]"
THEIRS = ["matrix=ablation", "matrix.task=[mlvu]", "matrix.variant=[full]", "matrix.fps=[2]"]
PLANTED = ["matrix.frames=[8]", "matrix.context=[40]"]


def words(base, results):
    return [f"data.root={base / 'data'}", f"results={results}", "task.max_new_tokens=2"]


def bridge(base, cells, **own):
    config, given = composed("bridge", *words(base, base / "ours"))
    return main(config, dataclasses.replace(given, cells=cells, **own))


def found(base):
    (path,) = (base / "ours" / "bridge").glob("*theirs/bridge.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A toy, and a run of it with other settings, imported from a file of lmms-eval."""
    folder = tmp_path_factory.mktemp("planted")
    build(folder / "data", scale=0.06)
    assert run(compose_config([*words(folder, folder / "elsewhere"), *THEIRS, *PLANTED])) == 0
    (cell,) = load_cells(folder / "elsewhere")
    samples = [
        {
            "doc_id": k,
            "doc": {"question_id": question.question_id, "options": question.options, "answer": question.answer},
            "target": question.answer,
            "resps": [[cell.answers[question.question_id].text]],
            "filtered_resps": [cell.answers[question.question_id].text],
        }
        for k, question in enumerate(cell.questions)
    ]
    path = folder / "samples_mlvu.jsonl"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    said = ["imported.of=mlvu", "imported.name=theirs", f"imported.files=['{path}']"]
    assert importing.main(*composed("import", *words(folder, folder / "ours"), *said)) == 0
    return folder


def test_an_interrupted_bridge_goes_on_where_it_stopped(base, monkeypatch, capsys):
    store, given = Loop._store, []

    def stop(self, ask, answer):
        if len(given) == 3:
            raise KeyboardInterrupt
        given.append(ask.question.question_id)
        store(self, ask, answer)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_store", stop)
        assert bridge(base, [OURS, "theirs"]) == 130
    assert not [*(base / "ours" / "bridge").rglob("bridge.*")]
    assert bridge(base, [OURS, "theirs"]) == 0
    (folder,) = (base / "ours" / "runs").iterdir()
    asked = [answer.question_id for path in answer_files(folder) for answer in iter_answers(path)]
    assert asked[:3] == given and len(asked) == len(set(asked)) == found(base)["chains"][0]["n"]


def test_the_search_finds_what_was_planted_and_nothing_else(base, capsys):
    tried = ["frames=8", "variant=no_both", "context=40", "fps=1"]
    assert bridge(base, [OURS, "theirs"], candidates=tried, search=True) == 0
    said = found(base)
    (chain,) = said["chains"]
    taken = {step["name"] for step in chain["steps"]} - {"parser"}
    assert "frames" in taken <= {"frames", "context"}, said
    assert chain["remainder"]["value"] == 0 and chain["remainder"]["gained"] == chain["remainder"]["lost"] == 0
    assert chain["remainder"]["low"] <= 0 <= chain["remainder"]["high"]
    assert chain["difference"] == pytest.approx(sum(step["value"] for step in chain["steps"]))
    assert {line.split(":")[0] for line in said["rejected"]} >= {"variant", "fps"}


def test_given_candidates_are_measured_each(base):
    """A candidate that was not planted has no effect; with all planted ones nothing is left."""
    assert bridge(base, [OURS, "theirs"], candidates=["frames=8", "context=40", "fps=1"], order=["fps"]) == 0
    (chain,) = found(base)["chains"]
    steps = {step["name"]: step for step in chain["steps"]}
    assert list(steps)[0] == "fps" and (steps["fps"]["gained"], steps["fps"]["lost"]) == (0, 0)
    assert steps["frames"]["gained"] or steps["frames"]["lost"]
    assert chain["remainder"]["value"] == 0 == chain["remainder"]["lost"]


def test_the_plan_runs_nothing(base, capsys):
    before = sorted((base / "ours" / "runs").iterdir())
    assert (
        bridge(base, [OURS, "[task=mlvu,variant=no_both,semantics=paper,frames=32,fps=2,context=65]"], plan=True) == 0
    )
    said = capsys.readouterr().out
    assert "temporal: yes -> no" in said and "cells in" in said and "questions to answer" in said
    assert "harness run" not in said  # the default matrix has other cells
    assert sorted((base / "ours" / "runs").iterdir()) == before
