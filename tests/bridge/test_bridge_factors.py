"""Factors of two settings, and chains that change one at a time."""

from __future__ import annotations

import dataclasses

import pytest
from twin_cells import one_cell

from harness.errors import UserError
from harness.settings.rules import identity_fields
from harness.tools.bridge.chain import ChainPoint, make_chain, ordered
from harness.tools.bridge.factors import factors_between

A = one_cell()


def twin(cell, changes):
    made = cell.with_(changes, lambda each: each.weights)
    made.method.for_family("qwen2_5_vl")
    return made


def chain(a, b, **options):
    return make_chain(ChainPoint(a, "release", "all"), factors_between(a, b, **options), twin, None)


OTHERS = [
    ("matrix.frames=[16]",), ("matrix.fps=[1]", "video.long_side=224"), ("video.backend=pyav",),
    ("video=stock", "matrix.frames=null", "matrix.fps=null"),
    ("matrix.variant=[no_both]",), ("method=none", "matrix.variant=null"), ("method=random",),
    ("model.dtype=bfloat16",),
    ("matrix.semantics=[release_2026]",), ("matrix.semantics=[release_2025]", "method.chunk_frames=16"),
    ("matrix.semantics=[release_2026]", "method.quirks.guide_by_text_index=false"), ("task.protocol=lmms_eval",),
    ("task.replicate=3",), ("task.max_new_tokens=5", "model.yarn_factor=4"), ("method=snapkv", "matrix.context=[33]"),
]  # fmt: skip


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_changing_every_factor_arrives_at_the_other_setting(words):
    b = one_cell(*words)
    for start, end in ((A, b), (b, A)):
        found = chain(start, end)
        assert found.links and not found.left
        assert found.links[-1].point.cell.identity == end.identity
        names = [link.factor.name for link in found.links]
        assert len(names) == len(set(names))


def test_every_setting_of_the_identity_is_in_some_factor():
    new = {"float": 7.0, "int": 7, "str": "x", "str | None": "x", "int | None": 9999}
    for group in ("video", "task"):
        own = getattr(A, group)
        for field in dataclasses.fields(own):
            if field.name not in identity_fields(dataclasses.replace(own, replicate=1) if group == "task" else own):
                continue
            if (group, field.name) in {("task", "name"), ("task", "data"), ("task", "split"), ("task", "subset")}:
                continue  # the benchmark, whose questions may not differ, and which of them are asked
            value = getattr(own, field.name)
            other = (not value) if isinstance(value, bool) else new[str(field.type)]
            b = dataclasses.replace(A, **{group: dataclasses.replace(own, **{field.name: other})})
            assert len(factors_between(A, b)) == 1, field.name


def test_a_semantics_is_taken_apart_quirk_by_quirk():
    b = one_cell("matrix.semantics=[release_2026]")
    whole, apart = chain(A, b), chain(A, b, quirks=True)
    added = {link.factor.name for link in apart.links} - {link.factor.name for link in whole.links}
    assert len(added) > 5 and all(name.startswith("quirks.") for name in added)
    last = apart.links[-1].point.cell.method.for_family("qwen2_5_vl")
    assert last == b.method.for_family("qwen2_5_vl")
    first = next(link for link in apart.links if link.factor.name == "semantics")
    assert not any(first.point.cell.method.for_family("qwen2_5_vl").quirks.values())
    # From one release to the other, and in the reverse order: quirks of A go first, those of B come last.
    back = factors_between(b, one_cell("matrix.semantics=[release_2025]"), quirks=True)[::-1]
    found = make_chain(ChainPoint(b, "release", "all"), back, twin, None)
    names = [link.factor.name for link in found.links]
    assert not found.left and 0 < names.index("semantics") < len(names) - 1


def test_order():
    factors = factors_between(A, one_cell("matrix.frames=[16]", "matrix.context=[33]", "matrix.fps=[1]"))
    assert [factor.name for factor in factors] == ["context", "fps", "frames"]
    assert [factor.name for factor in ordered(factors, ["frames", "context"])] == ["frames", "context", "fps"]
    with pytest.raises(UserError, match="frame is no factor here; A and B differ in: context, fps, frames"):
        ordered(factors, ["frame"])


def test_a_factor_that_cannot_be_run_is_left_and_the_rest_is_changed():
    b = one_cell("matrix.frames=[16]", "matrix.context=[33]")

    def no_frames(cell, changes):
        if changes.get("video.max_frames") == 16:
            raise UserError("no such frames here\nsecond line")
        return twin(cell, changes)

    found = make_chain(ChainPoint(A, "release", "all"), factors_between(A, b), no_frames, None)
    assert [link.factor.name for link in found.links] == ["context"]
    assert [(factor.name, why) for factor, why in found.left] == [("frames", "no such frames here")]
    assert found.links[-1].point.cell.id != b.id


def test_other_questions_have_no_bridge():
    with pytest.raises(UserError, match="A asks mlvu dev and B lvbench test"):
        factors_between(A, one_cell("matrix.task=[lvbench]"))


def test_a_factor_has_the_name_of_its_setting_in_tables():
    decord = dataclasses.replace(A, video=dataclasses.replace(A.video, backend="decord"))
    b = one_cell("matrix.frames=[16]", "video.backend=pyav", "method.chunk_frames=16", "model.dtype=bfloat16")
    assert {factor.name for factor in factors_between(decord, b)} == {"chunk_frames", "frames", "decoder", "dtype"}
