"""Decoding the next videos in the background while the model works on the current one.

One thread decodes window after window, video after video, in order; a decoder uses several cores by itself. What it
may run ahead is bounded in videos and in bytes, so memory stays flat however long the videos are.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from harness.video.container import Frame
from harness.video.windows import Video

OpenVideo = Callable[[Path], Video]
# How long `close` waits for the window that is being decoded; after that the thread is left behind as a daemon.
CLOSE_TIMEOUT_S = 5.0


class PrefetchedVideo:
    """A `Video` whose windows are decoded ahead. Same attributes; `windows` can be read once.

    waited_s: seconds its consumer has waited so far, for opening and for windows
    """

    def __init__(self, video: Video, slot: "_Slot", owner: "Prefetch") -> None:
        self.path, self.info, self.plan, self.backend = video.path, video.info, video.plan, video.backend
        self.height, self.width = video.height, video.width
        self._slot, self._owner = slot, owner

    @property
    def waited_s(self) -> float:
        return self._slot.waited_s

    def windows(self, size: int) -> Iterator[Frame]:
        """As `Video.windows`, which raises at the window where decoding failed. The size must be that of `Prefetch`."""
        if size != self._owner.window:
            raise ValueError(f"size={size} differs from the {self._owner.window} frames that are decoded ahead")
        while (window := self._owner._take(self._slot)) is not None:
            yield window
            del window  # or it would stay alive while waiting for the next


class _Slot:
    """The state of one video. Guarded by the owner's condition."""

    def __init__(self) -> None:
        self.video: Video | None = None
        self.error: Exception | None = None
        self.windows: deque[Frame] = deque()
        self.done = False  # nothing more comes: all decoded, failed or dropped
        self.dropped = False  # the consumer has gone on to the next video
        self.waited_s = 0.0

    def opened(self) -> bool:
        return self.video is not None or self.done


class Prefetch:
    """Iterates over videos in order, each opened and partly decoded ahead.

    Yields a PrefetchedVideo, or the exception that opening it raised, at its place. What is left of a video when the
    consumer asks for the next one is dropped. Use as a context manager, or call `close`.

    paths: the videos, in order
    open_video: opens one, such as `partial(harness.video.decode.open_video, policy=policy, backend="decord")`
    window: frames per window
    ahead: how many videos after the current one may be opened and decoded; at least 1
    max_bytes: decoded windows that wait for the consumer, without the one in the consumer's hands. One window is always
        allowed, so that a small bound slows down but does not block
    waited_s: seconds that the consumer has waited for opening and windows, all videos together
    """

    def __init__(
        self, paths: Sequence[Path], open_video: OpenVideo, *, window: int, ahead: int = 2, max_bytes: int = 2 * 10**9
    ) -> None:
        if ahead < 1 or window < 1:
            raise ValueError(f"ahead={ahead} and window={window} must be at least 1")
        self.window = window
        self.waited_s = 0.0
        self._paths, self._open, self._ahead, self._max_bytes = list(paths), open_video, ahead, max_bytes
        self._slots = [_Slot() for _ in self._paths]
        self._current = -1  # position of the video in the consumer's hands
        self._bytes = 0  # decoded or being decoded, not yet taken
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._decode_all, name="prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops decoding and frees what was decoded. Waits a few seconds at most."""
        with self._changed:
            self._closed = True
            for slot in self._slots:
                self._drop(slot)
        self._thread.join(CLOSE_TIMEOUT_S)

    def __iter__(self) -> Iterator[PrefetchedVideo | Exception]:
        for slot in self._slots[self._current + 1 :]:
            with self._changed:
                if self._current >= 0:
                    self._drop(self._slots[self._current])
                self._current += 1
                self._changed.notify_all()
                self._wait(slot, slot.opened)
                video, error = slot.video, slot.error
            if video is not None:
                yield PrefetchedVideo(video, slot, self)
            elif error is not None:
                yield error
            else:
                raise RuntimeError("the prefetch was closed while its videos were read")

    def _take(self, slot: _Slot) -> Frame | None:
        """The next window; None after the last."""
        with self._changed:
            self._wait(slot, lambda: slot.windows or slot.done)
            if slot.windows:
                window = slot.windows.popleft()
                self._bytes -= window.nbytes
                self._changed.notify_all()
                return window
            if slot.error is not None:
                raise slot.error
            if slot.dropped:
                raise RuntimeError("these windows were dropped: the next video was asked for, or the prefetch closed")
            return None

    def _wait(self, slot: _Slot, ready: Callable[[], object]) -> None:
        start = time.monotonic()
        try:
            self._changed.wait_for(ready)
        finally:
            waited = time.monotonic() - start
            slot.waited_s += waited
            self.waited_s += waited

    def _drop(self, slot: _Slot) -> None:
        slot.dropped = slot.done = True
        self._bytes -= sum(window.nbytes for window in slot.windows)
        slot.windows.clear()
        self._changed.notify_all()

    def _decode_all(self) -> None:
        """All that the decoding thread does; the methods above are the consumer's."""
        for position, slot in enumerate(self._slots):
            with self._changed:
                self._changed.wait_for(partial(self._due, position))
                if self._closed:
                    return
            try:
                if not slot.dropped:
                    self._decode(self._paths[position], slot)
            except Exception as error:  # delivered at this video's turn, whatever it is
                slot.error = error
            with self._changed:
                slot.done = True
                self._changed.notify_all()

    def _due(self, position: int) -> bool:
        return self._closed or position <= max(self._current, 0) + self._ahead

    def _decode(self, path: Path, slot: _Slot) -> None:
        video = self._open(path)
        with self._changed:
            slot.video = video
            self._changed.notify_all()
        windows = video.windows(self.window)
        try:
            left, frame_bytes = len(video.plan.indices), 3 * video.height * video.width
            while left:
                size = frame_bytes * min(self.window, left)
                if not self._reserve(slot, size):
                    return
                try:
                    window = next(windows)
                except BaseException:
                    self._give(slot, None, size)
                    raise
                left -= len(window)
                self._give(slot, window, size)
                del window
        finally:
            windows.close()

    def _reserve(self, slot: _Slot, size: int) -> bool:
        """Waits for room for one window; False if nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: slot.dropped or not self._bytes or self._bytes + size <= self._max_bytes)
            if not slot.dropped:
                self._bytes += size
            return not slot.dropped

    def _give(self, slot: _Slot, window: Frame | None, size: int) -> None:
        """Hands a window over; gives the reserved bytes back where there is none, or nobody wants it any more."""
        with self._changed:
            if window is None or slot.dropped:
                self._bytes -= size
            else:
                slot.windows.append(window)
            self._changed.notify_all()
