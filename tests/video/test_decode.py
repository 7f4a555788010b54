"""Windows of sampled frames: which frames, which size, and how much memory."""

import tracemalloc
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from harness.errors import UserError
from harness.video.decode import open_video
from harness.video.sampling import SamplingPolicy
from harness.video.scan import scan

ALL_FRAMES = SamplingPolicy(fps=25, max_frames=4096, even=False)


def levels(frames: np.ndarray) -> np.ndarray:
    """Gray level of each frame, away from the bright corner."""
    return frames[:, -4:, -4:].mean(axis=(1, 2, 3))


def test_windows_hold_the_planned_frames_in_order(make_video, gray_levels):
    video = open_video(make_video(n=50), SamplingPolicy(fps=10, max_frames=4096))
    windows = list(video.windows(8))
    assert [len(w) for w in windows] == [8, 8, 4]
    assert video.plan.indices == tuple(np.linspace(0, 49, 20).astype(int))
    assert windows[0].dtype == np.uint8 and windows[0].shape[1:] == (video.height, video.width, 3) == (48, 64, 3)
    np.testing.assert_allclose(levels(np.concatenate(windows)), gray_levels(50)[list(video.plan.indices)], atol=4)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_the_window_size_does_not_change_the_frames(make_video, size):
    video = open_video(make_video(n=20), ALL_FRAMES)
    np.testing.assert_array_equal(np.concatenate(list(video.windows(size))), next(video.windows(20)))


def test_frames_are_scaled_down_as_pillow_does(make_video):
    path = make_video(n=4, size=(96, 64))
    native = next(open_video(path, ALL_FRAMES).windows(4))
    small = open_video(path, SamplingPolicy(fps=25, max_frames=4, long_side=50))
    frames = next(small.windows(4))
    assert frames.shape == (4, 33, 50, 3) and (small.width, small.height) == (50, 33)
    for frame, full in zip(frames, native, strict=True):
        np.testing.assert_array_equal(
            frame, np.asarray(Image.fromarray(full).resize((50, 33), Image.Resampling.NEAREST))
        )


def test_a_slow_source_repeats_frames(make_video, gray_levels):
    video = open_video(make_video(n=4, rate=Fraction(10)), ALL_FRAMES)
    frames = next(video.windows(64))
    np.testing.assert_allclose(levels(frames), gray_levels(4)[[0, 0, 0, 1, 1, 2, 2, 2, 3, 3]], atol=4)


def test_memory_does_not_grow_with_the_video(make_video):
    """Peak of Python's own allocations: a window, a frame of the native size and its scaled copy, never the video."""
    peaks = []
    for n in (60, 240):
        video = open_video(make_video(f"{n}.mp4", n=n, size=(320, 240)), replace(ALL_FRAMES, long_side=80))
        windows = video.windows(8)
        next(windows)
        tracemalloc.start()
        for window in windows:
            assert window.nbytes <= 8 * 80 * 60 * 3
            del window
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 2 * 8 * 80 * 60 * 3 + 3 * 320 * 240 * 3 < 240 * 80 * 60 * 3


def test_a_scan_tells_what_is_in_the_file(make_video):
    info = scan(make_video(n=50, size=(64, 48))).info
    assert (info.width, info.height, info.codec, info.pix_fmt) == (64, 48, "h264", "yuv420p")
    assert (info.n_frames, info.rotation) == (50, 0)
    assert info.duration_s == pytest.approx(2.0) and info.fps == pytest.approx(25.0)


def test_an_unknown_backend_is_refused(make_video):
    with pytest.raises(UserError, match="video.backend='opencv' is unknown; allowed: decord, pyav, torchcodec"):
        open_video(make_video(n=4), ALL_FRAMES, backend="opencv")


def test_a_window_needs_a_frame(make_video):
    with pytest.raises(ValueError, match="size=0"):
        next(open_video(make_video(n=4), ALL_FRAMES).windows(0))
