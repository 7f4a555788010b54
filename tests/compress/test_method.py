"""Building a method from its name and options."""

from __future__ import annotations

import pytest
from tiny_models import Sample

from harness.compress.method import build_method, method_class, method_names
from harness.errors import UserError


def test_methods_are_the_modules_of_the_room() -> None:
    assert {"none", "adaretake", "random", "retake"} <= set(method_names())


@pytest.mark.parametrize("name", method_names())
def test_every_method_builds_from_its_name(name: str) -> None:
    method = build_method(name)
    assert isinstance(method, method_class(name)) and method.name == name and method.position_rule == "float"
    assert type(method).version >= 1


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("adaretke", {}, "'adaretke'.*adaretake, .*none"),
        ("adaretake", {"semantics": "papr"}, "'papr'.*paper, release_2025, release_2026"),
        ("adaretake", {"quirks": {"half_video_ratios": False}}, "half_video_ratios.*paper: allowed are none"),
        ("adaretake", {"semantics": "release_2026", "quirks": {"guide": False}}, "unknown quirk guide.*text_index"),
        ("none", {"quirks": {}}, "none has no option quirks: allowed are name, chunk_frames, positions"),
        ("retake", {"semantics": "paper"}, "retake has no option semantics"),
        ("adaretake", {"chunk_frames": 0}, "chunk_frames=0"),
        ("adaretake", {"max_guide_length": 0}, "max_guide_length=0"),
        ("adaretake", {"positions": "old"}, "'old'.*float, truncated, v5"),
        ("adaretake", {"reforge": True}, "reforge"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(name: str, options: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        build_method(name, **options).for_family("qwen2_5_vl")


@pytest.mark.parametrize("family", ["qwen2_vl", "llava_onevision"])
@pytest.mark.parametrize("name", ["adaretake", "random"])
def test_the_2026_release_exists_for_one_family(family: str, name: str) -> None:
    with pytest.raises(UserError, match=f"does not exist for {family}"):
        build_method(name, semantics="release_2026").for_family(family)


def test_the_2025_release_exists_for_llava_with_reforge_only() -> None:
    with pytest.raises(UserError, match="only with reforge"):
        build_method("adaretake", semantics="release_2025").for_family("llava_onevision")
    build_method("adaretake", semantics="release_2025", reforge=True).for_family("llava_onevision")


def test_positions_default_to_those_of_the_semantics() -> None:
    rules = {s: build_method("adaretake", semantics=s).position_rule for s in ("paper", "release_2025", "release_2026")}
    assert rules == {"paper": "float", "release_2025": "float", "release_2026": "truncated"}
    assert build_method("adaretake", semantics="release_2026", positions="v5").position_rule == "v5"


@pytest.mark.parametrize("name", ["adaretake", "random"])
def test_a_method_for_a_family_stays_itself(name: str) -> None:
    once = build_method(name, semantics="release_2025", reforge=True).for_family("qwen2_vl")
    assert once.for_family("qwen2_vl") == once and once.quirks["decoded_rows_move_together"]


def test_the_seed_of_random_decides_what_it_keeps(run) -> None:
    kept = [run(Sample(grids=8), 30, name="random", seed=seed).trace.kept_digest for seed in (0, 0, 1)]
    assert kept[0] == kept[1] != kept[2]
