"""The scale benchmark, and that no verb that reads stored answers costs more per answer the more there are.

Costs are counted as calls of functions, Python's and C's: the same on every machine and at every load.
"""

from __future__ import annotations

import cProfile
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from verbs import composed

from harness.cli import check_read, parse
from harness.evidence.loading import load_cells
from harness.gate import check
from harness.lmms import score
from harness.plan import plan as planning
from harness.report import report
from harness.run import run
from harness.settings.matrix import build_cells
from harness.toy.benchmarks import build

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_scale.py"
QUESTIONS = 56
SIZES = (2, 4, 8)
"""Settings of every benchmark: two and four variants, and these in two contexts."""
MOST = 1.8
"""Between the last two sizes an answer may cost so many times what it costs between the first two; what grows with the
square of the answers costs twice as much."""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("bench_scale_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stores(script, tmp_path_factory):
    """Settings -> (folder, number of answers)."""
    folder = tmp_path_factory.mktemp("scale")
    build(folder / "toy", scale=0.03)
    made = {}
    for settings in SIZES:
        store = folder / f"store{settings}"
        made[settings] = store, script.make_store(folder / "toy", store, QUESTIONS, settings)
    return made


@pytest.fixture(scope="module")
def configs(script, stores):
    """Settings -> the configuration of commands about its store, and the groups of its matrix."""
    found = {}
    for settings, (store, _) in stores.items():
        words = [*script.overrides(store, settings), "report.cells=['*']", "report.html=false"]
        checked = ["check.exact=true", f"check.baseline={store / 'baseline.json'}"]
        config, check = composed("check", *words, *checked)
        found[settings] = config, build_cells(config), check
    return found


def test_every_command_has_words_that_its_verb_reads(script, stores):
    settings, (store, _) = next(iter(stores.items()))
    for verb in script.VERBS:
        check_read(parse(script.command(verb, store, settings)))


def test_a_verb_is_measured_in_a_process_of_its_own(script, stores):
    settings, (store, _) = next(iter(stores.items()))
    found = script.measure("plan", store, settings)
    assert found["status"] == 0, (store / "plan.log").read_text()
    assert found["cpu_s"] > 0 and found["peak_mib"] > 0 and found["wall_s"] > 0


VERBS = {
    "plan": planning.main,
    "run": run.main,
    "score": score.main,
    "score again": score.main,
    "report": report.main,
    "baseline": lambda config, own: check.main(config, dataclasses.replace(own, update_baseline=True)),
    "check": check.main,
}


def calls(work) -> int:
    """Functions called by `work`, which ends well."""
    profile = cProfile.Profile()
    profile.enable()
    try:
        assert work() == 0
    finally:
        profile.disable()
    return sum(entry.callcount for entry in profile.getstats())


def test_an_answer_costs_no_more_among_many(stores, configs, monkeypatch, capsys):
    groups = {id(config): own for config, own, _ in configs.values()}
    monkeypatch.setattr(planning, "build_cells", lambda config, problems: groups[id(config)])
    monkeypatch.setenv("ADARETAKE_TOKENIZER", configs[SIZES[0]][0].model.path)
    factors = {}
    for verb, work in VERBS.items():
        counted = []
        for settings in (SIZES[0], *SIZES):  # the first one imports and fills caches, and is not looked at
            config, (store, answers) = configs[settings][0], stores[settings]
            given = (config, configs[settings][2]) if verb in ("baseline", "check") else (config,)
            monkeypatch.setenv("ADARETAKE_DATA", str(store / "data"))
            if verb == "score":
                for path in (store / "results" / "runs").glob("*/score.json"):
                    path.unlink()
            if verb == "baseline":
                (store / "baseline.json").unlink(missing_ok=True)
            counted.append((answers, calls(lambda work=work, given=given: work(*given))))
        (n0, c0), (n1, c1), (n2, c2) = counted[1:]
        first, second = (c1 - c0) / (n1 - n0), (c2 - c1) / (n2 - n1)
        factors[verb] = round(second / first, 2)
    capsys.readouterr()
    assert max(factors.values()) < MOST, factors


def test_stores_are_whole_and_differ_from_cell_to_cell(stores):
    store, answers = stores[SIZES[0]]
    cells = load_cells(store / "results")
    assert len(cells) == 4 * SIZES[0] and sum(len(cell.answers) for cell in cells) == answers
    assert all(cell.complete for cell in cells)
    said = [tuple((a.text, a.kept_margin) for a in cell.answers.values()) for cell in cells if cell.task == "mlvu"]
    assert len(set(said)) > 1
    frames = {answer.frames for cell in cells for answer in cell.answers.values()}
    assert {path.stem for path in (store / "results" / "frames").iterdir()} == frames


def test_last_line_is_the_summary(script, tmp_path, monkeypatch, capsys):
    rows = [{"answers": 8, "verb": "plan", "cpu_s": 1.0, "wall_s": 2.0, "peak_mib": 3, "status": 0}]
    monkeypatch.setattr(script, "bench", lambda *of: iter(rows))
    assert script.main(["--toy", str(tmp_path), "--folder", str(tmp_path), "--sizes", "8"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"rows": rows}
