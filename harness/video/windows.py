"""The sampled frames of one video, read window by window."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import numpy as np
from PIL import Image

from harness.errors import VideoError
from harness.video.container import Frame, FrameReader, Track
from harness.video.sampling import FramePlan

P = ParamSpec("P")
R = TypeVar("R")


class TimeLimit:
    """One thread that runs calls one after the other; waiting for them may take `seconds` in all.

    Time that the consumer spends between the calls does not count. Not to be shared between threads.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds_left = seconds
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_serve, args=(self._calls, self._results), daemon=True)
        self._thread.start()

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs function(*args, **kwargs) in the thread and returns its result or raises its exception.

        Raises TimeoutError where the limit is used up. The thread is abandoned; call nothing more.
        """
        self._calls.put(partial(function, *args, **kwargs))
        start = time.monotonic()
        try:
            result, error = self._results.get(timeout=max(0.0, self.seconds_left))
        except queue.Empty:
            self.seconds_left = 0.0
            raise TimeoutError from None
        self.seconds_left -= time.monotonic() - start
        if error is not None:
            raise error
        return cast(R, result)

    def close(self, last: Callable[[], Any] | None = None) -> None:
        """Lets the thread end after its current call and a last one, without waiting for them."""
        if last is not None:
            self._calls.put(last)
        self._calls.put(None)

    def __enter__(self) -> "TimeLimit":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(calls: queue.SimpleQueue[Any], results: queue.SimpleQueue[Any]) -> None:
    while (call := calls.get()) is not None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = (call(), None)
        except BaseException as error:  # handed to the consumer, whatever it is
            outcome = (None, error)
        results.put(outcome)
        # Nothing of the last call may stay alive while waiting for the next: windows are large.
        del call, outcome


class Pass(Protocol):
    """One pass over the planned frames of a video. Lives in the decoding thread."""

    def window(self, start: int, stop: int) -> Frame:
        """Planned frames start to stop (exclusive), in ascending order from call to call: uint8 [n, H, W, 3], RGB.

        Raises VideoError where one of them cannot be decoded.
        """

    def close(self) -> None: ...


class Video:
    """The sampled frames of one video.

    path, info, plan, backend; height and width in pixels of the frames that `windows` gives.
    May be handed between threads; each pass over `windows` has its own decoder and its own decoding thread.
    """

    def __init__(
        self,
        track: Track,
        plan: FramePlan,
        size: tuple[int, int],
        backend: str,
        timeout_s: float,
        start_pass: Callable[[], Pass],
    ) -> None:
        self.path, self.info, self.plan, self.backend = track.path, track.info, plan, backend
        self.width, self.height = size
        self._timeout_s, self._start_pass = timeout_s, start_pass

    def __repr__(self) -> str:
        return f"Video({str(self.path)!r}, {len(self.plan.indices)} frames, {self.width}x{self.height}, {self.backend})"

    def windows(self, size: int) -> Generator[Frame]:
        """The planned frames in order, decoded as they are asked for: uint8 [<=size, H, W, 3], RGB.

        Decoding may take timeout_s in all; the time that the consumer spends with a window does not count. Raises
        VideoError where a frame cannot be decoded, or decoding takes too long.
        """
        if size < 1:
            raise ValueError(f"size={size} must be at least 1 frame")
        n = len(self.plan.indices)
        return self.spans((start, min(start + size, n)) for start in range(0, n, size))

    def spans(self, spans: Iterable[tuple[int, int]]) -> Generator[Frame]:
        """As `windows`, of planned frames (start, stop), stop exclusive, in ascending order."""
        limit = TimeLimit(self._timeout_s)
        reading: Pass | None = None
        try:
            reading = limit.call(self._start_pass)
            for start, stop in spans:
                yield limit.call(reading.window, start, stop)
        except TimeoutError:
            raise VideoError(too_long(self.path, self.backend, self._timeout_s)) from None
        finally:
            limit.close(reading.close if reading else None)


class FramePass:
    """A pass that decodes frame by frame and scales by nearest neighbour, as the release does.

    Only one window and one frame of the native size exist at a time.

    sources: for each planned frame its position in `track.pts`; size: (width, height) of what comes out
    """

    def __init__(self, reader: type[FrameReader], track: Track, sources: list[int], size: tuple[int, int]) -> None:
        self._reader = reader(track)
        self._track, self._sources, self._size = track, sources, size
        self._last: tuple[int, Frame] | None = None

    def window(self, start: int, stop: int) -> Frame:
        """See `Pass`; a source that repeats is decoded once."""
        width, height = self._size
        window = np.empty((stop - start, height, width, 3), dtype=np.uint8)
        for i, source in enumerate(self._sources[start:stop]):
            if self._last is None or self._last[0] != source:
                self._last = source, self._scaled(self._decoded(source))
            window[i] = self._last[1]
        return window

    def close(self) -> None:
        self._reader.close()

    def _decoded(self, source: int) -> Frame:
        frame = self._reader.frame(source)
        info = self._track.info
        height, width, _ = frame.shape
        if (width, height) != (info.width, info.height):
            # decord cannot be told which of several video streams to take, and its old ffmpeg may choose another.
            raise VideoError(
                f"{self._track.path}: changes its size, or the backend reads another of its streams, at frame {source} "
                f"(pictures of {width}x{height} in place of {info.width}x{info.height}); fetch it again, or try "
                "video.backend=pyav"
            )
        return frame

    def _scaled(self, frame: Frame) -> Frame:
        if (frame.shape[1], frame.shape[0]) == self._size:
            return frame
        return np.asarray(Image.fromarray(frame).resize(self._size, Image.Resampling.NEAREST), dtype=np.uint8)


def too_long(path: object, who: str, timeout_s: float) -> str:
    """The message of a `VideoError` for calls that hang."""
    return (
        f"{path}: {who} took longer than video.timeout_s={timeout_s:g}; the file is damaged or its disk "
        "hangs: check it with `python -m harness verify`, or raise video.timeout_s"
    )


def regrouped(windows: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same frames in windows of exactly `size` frames, the last one with what is left."""
    waiting: list[np.ndarray] = []
    count = 0
    for window in windows:
        while len(window):
            part, window = window[: size - count], window[size - count :]
            waiting.append(part)
            count += len(part)
            if count == size:
                yield np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)
