"""Every file that is not a usable video gives one VideoError: which file, what is wrong, what to do."""

import os
import re
import threading
import time
from dataclasses import replace

import av
import numpy as np
import pytest
from av.stream import Disposition
from readers import READERS

from harness.errors import VideoError
from harness.video import decode
from harness.video.container import BACKENDS
from harness.video.decode import check_video, open_video
from harness.video.sampling import SamplingPolicy
from harness.video.windows import TimeLimit

POLICY = SamplingPolicy(fps=2, max_frames=64)


def fails(path, match, **options):
    with pytest.raises(VideoError, match=re.escape(str(path)) + ".*" + match) as caught:
        list(open_video(path, POLICY, **options).windows(8))
    assert "\n" not in str(caught.value)


def write_sound(path, *, cover=False):
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=16000)
        picture = container.add_stream("mjpeg") if cover else None
        if picture:
            picture.width = picture.height = 64
            picture.pix_fmt = "yuvj420p"
            picture.disposition = Disposition.attached_pic.value
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), dtype=np.uint8), format="rgb24")
            container.mux(picture.encode(frame))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.int16), format="s16", layout="mono")
        silence.sample_rate = 16000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    return path


def test_missing(tmp_path):
    fails(tmp_path / "gone.mp4", "no such file; check data.root, or .* prepare")


def test_empty(tmp_path):
    (tmp_path / "empty.mp4").touch()
    fails(tmp_path / "empty.mp4", "is empty .*0 bytes.*; delete it and fetch it again")


def test_folder(tmp_path):
    fails(tmp_path, "is a folder")


def test_text(tmp_path):
    (tmp_path / "page.mp4").write_text("<html>403 Forbidden</html>" * 20)
    fails(tmp_path / "page.mp4", "is not a readable video")


def test_sound_only(tmp_path):
    fails(write_sound(tmp_path / "sound.mp4"), "has no video stream, only audio")


def test_sound_with_a_cover_picture(tmp_path):
    fails(write_sound(tmp_path / "cover.mp4", cover=True), "only sound with a cover picture")


def test_too_short(make_video):
    fails(make_video(n=10), "0.40 s are too short at 2 frames per second, the model needs 2 .*at least 1 s")


@pytest.mark.parametrize("n", [1, 3])
def test_a_moment(make_video, n):
    """What a run refuses, the check of a whole benchmark refuses: both open the video under the policy."""
    path = make_video(n=n)
    message = "has 1 frame, the model needs 2" if n == 1 else f"{n / 25:.2f} s are too short at 2 frames per second"
    fails(path, message)
    with pytest.raises(VideoError, match=message):
        check_video(path, POLICY)
    assert check_video(path, replace(POLICY, fps=25, even=False)).info.n_frames == n


def test_a_ribbon(make_video):
    """Scaling truncates: 448x2 come out of 1190x6, which alone would do. Qwen's processor takes 200:1 at most."""
    path = make_video(n=50, size=(1190, 6))
    fails(path, "pictures of 448x2 .scaled from 1190x6. are too long, vision encoders take sides of at most 200:1")
    with pytest.raises(VideoError, match="at most 200:1"):
        check_video(path, POLICY)
    assert check_video(path, replace(POLICY, long_side=None)).width == 1190


@pytest.mark.parametrize("name", ["late_index.mp4", "early_index.mp4", "video.mkv"])
def test_cut_short(make_video, name):
    options = {"movflags": "faststart"} if name == "early_index.mp4" else {}
    path = make_video(name, n=200, size=(128, 96), container_options=options)
    os.truncate(path, path.stat().st_size * 6 // 10)
    fails(path, "cut short")


def test_a_few_missing_milliseconds_are_not_an_error(make_video):
    """Containers round their lengths; only a real loss is refused."""
    path = make_video("video.mkv", n=200)
    os.truncate(path, path.stat().st_size - 200)
    assert open_video(path, POLICY).info.n_frames >= 190


@pytest.mark.parametrize("backend", READERS)
def test_damage_in_the_middle(make_video, backend):
    path = make_video(n=200, size=(128, 96), options={"bf": "2"})
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = b"\0" * (len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    fails(path, f"{backend}: .*fetch it again", backend=backend)


def test_a_hanging_disk_becomes_an_error(make_video, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr("harness.video.decode.scan", lambda path: release.wait(30))
    start = time.monotonic()
    fails(make_video(n=10), r"took longer than video.timeout_s=0.2; .* raise video.timeout_s", timeout_s=0.2)
    release.set()
    assert time.monotonic() - start < 5


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    fails(tmp_path / "pipe.mp4", "is not a regular file")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hang_while_decoding_becomes_an_error(make_video, monkeypatch, backend):
    release = threading.Event()

    class Hanging:
        def __init__(self, track):
            pass

        def frame(self, index):
            if index > 20:
                release.wait(20)
            return np.zeros((48, 64, 3), dtype=np.uint8)

        def close(self):
            pass

    monkeypatch.setattr(decode, "reader_class", lambda name: Hanging)
    video = open_video(make_video(n=100), POLICY, backend=backend, timeout_s=0.3)
    windows = video.windows(1)
    next(windows)
    time.sleep(0.4)  # the consumer's own time does not count
    next(windows)
    with pytest.raises(VideoError, match=f"{backend} took longer than video.timeout_s=0.3"):
        list(windows)
    release.set()


def test_no_thread_is_left_after_a_pass_given_up_half_way(make_video):
    before = set(threading.enumerate())
    windows = open_video(make_video(n=100), POLICY).windows(1)
    next(windows)
    windows.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_a_time_limit_hands_on_results_and_errors():
    with TimeLimit(5) as limit:
        assert limit.call(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            limit.call(divmod, 1, 0)
        assert limit.call(len, "abc") == 3
