"""Sizes of features, from headers and model files alone."""

from __future__ import annotations

import pytest

from harness.plan.plan import Header, bytes_per_token, read_header, video_tokens
from harness.settings.compose import compose_config
from harness.settings.matrix import build_cells


def cell(*overrides):
    words = ["profile=published", "matrix.task=[videomme]", "model.path=no/where", "model.dtype=bfloat16", *overrides]
    return build_cells(compose_config(words), [])[0]


@pytest.mark.parametrize(
    ("header", "tokens"),
    [
        (Header(3600.0), 1024 * 144),  # 2048 frames of 448 x 252
        (Header(None), 1024 * 144),
        (Header(100.0), 200 // 2 * 144),
        (Header(3600.0, 720, 1280), 1024 * 144),
        (Header(3600.0, 720, 720), 1024 * 256),
    ],
)
def test_tokens_follow_length_and_picture(header, tokens):
    assert video_tokens(cell("matrix.frames=[2048]", "matrix.fps=[2]"), header) == tokens


def test_a_family_may_have_a_fixed_number_of_tokens_per_frame():
    llava = cell("model=llava_video_7b", "matrix.frames=[512]", "matrix.semantics=[paper]")
    assert video_tokens(llava, Header(3600.0)) == 512 * 196


def test_width_of_the_model_is_read_from_its_files_and_assumed_without():
    assert bytes_per_token(cell()) == 3584 * 2
    assert bytes_per_token(cell("model=toy", "model.path=harness/toy/checkpoint", "model.dtype=float32")) == 128 * 4


def test_an_unreadable_file_leaves_the_annotated_length(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    assert read_header(tmp_path / "a.mp4", 12.0) == Header(12.0)
    assert read_header(tmp_path / "absent.mp4") == Header(None)
