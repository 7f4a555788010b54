"""Opening a video and reading the sampled frames, window by window.

Threads: any number of passes may run at once, each decodes in a thread of its own. Forks: no decoder survives one (a
decord reader used in the child hangs), so fork while no pass is under way, or start processes by spawn or forkserver.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from harness.errors import VideoError
from harness.video.container import Track, VideoInfo, scan
from harness.video.readers import FrameReader, check_codec, reader_class
from harness.video.sampling import FramePlan, SamplingPolicy, grid_sources, plan_grid, resized
from harness.video.time_limit import TimeLimit

TIMEOUT_S = 600.0


def probe(path: str | Path, backend: str = "decord", *, timeout_s: float = TIMEOUT_S) -> VideoInfo:
    """What is in the file; it is read to its end but only its first frame is decoded.

    Raises:
        VideoError: as `open_video`, except for what only decoding shows.
    """
    return _scan(path, backend, timeout_s).info


def open_video(
    path: str | Path, policy: SamplingPolicy, *, backend: str = "decord", timeout_s: float = TIMEOUT_S
) -> "Video":
    """Reads the file's frame times and plans which frames to take. Nothing is kept open until `Video.windows`.

    Raises:
        UserError: the backend is unknown or not installed.
        VideoError: the file is missing, empty, cut short, without video, too short for one sampled frame, in a
            codec that the backend cannot decode, or reading takes longer than timeout_s.
    """
    reader_class(backend)
    track = _scan(path, backend, timeout_s)
    pts = [p - track.origin for p in track.pts]
    sources = grid_sources(pts, track.end - track.origin, track.time_base, policy.grid_fps)
    plan = plan_grid(len(sources), policy)
    if not plan.indices:
        needed = 2 if policy.even else 1
        least = needed / min(policy.fps, policy.grid_fps)
        raise VideoError(
            f"{track.path}: {track.info.duration_s:.2f} s are too short at {policy.fps:g} frames per second, the model "
            f"needs {needed} (at least {least:g} s); raise video.fps or leave the video out"
        )
    return Video(track, policy, plan, sources[list(plan.indices)], backend, timeout_s)


def check_video(path: str | Path, *, backend: str = "decord", timeout_s: float = TIMEOUT_S) -> VideoInfo:
    """Decodes the first, the middle and the last frame.

    Raises:
        UserError, VideoError: as `open_video` and `Video.windows`.
    """
    track = _scan(path, backend, timeout_s)
    n = track.info.n_frames
    with TimeLimit(timeout_s) as limit:
        try:
            limit.call(_decode_some, reader_class(backend), track, sorted({0, n // 2, n - 1}))
        except TimeoutError:
            raise VideoError(_too_long(path, backend, timeout_s)) from None
    return track.info


def _decode_some(reader: type[FrameReader], track: Track, indices: list[int]) -> None:
    opened = reader(track)
    try:
        for index in indices:
            opened.frame(index)
    finally:
        opened.close()


class Video:
    """The sampled frames of one video.

    path, info, plan, backend; height and width in pixels of the frames that `windows` gives.
    May be handed between threads; each pass over `windows` has its own decoder and its own decoding thread.
    """

    def __init__(
        self, track: Track, policy: SamplingPolicy, plan: FramePlan, sources: np.ndarray, backend: str, timeout_s: float
    ) -> None:
        self.path = track.path
        self.info = track.info
        self.plan = plan
        self.backend = backend
        self.width, self.height = resized(track.info.width, track.info.height, policy)
        self._track = track
        self._sources = sources
        self._timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"Video({str(self.path)!r}, {len(self.plan.indices)} frames, {self.width}x{self.height}, {self.backend})"

    def windows(self, size: int) -> Iterator[np.ndarray]:
        """The planned frames in order, decoded as they are asked for: uint8 [<=size, H, W, 3], RGB.

        Only one window and one frame of the native size exist at a time. Decoding may take timeout_s in all; the time
        that the consumer spends with a window does not count.

        Raises:
            VideoError: a frame cannot be decoded, or decoding takes too long.
        """
        if size < 1:
            raise ValueError(f"size={size} must be at least 1 frame")
        limit = TimeLimit(self._timeout_s)
        reading = None
        try:
            reading = limit.call(_Pass, self._track, reader_class(self.backend), self.width, self.height)
            for start in range(0, len(self._sources), size):
                yield limit.call(reading.window, self._sources[start : start + size].tolist())
        except TimeoutError:
            raise VideoError(_too_long(self.path, self.backend, self._timeout_s)) from None
        finally:
            limit.close(reading.close if reading else None)


class _Pass:
    """One pass over a video: its decoder and the last frame. Lives in the decoding thread."""

    def __init__(self, track: Track, reader: type[FrameReader], width: int, height: int) -> None:
        self._reader = reader(track)
        self._size = (width, height)
        self._last_source = -1
        self._last_frame: np.ndarray | None = None

    def window(self, sources: list[int]) -> np.ndarray:
        """Source frames -> uint8 [len(sources), H, W, 3]; a source that repeats is decoded once."""
        width, height = self._size
        window = np.empty((len(sources), height, width, 3), dtype=np.uint8)
        for i, source in enumerate(sources):
            if source != self._last_source:
                self._last_frame = self._resize(self._reader.frame(source))
                self._last_source = source
            window[i] = self._last_frame
        return window

    def _resize(self, frame: np.ndarray) -> np.ndarray:
        if (frame.shape[1], frame.shape[0]) == self._size:
            return frame
        return np.asarray(Image.fromarray(frame).resize(self._size, Image.Resampling.NEAREST))

    def close(self) -> None:
        self._reader.close()


def _scan(path: str | Path, backend: str, timeout_s: float) -> Track:
    with TimeLimit(timeout_s) as limit:
        try:
            track = limit.call(scan, path)
        except TimeoutError:
            raise VideoError(_too_long(path, "the container reader", timeout_s)) from None
    check_codec(track.path, track.info.codec, backend)
    return track


def _too_long(path: str | Path, who: str, timeout_s: float) -> str:
    return (
        f"{path}: {who} took longer than video.timeout_s={timeout_s:g}; the file is damaged or its disk "
        "hangs: check it with `python -m harness verify`, or raise video.timeout_s"
    )
