"""Identity of a cell: what changes it, what does not, and that every field is classed."""

import dataclasses

import pytest

from harness.compress.method import build_method
from harness.settings.cell import GROUPS, Cell, code_digest, settle_method
from harness.settings.groups import ModelConfig, TaskConfig, VideoConfig
from harness.settings.rules import identity_fields, rule_of, setting

VERSIONS = {"core": 1, "method": 1, "adapter": 1, "decoding": 1, "prompt": 1}


def make_cell(**changes) -> Cell:
    names = {"name": "videomme", "data": "videomme"}
    task = TaskConfig(**names, split="test", protocol="release")
    fields = {
        "model": ModelConfig(name="toy", adapter="a.B", path="somewhere", dtype="float32"),
        "method": settle_method(build_method("adaretake"), task, "unknown"),
        "video": VideoConfig(max_frames=256, backend="decord"),
        "context": 264,
        "task": task,
        "weights": "0123456789ab",
        "versions": VERSIONS,
    }
    return Cell(**(fields | changes))


FIELDS = [(group, field) for group in GROUPS for field in dataclasses.fields(getattr(make_cell(), group))]


@pytest.mark.parametrize(("group", "field"), FIELDS, ids=lambda value: getattr(value, "name", value))
def test_every_field_changes_the_digest_but_those_of_the_runtime(group, field):
    cell = make_cell()
    config = getattr(cell, group)
    old = getattr(config, field.name)
    new = {"quirks": {"x": True}, "semantics": "release_2025", "positions": "v5", "max_guide_length": 7}.get(field.name)
    if new is None:
        new = not old if isinstance(old, bool) else old + 1 if isinstance(old, int | float) else f"{old}1"
    changed = make_cell(**{group: dataclasses.replace(config, **{field.name: new})})
    if not rule_of(field).runtime:
        assert changed.digest != cell.digest
    else:
        assert changed.digest == cell.digest


PINNED = "videomme-toy-adaretake-paper-full-f256-fps2-c264-76b8317b"


def test_ids_are_pinned():
    assert make_cell().id == PINNED, (
        "this change gives cells another id, so every stored answer of theirs is asked again. A new field needs "
        "setting(..., neutral=<value under which answers are as before>), or runtime=True if it cannot change any; "
        "where answers change on purpose, raise the version of what changed (core, method, adapter, decoding, prompt) "
        "and not IDENTITY_VERSION"
    )


def test_a_new_field_at_its_neutral_value_stays_out_of_the_identity():
    @dataclasses.dataclass
    class Old:
        name: str = "a"

    @dataclasses.dataclass
    class New(Old):
        sharpness: float = setting(1.0, neutral=1.0)

    assert identity_fields(New()) == identity_fields(Old())
    assert identity_fields(New(sharpness=2.0)) == {"name": "a", "sharpness": 2.0}


@pytest.mark.parametrize("version", VERSIONS)
def test_each_declared_version_changes_the_digest(version):
    assert make_cell(versions=VERSIONS | {version: 2}).digest != make_cell().digest


def test_context_and_weights_change_the_digest():
    assert len({make_cell().digest, make_cell(context=None).digest, make_cell(weights="f" * 12).digest}) == 3


def test_the_task_sets_reforge_and_guide_length_for_the_releases():
    task = dataclasses.replace(make_cell().task, reforge=True, max_guide_length=152)
    release = settle_method(build_method("adaretake", semantics="release_2026"), task, "unknown")
    paper = settle_method(build_method("adaretake", semantics="paper"), task, "unknown")
    assert (release.reforge, release.max_guide_length, release.positions) == (True, 152, "truncated")
    assert (paper.reforge, paper.max_guide_length, paper.positions) == (False, 152, "float")
    own = settle_method(
        build_method("adaretake", semantics="release_2026", reforge=False, max_guide_length=9), task, "unknown"
    )
    assert (own.reforge, own.max_guide_length) == (False, 9)


def test_a_method_without_these_options_takes_nothing_from_the_task():
    task = dataclasses.replace(make_cell().task, reforge=True, max_guide_length=152)
    assert settle_method(build_method("none"), task, "unknown") == build_method("none", positions="float")


def test_comments_and_docstrings_do_not_change_the_code_digest(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.settings.cell.ROOT", tmp_path)
    digests = []
    (tmp_path / "room" / "inner").mkdir(parents=True)
    for text in ['"""Doc."""\nx = 1\n', '"""Other."""\n\n# why\nx = 1\n', '"""Doc."""\nx = 2\n']:
        (tmp_path / "room" / "inner" / "a.py").write_text(text)
        code_digest.cache_clear()
        digests.append(code_digest("room"))
    code_digest.cache_clear()
    assert digests[0] == digests[1] != digests[2]
