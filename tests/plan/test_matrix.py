"""Expansion of a matrix into cells and groups of siblings."""

import pytest

from harness.config import compose_config
from harness.errors import UserError
from harness.plan.matrix import build_cells, build_groups
from harness.plan.weights import find_weights, weights_identity


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return f"model.path={folder}"


def test_main_results_is_table_a(model):
    cells = build_cells(compose_config(["profile=published", model]))
    facts = {(c.task.name, c.video.max_frames, c.video.fps, c.context, c.method.semantics, c.variant) for c in cells}
    assert facts == {
        ("videomme", 2048, 4.0, 16000, "release_2026", "full"),
        ("mlvu", 2048, 2.0, 16000, "release_2026", "full"),
        ("longvideobench", 2048, 2.0, 16000, "release_2026", "full"),
        ("lvbench", 2048, 2.0, 16000, "release_2026", "full"),
    }
    assert all(c.method.positions == "truncated" for c in cells)


def test_ablation_is_table_b_in_groups_of_four_siblings(model):
    groups = build_groups(compose_config(["matrix=ablation", "profile=published", model]))
    assert [len(g.cells) for g in groups] == [4, 4, 4, 4]
    assert {c.variant for c in groups[0].cells} == {"no_both", "no_layer", "no_temporal", "full"}
    assert {c.video.max_frames for g in groups for c in g.cells} == {1024}


def test_axes_are_lists_on_the_command_line(model):
    config = compose_config(["matrix.context=[64,128,256]", "matrix.frames=[64,128]", "matrix.task=[lvbench]", model])
    groups = build_groups(config)
    assert [len(g.cells) for g in groups] == [3, 3]


def test_overrides_of_a_group_reach_every_option_of_an_axis(model):
    cells = build_cells(compose_config(["task.subset=ci", model]))
    assert len(cells) == 4
    assert {c.task.subset for c in cells} == {"ci"}


def test_uncompressed_cells_are_not_repeated_per_variant(model):
    config = compose_config(["matrix=ablation", "matrix.method=[none,adaretake]", "matrix.task=[mlvu]", model])
    assert [c.variant for c in build_cells(config)] == ["none", "no_both", "no_layer", "no_temporal", "full"]
    assert len(build_groups(config)) == 1


@pytest.mark.parametrize(
    "override", ["matrix.variant=[ful]", "matrix.task=[]", "matrix.context=[0]", "matrix.semantics=[papr]"]
)
def test_a_wrong_axis_is_named(model, override):
    with pytest.raises(UserError, match=override.split("=")[0]):
        build_cells(compose_config([override, model]))


def test_missing_weights_name_the_command_that_gets_them():
    with pytest.raises(UserError, match="hf download nobody/nothing"):
        find_weights("nobody/nothing")
    with pytest.raises(UserError, match="does not exist"):
        find_weights("/nowhere")


def test_weights_identity_sees_the_contents(tmp_path):
    identities = set()
    for k in range(2):
        folder = tmp_path / str(k)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(bytes([k]) * 10)
        identities.add(weights_identity(folder))
    assert len(identities) == 2
