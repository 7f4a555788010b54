"""python -m pytest tests/report/test_pairs.py"""

import numpy as np
import pytest
from cell_folders import configuration, context, questions, rewrite, write_cell

from harness.report.report import gather, main
from harness.report.tables import over_context
from harness.verdicts.pairs import axis_of, find_pairs, ladder, unequal_budget

TASKS = ("lvbench", "mlvu")


def ladder_of(results, variants=("no_temporal", "full"), contexts=(66, 264), slots=None):
    """Cells of two benchmarks at several contexts; `full` gains at the smallest context only."""
    rng = np.random.default_rng(0)
    for task in TASKS:
        asked = questions(task, 40)
        base = rng.random(len(asked)) < 0.6
        for at in contexts:
            for variant in variants:
                right = base | ((variant == "full") & (at == min(contexts)) & (rng.random(len(asked)) < 0.4))
                changes = {"variant": variant, "context": at, "digest": f"{at}{variant}", "model__name": "toy"}
                folder = write_cell(results, asked, list(right), task=task, **changes)
                length = [(slots or {}).get(variant, at)] * 2
                rewrite(folder, lambda i, record, length=length: record | {"cache_length": length})


def test_cells_that_differ_in_one_axis_make_a_pair_and_are_pooled(tmp_path):
    ladder_of(tmp_path)
    found = find_pairs(context(tmp_path))
    single = {(p.benchmark, p.axis, *p.names) for p in found if not p.pooled and p.benchmark == "lvbench"}
    variants = ("variant", "adaretake release_2026 full", "no_temporal")
    assert single == {("lvbench", *variants), ("lvbench", "context", "context 264", "context 66")}
    assert [p.setting.get("context") for p in found if p.axis == "variant"] == [66, 264] * 3
    (at_66,) = [p for p in found if p.pooled and p.axis == "variant" and p.setting["context"] == 66]
    parts = [p.difference for p in found if not p.pooled and p.axis == "variant" and p.setting["context"] == 66]
    assert at_66.benchmark == "mean of 2" and len(parts) == 2
    assert at_66.difference.value == pytest.approx(np.mean([part.value for part in parts]))
    assert at_66.difference.n == 240 and at_66.difference.interval(0.95)[0] > 0


@pytest.mark.parametrize(
    ("a", "b", "axis"),
    [
        ({}, {"variant": "no_both"}, "variant"),
        ({}, {"variant": "none"}, "method"),
        ({}, {"method__name": "random"}, "method"),
        ({}, {"method__semantics": "paper", "method__positions": "float", "method__reforge": False}, "semantics"),
        ({}, {"video__fps": 1.0}, "fps"),
        ({}, {"method__chunk_frames": 16}, "chunk_frames"),
        ({}, {"task__protocol": "lmms_eval"}, "protocol"),
        ({}, {"variant": "no_both", "context": 1000}, None),
        ({}, {"task__subset": "ci"}, None),
        ({}, {"method__name": "random", "variant": "no_both"}, None),
        ({}, {"code": "other"}, None),
    ],
)
def test_an_axis_is_one_setting(tmp_path, a, b, axis):
    for digest, changes in (("1", a), ("2", b)):
        write_cell(tmp_path, questions("lvbench", 2), [True] * 6, digest=digest, **changes)
    one, other = context(tmp_path).cells
    assert axis_of(one, other) == axis_of(other, one) == axis


def test_no_pair_is_said(tmp_path, capsys):
    write_cell(tmp_path, questions("lvbench", 2), [True] * 6)
    assert main(configuration(tmp_path, "report.html=false")) == 0
    said = "No paired differences: no two of these cells differ in exactly one setting"
    assert said in capsys.readouterr().out and said in (tmp_path / "report" / "report.md").read_text()


def test_budgets_are_the_measured_ones(tmp_path):
    ladder_of(tmp_path, contexts=(259,), slots={"full": 259, "no_temporal": 482})
    found = find_pairs(context(tmp_path))
    assert {p.budget for p in found} == {"not equal"} and found[0].slots == (259, 482)
    assert unequal_budget(*found[0].cells[0]) == "not at equal budget: 259 against 482 cache slots"
    ladder_of(tmp_path / "alike", contexts=(259,), slots={"full": 259, "no_temporal": 270})
    assert {p.budget for p in find_pairs(context(tmp_path / "alike"))} == {"equal"}


def test_accuracy_over_context_is_one_table_with_the_effect_of_the_variants(tmp_path, capsys):
    ladder_of(tmp_path, slots={"full": 70, "no_temporal": 71})
    made = context(tmp_path)
    section = over_context(ladder(made, "context"), find_pairs(made), made.settings)
    assert list(section.frame.columns)[-2:] == ["context 264", "context 66"]
    rows = section.frame.set_index(["benchmark", "method"])
    effect = rows.loc[("mean of 2", "adaretake release_2026 full minus no_temporal"), "context 66"]
    pooled = next(p for p in find_pairs(made) if p.pooled and p.axis == "variant")
    assert effect.startswith(f"{pooled.difference.value:+.1f} (") and "not at equal" not in effect
    assert rows.iloc[0]["context 66"].endswith("slots") and rows.index[0][0] == "mean of 2"
    assert main(configuration(tmp_path)) == 0
    assert "Accuracy over context" in capsys.readouterr().out
    assert {"context_toy.svg", "effects_toy.svg"} <= {p.name for p in (tmp_path / "report" / "figures").iterdir()}


def test_one_context_is_no_ladder(tmp_path):
    ladder_of(tmp_path, contexts=(259,))
    assert (
        ladder(context(tmp_path), "context") == [] == gather(context(tmp_path).cells, context(tmp_path).settings).rungs
    )
