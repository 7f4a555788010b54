"""Which frames of a video the model sees, and at which size. Pure functions, no video is opened here.

The AdaReTaKe release first writes every video to JPEGs with `ffmpeg -vf fps=25`, then picks evenly among the `N` files.
We keep its choice without the files: a *grid frame* `k` is the picture that ffmpeg's `fps` filter would have written as
file `k`; it is decoded straight from the source by time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction

import numpy as np

from harness.errors import UserError
from harness.settings.groups import VideoConfig

MAX_ASPECT = 200  # of a picture's sides; the processors of the Qwen families refuse more


@dataclass(frozen=True)
class SamplingPolicy:
    """How many frames, from which grid, at which size: settings of `VideoConfig`.

    An even number suits Qwen2-VL, which merges two frames into one temporal grid. Frames with a side longer than
    `long_side` are scaled down to it by nearest neighbour, as PIL does for the release; None = never scaled.
    """

    fps: float
    max_frames: int
    even: bool = True
    grid_fps: float = 25.0
    long_side: int | None = 448
    resample: str = "nearest"


@dataclass(frozen=True)
class StockPolicy:
    """The frames that lmms-eval shows its own Qwen2.5-VL, chosen and scaled by the qwen-vl-utils package.

    fps: at most as many frames per second; lmms-eval sets no such limit
    max_frames: as many frames, rounded down to even, or all of a shorter video, evenly spread over its own frames
    min_pixels, max_pixels: of a scaled picture; the package's own limits for a video hold as well
    """

    fps: float
    max_frames: int
    min_pixels: int
    max_pixels: int


Policy = SamplingPolicy | StockPolicy
FOREIGN: dict[str, dict[str, object]] = {
    "release": {"min_pixels": None, "max_pixels": None},
    "stock": {"even": True, "grid_fps": 25.0, "long_side": None, "resample": "nearest"},
}
"""Settings that a sampler does not have, and the one value that they may show."""


def sampling_policy(video: VideoConfig) -> Policy:
    """The settings that decide which pixels a model sees; raises UserError for one that the sampler does not have."""
    for name, only in FOREIGN[video.sampler].items():
        if (value := getattr(video, name)) != only:
            written = "null" if only is None else only
            raise UserError(
                f"video.{name}={value} has no meaning for video.sampler={video.sampler}; leave it at {written}, or set "
                f"{' or '.join(f'video={other}' for other in FOREIGN if other != video.sampler)}"
            )
    if video.sampler == "release":
        return SamplingPolicy(**{field.name: getattr(video, field.name) for field in fields(SamplingPolicy)})
    if video.min_pixels is None or video.max_pixels is None:
        raise UserError("video.sampler=stock needs video.min_pixels and video.max_pixels; video=stock has both")
    return StockPolicy(video.fps, video.max_frames, video.min_pixels, video.max_pixels)


@dataclass(frozen=True)
class FramePlan:
    """The frames chosen from one video.

    indices: grid frames, ascending; the first and the last of the video are included
    timestamps: seconds from the first frame of the video, `index / grid_fps`
    sampling_fps: the true rate, frames chosen (before rounding to an even number) / duration; 0.0 without frames
    second_per_grid: seconds covered by one temporal grid of two frames, 2 / sampling_fps
    """

    indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    sampling_fps: float
    second_per_grid: float


def grid_length(duration_s: float, grid_fps: float = 25.0) -> int:
    """Grid frames in a video of that duration: what ffmpeg's fps filter writes, which rounds the end half up."""
    if not (math.isfinite(duration_s) and duration_s >= 0):
        raise ValueError(f"duration_s={duration_s!r} must be a finite number of seconds, 0 or more")
    return math.floor(duration_s * grid_fps + 0.5)


def plan_frames(duration_s: float, policy: SamplingPolicy) -> FramePlan:
    """Plans from an annotated duration in seconds; `Video.plan` counts the grid frames of the file instead."""
    return plan_grid(grid_length(duration_s, policy.grid_fps), policy)


def plan_grid(n_grid: int, policy: SamplingPolicy) -> FramePlan:
    """Plans from the number of grid frames. Too short a video gives a plan without frames."""
    seconds = n_grid / policy.grid_fps
    wanted = math.floor(min(n_grid, policy.max_frames, seconds * policy.fps))
    n = wanted // 2 * 2 if policy.even else wanted
    if n < 1:
        return FramePlan((), (), 0.0, math.inf)
    # The release truncates (astype) where others round: 0.99999 must stay frame 0.
    indices = tuple(int(i) for i in np.linspace(0, n_grid - 1, n).astype(np.int32))
    sampling_fps = wanted / seconds
    return FramePlan(indices, tuple(i / policy.grid_fps for i in indices), sampling_fps, 2 / sampling_fps)


def grid_sources(pts: Sequence[int], end: int, time_base: Fraction, grid_fps: float) -> np.ndarray:
    """For every grid frame, which source frame it shows: int64 [n_grid].

    The rule of ffmpeg's fps filter (libavfilter/vf_fps.c, `round=near`): times are rounded, half up, to ticks of the
    grid; a grid frame shows the last source frame whose tick has come. The grid starts at the first source frame.

    pts: ascending times of the source frames, and end: when the last one ends, in units of time_base seconds,
    counted from the start of the *file* (sound may start before the picture)
    """
    rate = Fraction(grid_fps).limit_denominator(1_000_000) * time_base  # ticks per unit of pts
    twice = 2 * rate.numerator
    ticks = (np.asarray([*pts, end], dtype=np.int64) * twice + rate.denominator) // (2 * rate.denominator)
    grid = np.arange(ticks[0], ticks[-1])
    return np.searchsorted(ticks[:-1], grid, side="right") - 1


def resized(width: int, height: int, policy: SamplingPolicy) -> tuple[int, int]:
    """(width, height) after scaling the long side down to `policy.long_side`; truncates as the release does."""
    longest = max(width, height)
    if policy.long_side is None or longest <= policy.long_side:
        return width, height
    factor = policy.long_side / longest
    return max(1, int(width * factor)), max(1, int(height * factor))
