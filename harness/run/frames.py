"""Where the loop's frames come from: the video room, under a cell's sampling policy."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import VideoError

if TYPE_CHECKING:
    from harness.config import RunConfig, VideoConfig
    from harness.run.answer import Frames
    from harness.run.cell import Cell


def sampling_policy(video: VideoConfig) -> Any:
    """The part of the settings that decides which pixels a model sees."""
    from harness.video.sampling import SamplingPolicy

    return SamplingPolicy(
        fps=video.fps,
        max_frames=video.max_frames,
        even=video.even,
        grid_fps=video.grid_fps,
        long_side=video.long_side,
        resample=video.resample,
    )


def open_ahead(cell: Cell, run: RunConfig) -> Frames:
    """Decode the next `run.prefetch` videos in the background, in at most `run.prefetch_gb` of memory."""
    if run.prefetch < 1:
        return open_in_turn(cell, run)
    from harness.video.decode import open_video
    from harness.video.prefetch import Prefetch

    video = cell.video
    opener = partial(open_video, policy=sampling_policy(video), backend=video.backend, timeout_s=video.timeout_s)

    def frames(paths: Sequence[Path]) -> Generator[Any]:
        bound = int(run.prefetch_gb * 1e9)
        with Prefetch(paths, opener, window=video.window, ahead=run.prefetch, max_bytes=bound) as ahead:
            yield from ahead

    return frames


def open_in_turn(cell: Cell, run: RunConfig) -> Frames:
    """Open each video when its turn comes."""
    from harness.video.decode import open_video

    policy, video = sampling_policy(cell.video), cell.video

    def frames(paths: Sequence[Path]) -> Generator[Any]:
        for path in paths:
            try:
                opened = open_video(path, policy, backend=video.backend, timeout_s=video.timeout_s)
            except VideoError as error:
                opened = error
            yield opened

    return frames
