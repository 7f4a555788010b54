"""Frame choice against tables worked out by hand from the release's rule."""

import math
from fractions import Fraction

import pytest

from harness.errors import UserError
from harness.settings.groups import VideoConfig
from harness.settings.rules import check_settings
from harness.video.sampling import SamplingPolicy, grid_length, grid_sources, plan_frames, plan_grid, resized

TWO_FPS = SamplingPolicy(fps=2, max_frames=1024)


def test_a_short_video_is_sampled_at_the_full_rate():
    # 10 s = 250 grid frames; 20 frames; every 249/19 = 13.105 frames, truncated
    plan = plan_frames(10.0, TWO_FPS)
    assert plan.indices == (0, 13, 26, 39, 52, 65, 78, 91, 104, 117, 131, 144, 157, 170, 183, 196, 209, 222, 235, 249)
    assert plan.timestamps[:3] == (0.0, 0.52, 1.04) and plan.timestamps[-1] == 9.96
    assert plan.sampling_fps == 2.0 and plan.second_per_grid == 1.0


def test_a_fractional_duration_gives_an_odd_count_that_is_rounded_down_after_the_rate_is_taken():
    # 4.72 s = 118 grid frames; 4.72 * 2 = 9.44 -> 9 wanted, 8 taken; every 117/7 = 16.714 frames
    plan = plan_frames(4.72, TWO_FPS)
    assert plan.indices == (0, 16, 33, 50, 66, 83, 100, 117)
    assert plan.sampling_fps == pytest.approx(9 / 4.72)
    assert plan.second_per_grid == pytest.approx(2 * 4.72 / 9)


def test_the_odd_count_is_kept_when_even_is_off():
    plan = plan_frames(4.72, SamplingPolicy(fps=2, max_frames=1024, even=False))
    # 9 frames; every 117/8 = 14.625
    assert plan.indices == (0, 14, 29, 43, 58, 73, 87, 102, 117)


def test_a_video_that_meets_the_cap_exactly_keeps_the_full_rate():
    plan = plan_frames(512.0, TWO_FPS)
    assert len(plan.indices) == 1024 and plan.indices[-1] == 12799
    assert plan.sampling_fps == 2.0


def test_a_very_long_video_is_capped():
    # the mean LVBench video: 4101 s = 102525 grid frames, every 102524/1023 = 100.219
    plan = plan_frames(4101.0, TWO_FPS)
    assert len(plan.indices) == 1024
    assert plan.indices[:4] == (0, 100, 200, 300) and plan.indices[5] == 501 and plan.indices[-1] == 102524
    assert plan.sampling_fps == pytest.approx(0.24969519)
    assert plan.second_per_grid == pytest.approx(8.009766)


def test_no_more_frames_are_taken_than_the_grid_has():
    # 1 s at 30 fps: only 25 grid frames, 24 taken, every 24/23 = 1.0435
    plan = plan_frames(1.0, SamplingPolicy(fps=30, max_frames=1024))
    assert plan.indices == (*range(23), 24)
    assert plan.sampling_fps == 25.0


def test_an_odd_cap_is_rounded_down():
    plan = plan_frames(100.0, SamplingPolicy(fps=2, max_frames=5))
    assert plan.indices == (0, 833, 1666, 2499) and plan.sampling_fps == 0.05


@pytest.mark.parametrize("duration", [0.0, 0.02, 0.3, 0.97])
def test_too_short_a_video_has_no_frames(duration):
    plan = plan_frames(duration, TWO_FPS)
    assert plan.indices == plan.timestamps == ()
    assert plan.sampling_fps == 0.0 and plan.second_per_grid == math.inf


def test_one_second_is_the_shortest_at_two_fps():
    assert plan_frames(1.0, TWO_FPS).indices == (0, 24)


def test_grid_length_rounds_half_up():
    assert [grid_length(t) for t in (0.0, 0.019, 0.02, 0.1, 13.013)] == [0, 0, 1, 3, 325]


@pytest.mark.parametrize("duration", [-1.0, math.nan, math.inf])
def test_an_impossible_duration_is_refused(duration):
    with pytest.raises(ValueError, match="finite"):
        plan_frames(duration, TWO_FPS)


def test_plan_from_grid_and_from_seconds_agree():
    assert plan_grid(2500, TWO_FPS) == plan_frames(100.0, TWO_FPS)


def test_a_slow_source_is_repeated_on_the_grid():
    # 10 fps: frames start at grid ticks 0, 2.5 -> 3, 5, 7.5 -> 8 and end at 10
    assert grid_sources([0, 1, 2, 3], 4, Fraction(1, 10), 25.0).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


def test_of_a_fast_source_the_last_frame_that_rounds_to_a_tick_is_shown():
    # 50 fps: ticks 0, 0.5 -> 1, 1, 1.5 -> 2, 2, 2.5 -> 3 (past the end)
    assert grid_sources([0, 1, 2, 3, 4, 5], 6, Fraction(1, 50), 25.0).tolist() == [0, 2, 4]


def test_a_variable_rate_holds_each_frame_until_the_next():
    # at 0, 40 ms, 1 s, 1.04 s; the last one lasts 40 ms
    sources = grid_sources([0, 40, 1000, 1040], 1080, Fraction(1, 1000), 25.0)
    assert sources.tolist() == [0] + [1] * 24 + [2, 3]


def test_the_grid_starts_at_the_first_frame():
    # sound starts the file, the picture comes half a second later
    assert grid_sources([5, 6], 7, Fraction(1, 10), 25.0).tolist() == [0, 0, 1, 1, 1]


def test_the_source_rate_of_the_grid_is_the_identity():
    assert grid_sources(range(100), 100, Fraction(1, 25), 25.0).tolist() == list(range(100))
    ntsc = grid_sources([i * 1001 for i in range(100)], 100 * 1001, Fraction(1, 30000), 30000 / 1001)
    assert ntsc.tolist() == list(range(100))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ((1280, 720), (448, 251)),
        ((640, 480), (448, 336)),
        ((1920, 800), (448, 186)),
        ((720, 1280), (251, 448)),
        ((426, 240), (426, 240)),  # never upscaled
        ((448, 448), (448, 448)),
        ((568, 320), (447, 252)),  # 568 * (448 / 568) is a hair below 448, and the release truncates
        ((4000, 2), (448, 1)),
    ],
)
def test_resized(source, expected):
    assert resized(*source, TWO_FPS) == expected


def test_no_long_side_keeps_the_native_size():
    assert resized(3840, 2160, SamplingPolicy(fps=2, max_frames=8, long_side=None)) == (3840, 2160)


@pytest.mark.parametrize(
    ("field", "value"),
    [("fps", 0), ("fps", math.nan), ("max_frames", -1), ("grid_fps", 0), ("long_side", 0), ("resample", "bicubic")],
)
def test_a_bad_policy_names_the_value(field, value):
    with pytest.raises(UserError, match=f"video.{field}={value} is not"):
        check_settings(VideoConfig(**({"max_frames": 8} | {field: value})), "video.")
