"""Frames as lmms-eval 0.7.3 takes them for its own Qwen2.5-VL: its chat class, by the functions of qwen-vl-utils.

lmms_eval/models/chat/qwen2_5_vl.py counts a video's frames with decord and asks `qwen_vl_utils.fetch_video` for an even
number of them. That decodes and scales all at once, so a pass holds them all, first in their native size.
"""

import math
import os
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np

from harness.advice import install
from harness.errors import UserError, VideoError
from harness.video.container import Frame, Track
from harness.video.sampling import MAX_ASPECT, FramePlan, StockPolicy
from harness.video.windows import TimeLimit, Video, too_long

LEAST = 2  # frames, one temporal grid
FACTOR = 28  # pixels per side of one token
MODEL_SEQ_LEN = 128_000  # tokens that qwen-vl-utils plans with where the environment does not say


def open_stock(track: Track, policy: StockPolicy, backend: str, timeout_s: float) -> Video:
    """Plans from the number of frames and the rate that decord counts, as lmms-eval does.

    Raises:
        UserError: qwen-vl-utils is not installed, or reads with another backend than the one asked for.
        VideoError: the file cannot be read in time.
    """
    if backend != "decord":
        raise UserError(f"video.backend={backend}: lmms-eval counts frames with decord; set video.backend=decord")
    if (reads := _package().get_video_reader_backend()) != backend:
        raise UserError(
            f"qwen-vl-utils reads videos with {reads} here, so its frames are not those of video.backend={backend}; "
            f"set the environment's FORCE_QWENVL_VIDEO_READER={backend}"
        )
    with TimeLimit(timeout_s) as limit:
        try:
            total, rate = limit.call(_counted, track.path)
        except TimeoutError:
            raise VideoError(too_long(track.path, backend, timeout_s)) from None
    plan = stock_plan(total, rate, policy)
    size = stock_size(track.info.width, track.info.height, max(LEAST, len(plan.indices)), policy)
    return Video(track, plan, size, backend, timeout_s, partial(StockPass, track.path, plan, size, policy))


def stock_plan(total: int, rate: float, policy: StockPolicy) -> FramePlan:
    """Plans from the number of a video's own frames and their rate; without frames if it has fewer than `LEAST`."""
    n = stock_count(total, rate, policy)
    if n > total:
        return FramePlan((), (), 0.0, math.inf)
    import torch

    indices = tuple(torch.linspace(0, total - 1, n).round().long().tolist())
    sampling_fps = n / total * rate
    return FramePlan(indices, tuple(i / rate for i in indices), sampling_fps, 2 / sampling_fps)


def stock_count(total: int, rate: float, policy: StockPolicy) -> int:
    """How many of `total` frames are taken."""
    return max(LEAST, math.floor(min(total, policy.max_frames, total / rate * policy.fps)) // 2 * 2)


def stock_size(width: int, height: int, n: int, policy: StockPolicy) -> tuple[int, int]:
    """(width, height) after scaling n pictures, by the package's own rule for a video."""
    if max(width, height) > MAX_ASPECT * min(width, height):
        return width, height  # the package refuses it, and so does `check_usable`
    scaled = _package().smart_resize(
        height, width, factor=FACTOR, min_pixels=policy.min_pixels, max_pixels=_most_pixels(n, policy)
    )
    return int(scaled[1]), int(scaled[0])


def _most_pixels(n: int, policy: StockPolicy) -> float:
    """The package's limit for each of n pictures of a video, or the policy's where that is lower."""
    package = _package()
    budget = 0.9 * package.MODEL_SEQ_LEN * FACTOR**2 / n * package.FRAME_FACTOR
    limit = max(min(package.VIDEO_MAX_TOKEN_NUM * FACTOR**2, budget), int(policy.min_pixels * 1.05))
    return float(min(policy.max_pixels, limit))


class StockPass:
    """A pass that lets qwen-vl-utils decode and scale all frames when the first is asked for."""

    def __init__(self, path: Path, plan: FramePlan, size: tuple[int, int], policy: StockPolicy) -> None:
        self._path, self._plan, self._size, self._policy = path, plan, size, policy
        self._frames: Frame | None = None

    def window(self, start: int, stop: int) -> Frame:
        """See `Pass`."""
        self._frames = self._fetched() if self._frames is None else self._frames
        return self._frames[start:stop]

    def close(self) -> None:
        self._frames = None

    def _fetched(self) -> Frame:
        n = len(self._plan.indices)
        limits = {"min_pixels": self._policy.min_pixels, "max_pixels": _most_pixels(n, self._policy)}
        try:
            video, metadata = _package().fetch_video(
                {"video": os.path.abspath(self._path), "nframes": n} | limits, return_video_metadata=True
            )
        except Exception as error:  # of the fallback reader; the package catches those of the first one, of any type
            raise VideoError(f"{self._path}: qwen-vl-utils cannot read it ({error}); leave it out") from None
        # The package replaces a reader that fails by another one.
        if (metadata["video_backend"], tuple(metadata["frames_indices"])) != ("decord", self._plan.indices):
            raise VideoError(
                f"{self._path}: qwen-vl-utils took other frames than planned, by {metadata['video_backend']}; decord "
                "cannot read it: leave it out"
            )
        frames: Frame = video.permute(0, 2, 3, 1).numpy().astype(np.uint8)  # whole numbers, as floats
        width, height = self._size
        if frames.shape != (n, height, width, 3):
            raise VideoError(f"{self._path}: qwen-vl-utils made {frames.shape} in place of {(n, height, width, 3)}")
        return frames


def _counted(path: Path) -> tuple[int, float]:
    import decord

    try:
        reader = decord.VideoReader(os.path.abspath(path))
        return len(reader), float(reader.get_avg_fps())
    except decord.DECORDError as error:
        raise VideoError(f"{path}: decord cannot open it ({str(error).splitlines()[0]}); leave it out") from None


def _package() -> ModuleType:
    try:
        from qwen_vl_utils import vision_process
    except ImportError as error:
        raise UserError(f"video.sampler=stock needs qwen-vl-utils: `{install('qwen-vl-utils')}` ({error})") from error
    if (given := os.environ.get("MODEL_SEQ_LEN")) is not None or vision_process.MODEL_SEQ_LEN != MODEL_SEQ_LEN:
        raise UserError(
            f"the environment's MODEL_SEQ_LEN={given} changes the sizes of frames in qwen-vl-utils, and lmms-eval sets "
            f"none (then it is {MODEL_SEQ_LEN}); unset MODEL_SEQ_LEN"
        )
    return cast(ModuleType, vision_process)
