"""Videos: seeded, byte-stable, with events that sampling cannot miss and H.264 does not blur."""

import io
from itertools import pairwise

import numpy as np
import pytest
from toy_training.episodes import decode

from harness.toy import render
from harness.toy.world import EVENT_FRAMES, FPS, compose, sampled
from harness.video.sampling import SamplingPolicy, plan_frames


def _bytes(seed: int) -> bytes:
    buffer = io.BytesIO()
    render.encode(render.draw(compose(np.random.default_rng(seed), 64)), buffer)
    return buffer.getvalue()


def test_same_seed_same_bytes():
    assert _bytes(3) == _bytes(3)
    assert _bytes(3) != _bytes(4)


def test_decoded_frames_are_the_drawn_ones():
    drawn = render.draw(compose(np.random.default_rng(5), 64))
    buffer = io.BytesIO()
    render.encode(drawn, buffer)
    buffer.seek(0)
    decoded = decode(buffer)
    assert decoded.shape == drawn.shape
    assert np.abs(decoded.astype(int) - drawn).mean() < 3


@pytest.mark.parametrize("frames", [24, 190, 256])
def test_every_event_fills_a_whole_grid(frames):
    for seed in range(20):
        story = compose(np.random.default_rng(seed), frames)
        pairs = sampled(frames).reshape(-1, 2)
        for event in story.events:
            inside = (pairs >= event.start) & (pairs < event.start + EVENT_FRAMES)
            assert inside.all(axis=1).any()


def test_scenes_cover_the_video_and_cuts_spare_events():
    for seed in range(50):
        story = compose(np.random.default_rng(seed), 256)
        assert story.scenes[0].start == 0 and story.scenes[-1].stop == 256
        for left, right in pairwise(story.scenes):
            assert left.stop == right.start
        for event in story.events:
            behind = {
                s.background for s in story.scenes if s.start < event.start + EVENT_FRAMES and s.stop > event.start
            }
            assert behind == {event.background}


def test_time_is_unevenly_redundant():
    frames = render.draw(compose(np.random.default_rng(0), 256)).astype(int)
    change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert (change == 0).mean() > 0.1 and change.max() > 20


def test_frames_shown_are_those_of_the_harness():
    assert len(sampled(256)) == 256 and sampled(256)[-1] == 255
    assert len(sampled(24)) == 24
    for frames in (24, 190, 256):
        times = plan_frames(frames / FPS, SamplingPolicy(fps=FPS, max_frames=256)).timestamps
        assert np.minimum(np.rint(np.array(times) * FPS), frames - 1).tolist() == sampled(frames).tolist()
