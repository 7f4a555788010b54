"""The axis `replicate` changes no cell that is there, and draws anew what is random."""

from __future__ import annotations

import dataclasses

from harness.run.answer import load_model
from harness.settings.compose import compose_config
from harness.settings.matrix import as_groups, build_cells

TOY = ["matrix=ablation", "task=videomme", "matrix.variant=[full]", "matrix.context=[65]"]


def test_replicate_zero_is_the_cell_as_it_was():
    (plain,) = build_cells(compose_config(TOY))
    first, second = build_cells(compose_config([*TOY, "matrix.replicate=[0,1]"]))
    assert first == plain and first.id == plain.id
    assert "replicate" not in plain.identity["task"]
    assert second.id.rsplit("-", 2)[-2] == "r1" and second.digest != plain.digest
    assert dataclasses.replace(second, task=plain.task) == plain
    assert second.video_key == plain.video_key


def test_one_setting_replaces_the_axis():
    (cell,) = build_cells(compose_config([*TOY, "task.replicate=2"]))
    assert cell.task.replicate == 2
    assert len(as_groups(build_cells(compose_config([*TOY, "matrix.replicate=[0,1,2]"])))) == 1


def test_seeds_of_random_methods_move_along():
    random = [*TOY, "method=random", "method.seed=5"]
    cells = build_cells(compose_config([*random, "matrix.replicate=[0,1,2]"]))
    assert [cell.method.seed for cell in cells] == [5, 6, 7]


def test_another_attention_backend_is_a_cell_of_its_own():
    (plain,) = build_cells(compose_config(TOY))
    (eager,) = build_cells(compose_config([*TOY, "model.numerics=eager"]))
    (running,) = build_cells(compose_config([*TOY, "model.attention=eager"]))
    assert "numerics" not in plain.identity["model"] and running.id == plain.id
    assert eager.id != plain.id and eager.identity["model"]["numerics"] == "eager"
    assert load_model(eager).attention_backend == "eager" != load_model(plain).attention_backend
