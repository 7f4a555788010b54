"""What an end says of itself, in the words of the report, made again as a cell of ours."""

from __future__ import annotations

import pytest
from cell_folders import questions
from twin_cells import one_cell, write_twin

from harness.errors import UserError
from harness.evidence.loading import load_cells
from harness.tools.bridge.factors import candidate_factors, declared_cell, factors_between, option_of

A = one_cell()
WORDS: list[str] = []


def twin(cell, changes):
    return cell.with_(changes, lambda each: each.weights)


OTHERS = [
    ("matrix.frames=[16]", "matrix.variant=[no_both]", "model.dtype=bfloat16", "model.yarn_factor=4"),
    ("matrix.fps=[1]", "video.long_side=224", "method=random", "task.replicate=3"),
    ("method=none", "matrix.variant=null"), ("method=snapkv", "matrix.context=[33]"),
    ("matrix.semantics=[release_2025]", "method.chunk_frames=16", "task.protocol=lmms_eval", "task.max_new_tokens=5"),
    ("matrix.semantics=[release_2026]", "method.quirks.guide_by_text_index=false"),
    ("method=aks", "matrix.variant=null", "matrix.frames=[32]", "method.frames=8"),
]  # fmt: skip


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_the_setting_of_a_cell_makes_the_cell_again(words, tmp_path):
    """Two derivations: the typed setting, and the words of the report for it applied to another cell."""
    b = one_cell(*words)
    write_twin(tmp_path, b, questions("mlvu", 2), "++++++")
    (stored,) = load_cells(tmp_path)
    made, unknown = declared_cell(A, stored.setting, twin, WORDS)
    assert not unknown
    assert [factor.text for factor in factors_between(made, b)] == []


def test_what_is_not_said_stays(tmp_path):
    made, unknown = declared_cell(
        A, {"frames": "16", "model": "toy", "format": "x", "dtype": "not said", "fps": "often"}, twin, WORDS
    )
    assert [factor.text for factor in factors_between(A, made)] == ["frames: 64 -> 16"]
    assert len(unknown) == 1 and "often" in unknown[0]


@pytest.mark.parametrize(
    ("said", "ours"),
    [("Qwen2.5-VL-7B-Instruct", "qwen2_5_vl_7b"), ("Qwen2.5-VL-72B", "qwen2_5_vl_72b"), ("toy", "toy"), ("x", "x")],
)
def test_names_of_published_weights(said, ours):
    assert option_of(said) == ours


def test_what_cannot_be_made_is_said():
    made, unknown = declared_cell(A, {"model": "gpt-4o", "frames": [64, 128], "fps": 1}, twin, WORDS)
    assert [factor.text for factor in factors_between(A, made)] == ["fps: 2 -> 1"]
    assert unknown == ["model: gpt-4o (there is no model of that name here)"]


@pytest.mark.parametrize(
    ("text", "said", "words"),
    [
        ("frames=16", "frames: 64 -> 16", ("matrix.frames=[16]",)),
        ("variant=no_both", "variant: yes, yes -> no_both", ("matrix.variant=[no_both]",)),
        ("video.long_side=224", "video.long_side: 448 -> 224", ("video.long_side=224",)),
        ("task.protocol=lmms_eval", "task.protocol: release -> lmms_eval", ("task.protocol=lmms_eval",)),
        ("method=random", "method: adaretake -> random", ("method=random",)),
        ("context=33", "context: 65 -> 33", ("matrix.context=[33]",)),
        ("method.chunk_frames=16", "method.chunk_frames: 32 -> 16", ("method.chunk_frames=16",)),
        ("semantics=release_2026", "semantics: paper -> release_2026", ("matrix.semantics=[release_2026]",)),
    ],
)
def test_candidates_are_settings_as_one_writes_them(text, said, words):
    (factor,) = candidate_factors(A, [text], WORDS)
    assert factor.text == said
    left = {each.name for each in factors_between(twin(A, factor.changes), one_cell(*words))}
    assert left <= {"positions", "reforge"}  # what a semantics brings along is said beside it


def test_two_values_of_one_setting_are_two_candidates():
    assert [factor.name for factor in candidate_factors(A, ["frames=16", "frames=32", "fps=1"], WORDS)] == [
        "frames=16", "frames=32", "fps",
    ]  # fmt: skip


def test_a_candidate_given_twice_is_one():
    assert [factor.name for factor in candidate_factors(A, ["frames=16", "frames=16"], WORDS)] == ["frames"]


def test_a_group_is_one_candidate():
    (factor,) = candidate_factors(A, ["video=stock"], WORDS)
    assert factor.name == "video" and "video.sampler" in factor.changes
    assert twin(A, factor.changes).video == one_cell("video=stock", "matrix.frames=null", "matrix.fps=null").video


@pytest.mark.parametrize(
    ("text", "message"),
    [("frames", "'frames' is no setting"), ("frames=64", "is the setting of .* already"), ("frame=1", "frame")],
)
def test_candidates_that_are_none(text, message):
    with pytest.raises(UserError, match=message):
        candidate_factors(A, [text], WORDS)
