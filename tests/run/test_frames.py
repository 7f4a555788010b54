"""Where videos come from: nice python -m pytest tests/run/test_frames.py"""

import dataclasses

import numpy as np
import pytest
import torch
from fake_model import make_cell, make_video

from harness.digest import file_digest
from harness.errors import VideoError
from harness.models.features import VideoFeatures
from harness.run.frames import Frames
from harness.settings.groups import RunConfig


def features(seed: int) -> VideoFeatures:
    values = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
    return VideoFeatures(values, (3, 2, 4), 2, 0.5, (values + 1, values + 2))


def pixels(opened) -> np.ndarray:
    return np.concatenate(list(opened.windows(4)))


@pytest.fixture
def videos(tmp_path):
    return [make_video(tmp_path, f"v{i}", frames=6 + 2 * i) for i in range(3)]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_videos_come_in_order_with_their_digest_and_a_damaged_one_as_its_error(tmp_path, videos, prefetch):
    make_video(tmp_path, "v1", frames=8, fail="decode")
    missing = tmp_path / "absent.mp4"
    frames = Frames([make_cell()], RunConfig(prefetch=prefetch))
    found = []
    for opened in frames.open([*videos, missing, videos[0]]):
        found.append(opened if isinstance(opened, Exception) else (opened.path, opened.digest, len(pixels(opened))))
    first = (videos[0], file_digest(videos[0]), 6)
    assert found[0] == found[4] == first and found[2] == (videos[2], file_digest(videos[2]), 10)
    assert isinstance(found[1], VideoError) and isinstance(found[3], VideoError)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_stored_features_come_back_with_the_same_facts_and_no_frame_is_decoded(tmp_path, videos, prefetch, monkeypatch):
    run = RunConfig(prefetch=prefetch, feature_dir=str(tmp_path / "features"))
    frames, decoded = Frames([make_cell()], run), []
    for i, opened in enumerate(frames.open(videos)):
        pixels(opened)
        decoded.append(opened.facts())
        if i != 1:
            frames.keep(opened, features(i))
    again = list(Frames([make_cell()], run).open([videos[0], videos[2]]))
    assert [opened.facts() for opened in again] == [decoded[0], decoded[2]]
    for opened, i in zip(again, (0, 2), strict=True):
        assert opened.video is None
        for found, wanted in zip(dataclasses.astuple(opened.features), dataclasses.astuple(features(i)), strict=True):
            torch.testing.assert_close(found, wanted)
    mixed = list(Frames([make_cell()], RunConfig(prefetch=0, feature_dir=run.feature_dir)).open(videos))
    assert [opened.features is None for opened in mixed] == [False, True, False]


def test_features_of_a_replaced_video_another_window_of_time_or_weights_are_not_found(tmp_path, videos):
    run = RunConfig(prefetch=0, feature_dir=str(tmp_path / "features"))
    frames = Frames([make_cell()], run)
    (opened,) = frames.open(videos[:1])
    frames.keep(opened, features(0))
    cell = make_cell()
    readers = ["pyav"] if cell.video.backend == "decord" else []  # without decord there may be no other one
    others = [
        dataclasses.replace(cell, weights="others"),
        dataclasses.replace(cell, video=dataclasses.replace(cell.video, fps=1.0)),
        *(dataclasses.replace(cell, video=dataclasses.replace(cell.video, backend=other)) for other in readers),
        dataclasses.replace(cell, model=dataclasses.replace(cell.model, dtype="bfloat16")),
        dataclasses.replace(cell, versions={"adapter": 2, "decoding": 1}),
        dataclasses.replace(cell, versions={"adapter": 1, "decoding": 2}),
    ]
    for other in others:
        assert next(Frames([other], run).open(videos[:1])).features is None
    make_video(tmp_path, "v0", frames=6, size=8)
    assert next(frames.open(videos[:1])).features is None


def test_features_evicted_after_they_were_seen_are_computed_again(tmp_path, videos):
    run = RunConfig(prefetch=0, feature_dir=str(tmp_path / "features"))
    frames = Frames([make_cell()], run)
    for opened in frames.open(videos[:2]):
        frames.keep(opened, features(0))
    opening = frames.open(videos[:2])
    assert next(opening).features is not None
    for path in (tmp_path / "features").iterdir():
        path.unlink()
    assert len(pixels(next(opening))) == 8
