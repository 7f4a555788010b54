"""Identity of a cell: what changes it, what does not, and that every field is classed."""

import dataclasses

import pytest

from harness.config import MethodConfig, ModelConfig, TaskConfig, VideoConfig
from harness.plan.cell import IDENTITY, RUNTIME, Cell, code_digest, resolve_method

SCHEMAS = {"model": ModelConfig, "method": MethodConfig, "video": VideoConfig, "task": TaskConfig}


def make_cell(**changes) -> Cell:
    names = {"name": "videomme", "lmms_task": "adaretake_videomme", "data": "videomme"}
    task = TaskConfig(**names, split="test", protocol="release")
    fields = {
        "model": ModelConfig(name="toy", adapter="a.B", path="somewhere", dtype="float32"),
        "method": resolve_method(MethodConfig(name="adaretake"), task),
        "video": VideoConfig(max_frames=256),
        "context": 264,
        "task": task,
        "weights": "0123456789ab",
    }
    return Cell(**(fields | changes))


@pytest.mark.parametrize("group", SCHEMAS)
def test_every_field_is_classed(group):
    fields = {f.name for f in dataclasses.fields(SCHEMAS[group])}
    unclassed = fields - IDENTITY[group] - RUNTIME[group]
    assert not unclassed, (
        f"{group}: add {sorted(unclassed)} to IDENTITY (it can change an answer; raise IDENTITY_VERSION) or to RUNTIME "
        "in harness/plan/cell.py"
    )
    assert not IDENTITY[group] & RUNTIME[group]
    assert IDENTITY[group] | RUNTIME[group] == fields


@pytest.mark.parametrize(("group", "field"), [(g, f) for g in SCHEMAS for f in sorted(IDENTITY[g])])
def test_an_identity_field_changes_the_digest(group, field):
    cell = make_cell()
    config = getattr(cell, group)
    old = getattr(config, field)
    new = {"x": True} if field == "quirks" else (not old if isinstance(old, bool) else f"{old}1")
    assert make_cell(**{group: dataclasses.replace(config, **{field: new})}).digest != cell.digest


@pytest.mark.parametrize(("group", "field"), [(g, f) for g in SCHEMAS for f in sorted(RUNTIME[g] - {"data"})])
def test_a_runtime_field_does_not(group, field):
    cell = make_cell()
    assert make_cell(**{group: dataclasses.replace(getattr(cell, group), **{field: "9"})}).digest == cell.digest


def test_context_and_weights_change_the_digest():
    assert len({make_cell().digest, make_cell(context=None).digest, make_cell(weights="f" * 12).digest}) == 3


def test_all_variants_of_no_compression_are_one_method():
    task = make_cell().task
    methods = [
        resolve_method(MethodConfig(name="none", semantics=s, temporal=t, layers=t), task)
        for s in ("paper", "release_2025")
        for t in (True, False)
    ]
    assert all(method == methods[0] for method in methods)


def test_the_task_sets_reforge_and_guide_length_for_the_releases():
    task = dataclasses.replace(make_cell().task, reforge=True, max_guide_length=152)
    release = resolve_method(MethodConfig(name="adaretake", semantics="release_2026"), task)
    paper = resolve_method(MethodConfig(name="adaretake", semantics="paper"), task)
    assert (release.reforge, release.max_guide_length, release.positions) == (True, 152, "truncated")
    assert (paper.reforge, paper.max_guide_length, paper.positions) == (False, 152, "float")


def test_comments_and_docstrings_do_not_change_the_code_digest(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.plan.cell.REPO", tmp_path)
    digests = []
    (tmp_path / "room" / "inner").mkdir(parents=True)
    for text in ['"""Doc."""\nx = 1\n', '"""Other."""\n\n# why\nx = 1\n', '"""Doc."""\nx = 2\n']:
        (tmp_path / "room" / "inner" / "a.py").write_text(text)
        code_digest.cache_clear()
        digests.append(code_digest("room"))
    code_digest.cache_clear()
    assert digests[0] == digests[1] != digests[2]
