"""Position rules against recorded ids, and what each rule means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from harness.compress.positions import (
    after_chunk,
    after_temporal_row,
    after_text_index,
    mrope_position_ids,
    next_position,
)
from harness.errors import UserError

GOLDEN = Path(__file__).parent.parent / "golden"
RULE = {"paper": "float", "release_2025": "float", "release_2026": "truncated"}


def ids_of(grids: int, spg: float | None, rule: str, h: int = 4, w: int = 6) -> torch.Tensor:
    prompt = torch.tensor([1] * 3 + [9] * (grids * h * w // 4) + [2] * 4)
    return mrope_position_ids(prompt, 9, (grids, h, w), second_per_grid=spg, rule=rule)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.safetensors")), ids=lambda path: path.stem)
def test_recorded_ids(path: Path) -> None:
    with safe_open(path, "pt") as file:
        settings = {k: json.loads(v) for k, v in file.metadata().items()}
        ids, grid = file.get_tensor("input_ids")[0], file.get_tensor("video_grid_thw")[0].tolist()
        expected, delta = file.get_tensor("mrope_position_ids")[:, 0], int(file.get_tensor("mrope_delta"))
    got = mrope_position_ids(
        ids, 154, tuple(grid), second_per_grid=settings.get("second_per_grid"), rule=RULE[settings["semantics"]]
    )
    assert torch.equal(got, expected)
    assert next_position(got).flatten().tolist() == [len(ids) + delta] * 3


def test_truncation_gives_every_frame_of_a_4_fps_video_the_same_time() -> None:
    assert ids_of(6, 0.5, "truncated")[0, 3:-4].unique().tolist() == [3]
    assert ids_of(6, 0.5, "float")[0, 3:-4].unique().tolist() == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(("spg", "steps"), [(0.25, [0, 0, 1, 1, 2]), (0.75, [0, 1, 3, 4, 6]), (2.0, [0, 4, 8, 12, 16])])
def test_time_is_rounded_down_after_multiplying(spg: float, steps: list[int]) -> None:
    assert (ids_of(5, spg, "float")[0, 3:-4:6] - 3).tolist() == steps


def test_text_follows_the_largest_id_or_in_v5_the_frame() -> None:
    assert ids_of(8, 1.0, "float")[:, -4].tolist() == [3 + 14 + 1] * 3
    assert ids_of(8, 1.0, "v5")[:, -4].tolist() == [3 + 3] * 3
    assert next_position(ids_of(8, 1.0, "v5")).flatten().tolist() == [3 + 14 + 1] * 3
    assert ids_of(1, 1.0, "float", h=4, w=20)[:, -4].tolist() == [3 + 10] * 3  # wider than long


def test_without_seconds_a_grid_is_one_step() -> None:
    assert ids_of(4, None, "truncated")[0, 3:-4:6].tolist() == [3, 4, 5, 6]


def test_guide_rules() -> None:
    ids = ids_of(8, 1.0, "float")  # n = 6, video 3..50, text 51..54, ids of text 18..21
    guide, early = slice(51, 55), slice(3, 15)
    assert after_chunk(ids, early, guide)[:, 0].tolist() == [6, 6, 6]
    assert after_temporal_row(ids, early, guide)[:, 0].tolist() == [6, 6, 6]
    assert after_text_index(ids, early, guide)[:, 0].tolist() == [18 - 36] * 3
    wide = ids_of(8, 0.25, "float", h=4, w=40)  # a chunk whose width exceeds its time
    assert after_chunk(wide, slice(3, 43), slice(163 + 160, 167 + 160))[:, 0].tolist() == [3 + 20] * 3
    assert after_temporal_row(wide, slice(3, 43), slice(163 + 160, 167 + 160))[:, 0].tolist() == [4] * 3


def test_unknown_rule_names_the_allowed_ones() -> None:
    with pytest.raises(UserError, match="'vsix'.*float, truncated, v5"):
        ids_of(2, 1.0, "vsix")


def test_a_wrong_number_of_video_tokens_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs 24"):
        mrope_position_ids(torch.tensor([1, 9, 9, 2]), 9, (4, 4, 6), second_per_grid=1.0)
