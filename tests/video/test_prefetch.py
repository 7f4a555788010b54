"""Prefetching changes when videos are decoded, and nothing else."""

import threading
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from harness.errors import VideoError
from harness.settings.groups import DEFAULT_READER
from harness.video.decode import open_video
from harness.video.prefetch import Prefetch
from harness.video.sampling import SamplingPolicy

FRAME_BYTES = 4 * 4 * 3


class Log:
    """Videos made of numbers, which record when they are opened and how many windows have been decoded."""

    def __init__(self, n=6, broken=(), broken_at=None, seconds=0.0):
        self.n, self.broken, self.broken_at, self.seconds = n, broken, broken_at, seconds
        self.opened, self.decoded = [], []

    def open(self, path):
        self.opened.append(path)
        if path in self.broken:
            raise VideoError(f"{path}: broken")
        plan = SimpleNamespace(indices=tuple(range(self.n)))
        return SimpleNamespace(
            path=path, info=None, plan=plan, backend="none", height=4, width=4, windows=partial(self.windows, path)
        )

    def windows(self, path, size):
        for start in range(0, self.n, size):
            time.sleep(self.seconds)
            if (path, start) == self.broken_at:
                raise VideoError(f"{path}: damaged at {start}")
            self.decoded.append((path, start))
            yield np.full((min(size, self.n - start), 4, 4, 3), path, dtype=np.uint8)


def settle(log):
    """Waits until the background thread does nothing more."""
    before = None
    while before != (before := (len(log.opened), len(log.decoded))):
        time.sleep(0.1)


def test_real_videos_come_in_order_and_unchanged(make_video):
    paths = [make_video(f"{i}.mp4", n=40 + 25 * i) for i in range(4)]
    opener = partial(open_video, policy=SamplingPolicy(fps=10, max_frames=64))
    with Prefetch(paths, opener, window=7) as videos:
        for path, video in zip(paths, videos, strict=True):
            direct = opener(path)
            assert (video.path, video.plan, video.info) == (path, direct.plan, direct.info)
            assert (video.height, video.width, video.backend) == (48, 64, DEFAULT_READER)
            for window, expected in zip(video.windows(7), direct.windows(7), strict=True):
                np.testing.assert_array_equal(window, expected)


def test_errors_come_at_their_own_video(tmp_path, make_video):
    paths = [make_video("0.mp4"), tmp_path / "gone.mp4", make_video("2.mp4")]
    with Prefetch(paths, partial(open_video, policy=SamplingPolicy(fps=10, max_frames=64)), window=7) as videos:
        outcomes = [v if isinstance(v, Exception) else sum(len(w) for w in v.windows(7)) for v in videos]
    assert outcomes[0] == outcomes[2] == 20
    assert isinstance(outcomes[1], VideoError) and "gone.mp4: no such file" in str(outcomes[1])


def test_an_error_while_decoding_comes_after_the_good_windows():
    log = Log(broken_at=(1, 4))
    with Prefetch(range(3), log.open, window=2, ahead=2) as videos:
        first, second, third = videos_in_full(videos)
    assert (first, third) == ([2, 2, 2], [2, 2, 2])
    assert second[:2] == [2, 2] and str(second[2]) == "1: damaged at 4"


def videos_in_full(videos):
    for video in videos:
        lengths = []
        try:
            lengths.extend(len(window) for window in video.windows(2))
        except VideoError as error:
            lengths = [2, 2, error]
        yield lengths


def test_no_more_than_the_next_videos_are_opened():
    log = Log()
    with Prefetch(range(10), log.open, window=2, ahead=2) as videos:
        stream = iter(videos)
        next(stream)
        settle(log)
        assert log.opened == [0, 1, 2]
        next(stream)
        settle(log)
        assert log.opened == [0, 1, 2, 3]


def test_waiting_windows_are_bounded_in_bytes():
    log = Log(n=100)
    with Prefetch(range(10), log.open, window=2, ahead=9, max_bytes=5 * 2 * FRAME_BYTES) as videos:
        settle(log)
        assert len(log.decoded) == 5
        windows = next(iter(videos)).windows(2)
        for taken in range(1, 20):
            next(windows)
            settle_until(lambda n=5 + taken: len(log.decoded) == n)


def settle_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_bound_below_one_window_still_delivers():
    log = Log()
    with Prefetch(range(3), log.open, window=4, max_bytes=1) as videos:
        assert [[len(w) for w in video.windows(4)] for video in videos] == [[4, 2]] * 3


def test_what_is_left_of_a_video_is_dropped():
    log = Log(n=100)
    with Prefetch(range(3), log.open, window=2, max_bytes=4 * 2 * FRAME_BYTES) as videos:
        got = []
        for video in videos:
            got.append(next(video.windows(2))[0, 0, 0, 0])
        assert got == [0, 1, 2]
    assert len([p for p, _ in log.decoded if p == 0]) < 50


def test_windows_of_an_earlier_video_are_gone():
    with Prefetch(range(3), Log().open, window=2) as videos:
        stream = iter(videos)
        earlier = next(stream)
        next(stream)
        with pytest.raises(RuntimeError, match="dropped"):
            list(earlier.windows(2))


def test_the_consumer_waits_only_for_what_is_not_ready():
    log = Log(seconds=0.2)
    with Prefetch(range(2), log.open, window=2) as videos:
        stream = iter(videos)
        first = next(stream)
        assert len(list(first.windows(2))) == 3
        assert 0.3 < videos.waited_s and first.waited_s <= videos.waited_s
        settle_until(lambda: len(log.decoded) == 6)
        waited = videos.waited_s
        second = next(stream)
        assert len(list(second.windows(2))) == 3
        assert videos.waited_s - waited < 0.3


def test_another_window_size_is_refused():
    with Prefetch(range(1), Log().open, window=2) as videos, pytest.raises(ValueError, match="size=3 differs"):
        next(next(iter(videos)).windows(3))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_in_the_consumer_stops_the_thread(error):
    log = Log(n=1000)
    before = threading.active_count()
    with pytest.raises(error), Prefetch(range(10), log.open, window=2, max_bytes=8 * FRAME_BYTES) as videos:
        for video in videos:
            next(video.windows(2))
            raise error
    assert threading.active_count() <= before
    decoded = len(log.decoded)
    time.sleep(0.05)
    assert len(log.decoded) == decoded < 10


def test_closing_does_not_wait_for_a_hanging_decoder(monkeypatch):
    monkeypatch.setattr("harness.video.prefetch.CLOSE_TIMEOUT_S", 0.1)
    release = threading.Event()
    start = time.monotonic()
    with Prefetch([0], lambda path: release.wait(20), window=2):
        pass
    assert time.monotonic() - start < 5
    release.set()


def test_a_programming_error_is_not_swallowed():
    with Prefetch([0], lambda path: 1 / 0, window=2) as videos:
        assert isinstance(next(iter(videos)), ZeroDivisionError)
