"""Every backend gives the same upright frames for the same plan, also where decoders usually disagree."""

import shutil
import struct
import subprocess
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from harness.errors import UserError, VideoError
from harness.video import decode
from harness.video.container import BACKENDS, reader_class
from harness.video.decode import check_video, open_video
from harness.video.sampling import SamplingPolicy
from harness.video.scan import scan

ALL_FRAMES = SamplingPolicy(fps=25, max_frames=4096, even=False, long_side=None)
FEW_FRAMES = SamplingPolicy(fps=1.2, max_frames=4096, even=False, long_side=None)
EACH_OF_30 = SamplingPolicy(fps=30, max_frames=4096, even=False, grid_fps=30, long_side=None)
# Mean absolute difference per 8-bit sample. Measured: 0.0 for 8-bit video; 1.7 for 10-bit video between pyav and the
# ffmpeg command, which dither differently on the way down to 8 bits.
SAME_8_BIT = 0.1
SAME_10_BIT = 2.5
MATRIX_AT = 40  # bytes from the type of an mp4 track header to its display matrix
TURNS = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}  # counter-clockwise


def frames(path, policy, backend):
    return np.concatenate(list(open_video(path, policy, backend=backend).windows(16)))


def levels(pictures):
    """Gray level of each frame, away from the bright corner."""
    return pictures[:, -4:, -4:].mean(axis=(1, 2, 3))


def assert_planned_frames(path, backend, sources):
    """The gray level of every decoded frame is the one written for the source frame that the plan asks for."""
    for policy in (ALL_FRAMES, FEW_FRAMES):
        video = open_video(path, policy, backend=backend)
        got = levels(np.concatenate(list(video.windows(16))))
        np.testing.assert_allclose(got, sources[list(video.plan.indices)], atol=5)


OPEN_GROUPS = {"x264-params": "open-gop=1:keyint=20:min-keyint=20:bframes=3:b-adapt=0:scenecut=0"}
OPEN_GROUPS_X265 = {"x265-params": "log-level=none:open-gop=1:keyint=20:min-keyint=20:bframes=3:b-adapt=0:scenecut=0"}


@pytest.mark.parametrize(
    "made",
    [
        pytest.param({}, id="h264"),
        pytest.param({"options": {"g": "20", "bf": "2"}}, id="closed groups"),
        pytest.param({"options": OPEN_GROUPS | {"preset": "medium"}}, id="open groups"),
        pytest.param({"codec": "libx265", "options": OPEN_GROUPS_X265}, id="hevc open groups"),
        pytest.param({"codec": "mpeg4", "options": {"b:v": "2M"}}, id="mpeg4"),
        pytest.param({"name": "video.mkv", "options": {"bf": "2"}}, id="matroska"),
        pytest.param({"name": "video.webm", "codec": "libvpx-vp9", "options": {"cpu-used": "8"}}, id="vp9"),
        pytest.param({"pix_fmt": "yuvj420p"}, id="full range"),
        pytest.param({"pix_fmt": "yuv444p", "size": (50, 34)}, id="4:4:4"),
    ],
)
def test_frames_are_the_planned_ones(make_video, gray_levels, backend, made):
    assert_planned_frames(make_video(n=110, **made), backend, gray_levels(110))


def test_a_variable_frame_rate(make_video, gray_levels, backend):
    # 40 frames at 25 per second, one frame that stays for 2 s, then 40 at 10 per second
    times = [i / 25 for i in range(40)] + [3.6 + i / 10 for i in range(40)]
    path = make_video(n=80, times=times, options={"bf": "2", "g": "15"})
    shown = [max(i for i, time in enumerate(times) if time < (k + 0.5) / 25) for k in range(190)]
    assert_planned_frames(path, backend, gray_levels(80)[shown])


def test_an_edit_list_hides_frames(make_video, gray_levels, backend, tmp_path):
    """A cut without re-encoding starts at the keyframe before the cut, and says from when on to show."""
    whole = make_video(n=100, options={"g": "20", "bf": "2"})
    path = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                shift = int(Fraction(30, 25) / stream.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                if packet.pts + shift >= int(Fraction(20, 25) / stream.time_base):
                    target.mux(packet)
    assert scan(path).info.n_frames == 70
    assert_planned_frames(path, backend, gray_levels(100)[30:])


def test_avi_without_display_times(make_video, gray_levels, backend):
    path = make_video("video.avi", n=60, options={"bf": "2"})
    if backend == "torchcodec":
        with pytest.raises(VideoError, match="has no display times .* video.backend=pyav"):
            frames(path, ALL_FRAMES, backend)
    else:
        assert_planned_frames(path, backend, gray_levels(60))


@pytest.mark.parametrize("degrees", TURNS)
def test_rotated_frames_come_upright(make_video, backend, degrees):
    path = make_video(n=10, size=(64, 48))
    stored = frames(path, ALL_FRAMES, backend)
    turned = path.with_name("turned.mp4")
    a, b, c, d = (65536 * x for x in TURNS[degrees])
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + MATRIX_AT
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    turned.write_bytes(data)

    info = scan(turned).info
    assert info.rotation == degrees
    assert (info.width, info.height) == ((64, 48) if degrees == 180 else (48, 64))
    upright = frames(turned, ALL_FRAMES, backend)
    assert np.abs(upright.astype(int) - np.rot90(stored, degrees // 90, axes=(1, 2))).mean() < 1


def test_a_real_rotated_video(shared_video, backend):
    plain, turned = (frames(shared_video(f"video_{angle}.mov"), EACH_OF_30, backend) for angle in (0, 90))
    assert plain.shape == (3, 320, 568, 3) and turned.shape == (3, 568, 320, 3)
    reference = frames(shared_video("video_90.mov"), EACH_OF_30, "pyav")
    assert np.abs(turned.astype(int) - reference).mean() < SAME_8_BIT


@pytest.mark.parametrize(
    ("name", "fps", "n", "size"),
    [
        ("flipping_a_pancake.mkv", 5, 51, (426, 240)),
        ("h265_video.mp4", 30, 30, (128, 128)),
        ("nasa_13013.mp4", 5, 65, (480, 270)),  # the second of two video streams is the better one
        ("video_0.mov", 30, 3, (568, 320)),
        ("video_90.mov", 30, 3, (320, 568)),
    ],
)
def test_backends_agree_on_real_videos(shared_video, backend, name, fps, n, size):
    policy = replace(EACH_OF_30, fps=fps)
    video = open_video(shared_video(name), policy, backend=backend)
    assert (len(video.plan.indices), (video.width, video.height)) == (n, size)
    reference = open_video(shared_video(name), policy, backend="pyav")
    for window, expected in zip(video.windows(32), reference.windows(32), strict=True):
        difference = np.abs(window.astype(np.int16) - expected).mean(axis=(1, 2, 3))
        assert difference.max() < SAME_8_BIT


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg command")
@pytest.mark.parametrize(
    ("made", "tolerance"),
    [
        ({"rate": Fraction(30), "n": 90}, SAME_8_BIT),
        ({"rate": Fraction(30000, 1001), "n": 100, "name": "video.mkv"}, SAME_8_BIT),
        ({"rate": Fraction(10), "n": 33}, SAME_8_BIT),
        ({"rate": Fraction(60), "n": 121}, SAME_8_BIT),
        ({"times": [0, 0.11, 0.13, 0.5, 0.51, 0.52, 2.0], "n": 7}, SAME_8_BIT),
        ({"rate": Fraction(24), "n": 50, "pix_fmt": "yuv420p10le"}, SAME_10_BIT),
    ],
)
def test_the_grid_is_what_ffmpeg_writes_at_25_fps(make_video, made, tolerance):
    """The release's own first step, but to raw pictures in place of JPEGs."""
    path = make_video(**made)
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-vf", "fps=25", "-vsync", "vfr"]
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
    written = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 48, 64, 3)
    ours = frames(path, ALL_FRAMES, "pyav")
    assert ours.shape == written.shape
    assert np.abs(ours.astype(int) - written).mean(axis=(1, 2, 3)).max() < tolerance


def test_decord_says_so_if_it_reads_another_stream(make_video, monkeypatch):
    path = make_video(n=30)
    track = scan(path)
    monkeypatch.setattr(decode, "scan", lambda path: replace(track, info=replace(track.info, width=100)))
    with pytest.raises(VideoError, match="another of its streams, at frame 0 .* 64x48 in place of 100x48"):
        next(open_video(path, ALL_FRAMES).windows(8))


def test_av1(make_video, gray_levels, backend):
    path = make_video(n=30, codec="libaom-av1", options={"g": "10"})
    if backend == "decord":
        with pytest.raises(VideoError, match="codec av1 .* decord; set video.backend=pyav or video.backend=torchcodec"):
            open_video(path, ALL_FRAMES, backend=backend)
    else:
        assert_planned_frames(path, backend, gray_levels(30))


@pytest.mark.parametrize(("n", "decoded"), [(30, [0, 14, 29]), (2, [0, 1]), (1, [0])])
def test_check_video_decodes_the_first_the_middle_and_the_last_frame(make_video, backend, monkeypatch, n, decoded):
    asked = []
    reader = reader_class(backend)
    frame = reader.frame
    monkeypatch.setattr(reader, "frame", lambda self, index: asked.append(index) or frame(self, index))
    assert check_video(make_video(n=n), ALL_FRAMES, backend=backend).info.n_frames == n
    assert asked == decoded


def test_check_video_names_a_damaged_one(shared_video, backend):
    with pytest.raises(VideoError, match="corrupted.mp4: .*h264 frames"):
        check_video(shared_video("corrupted.mp4"), ALL_FRAMES, backend=backend)


def test_a_damaged_video_fails_and_is_named(shared_video, backend):
    video = open_video(shared_video("corrupted.mp4"), ALL_FRAMES, backend=backend)
    with pytest.raises(VideoError, match=rf"corrupted.mp4: .* {backend}: .*; fetch it again"):
        list(video.windows(8))


def test_a_backend_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(BACKENDS, "torchcodec", "harness.video.read_nothing:Reader")
    with pytest.raises(UserError, match="video.backend=torchcodec does not work here .* video.backend=decord or"):
        reader_class("torchcodec")
