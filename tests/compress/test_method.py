"""Building a method from a configuration."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.compress.method import MethodOptions, build_method, method_names
from harness.errors import UserError


def test_methods_are_the_files_of_the_room() -> None:
    assert {"none", "adaretake", "random", "retake"} <= set(method_names())


@pytest.mark.parametrize("name", method_names())
def test_every_method_builds_from_its_name(name: str) -> None:
    method = build_method(SimpleNamespace(name=name, semantics="release_2025", reforge=None))
    assert method.name == name and method.positions == "float"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "adaretke"}, "'adaretke'.*adaretake, none, random, retake"),
        ({"semantics": "papr"}, "'papr'.*paper, release_2025, release_2026"),
        ({"quirks": {"half_video_ratios": False}}, "half_video_ratios.*paper: allowed are none"),
        ({"semantics": "release_2026", "quirks": {"guide": False}}, "unknown quirk guide.*guide_by_text_index"),
        ({"name": "none", "quirks": {"x": True}}, "unknown quirk x"),
        ({"chunk_frames": 0}, "chunk_frames=0"),
        ({"max_guide_length": 0}, "max_guide_length=0"),
        ({"positions": "old"}, "'old'.*float, truncated, v5"),
        ({"reforge": True}, "reforge"),
        ({"name": "retake", "semantics": "release_2026"}, "release_2026.*retake"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(options: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        build_method(MethodOptions(**options))


@pytest.mark.parametrize("family", ["qwen2_vl", "llava_onevision"])
@pytest.mark.parametrize("name", ["adaretake", "random"])
def test_the_2026_release_exists_for_one_family(family: str, name: str) -> None:
    with pytest.raises(UserError, match=f"does not exist for {family}"):
        build_method(MethodOptions(name=name, semantics="release_2026"), family=family)


def test_positions_default_to_those_of_the_semantics() -> None:
    rules = {s: build_method(MethodOptions(semantics=s)).positions for s in ("paper", "release_2025", "release_2026")}
    assert rules == {"paper": "float", "release_2025": "float", "release_2026": "truncated"}
    assert build_method(MethodOptions(semantics="release_2026", positions="v5")).positions == "v5"
    assert build_method(MethodOptions(name="none", semantics="release_2026")).positions == "truncated"
