"""Videos of a run: opened in order, decoded ahead or not, and not at all where their features are stored."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from fake_model import make_cell

from harness.config import RunConfig
from harness.errors import VideoError
from harness.models.adapter import VideoFeatures
from harness.run.frames import StoredPlan, VideoFrames

CELL = replace(make_cell(), versions={"adapter": 1, "decoding": 1})


@pytest.fixture
def videos(tmp_path) -> list[Path]:
    """Two sound videos of four seconds with an empty file between them."""
    for number in (0, 2):
        with av.open(str(tmp_path / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(5))
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for i in range(20):
                picture = np.full((48, 64, 3), 10 * i + number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    (tmp_path / "1.mp4").touch()
    return [tmp_path / f"{number}.mp4" for number in range(3)]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_videos_come_in_order_and_errors_at_their_place(videos, prefetch):
    opened = VideoFrames(CELL, RunConfig(prefetch=prefetch)).open(videos)
    first = next(opened)
    assert first.path == videos[0] and len(first.plan.indices) == 8
    assert sum(len(window) for window in first.windows(CELL.video.window)) == 8
    second = next(opened)
    assert isinstance(second, VideoError) and str(videos[1]) in str(second)
    assert next(opened).path == videos[2]
    assert next(opened, None) is None


def keep(video, path: Path, frames: VideoFrames) -> VideoFeatures:
    layers = tuple(torch.full((4, 3), number) for number in range(12))
    pixels = np.zeros((8, 48, 64, 3), np.uint8)
    features = VideoFeatures(torch.arange(12.0).view(4, 3), (4, 2, 2), 1, video.plan.second_per_grid, layers, pixels)
    frames.keep(path, video, features)
    return features


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_video_whose_features_are_stored_is_not_decoded(videos, tmp_path, prefetch):
    run = RunConfig(prefetch=prefetch, feature_dir=str(tmp_path / "features"))
    frames = VideoFrames(CELL, run)
    video = next(frames.open(videos[:1]))
    features = keep(video, videos[0], frames)

    opened = VideoFrames(CELL, run).open(videos[:1])
    held = next(opened)
    assert isinstance(held.plan, StoredPlan) and list(held.windows(CELL.video.window)) == []
    assert held.plan.plan == video.plan and held.backend == "decord"
    torch.testing.assert_close(held.plan.features.features, features.features)
    assert held.plan.features.grid == (4, 2, 2)
    assert [int(layer[0, 0]) for layer in held.plan.features.deepstack] == list(range(12))
    np.testing.assert_array_equal(held.plan.features.frames, features.frames)


@pytest.mark.parametrize(
    "change",
    [
        {"video": replace(CELL.video, fps=1.0)},
        {"video": replace(CELL.video, backend="pyav")},
        {"weights": "other"},
        {"model": replace(CELL.model, dtype="bfloat16")},
        {"versions": {"adapter": 2, "decoding": 1}},
        {"versions": {"adapter": 1, "decoding": 2}},
    ],
)
def test_features_of_other_settings_or_versions_are_not_taken(videos, tmp_path, change):
    run = RunConfig(prefetch=0, feature_dir=str(tmp_path / "features"))
    frames = VideoFrames(CELL, run)
    keep(next(frames.open(videos[:1])), videos[0], frames)
    assert not isinstance(next(VideoFrames(replace(CELL, **change), run).open(videos[:1])).plan, StoredPlan)


def test_a_replaced_video_is_decoded(videos, tmp_path):
    run = RunConfig(prefetch=0, feature_dir=str(tmp_path / "features"))
    frames = VideoFrames(CELL, run)
    keep(next(frames.open(videos[:1])), videos[0], frames)
    videos[0].write_bytes(videos[2].read_bytes())
    assert not isinstance(next(frames.open(videos[:1])).plan, StoredPlan)
