"""Where backends are known to read a file in different ways: all give the same pixels, or none gives any."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from harness.errors import VideoError
from harness.video import scan as scanning
from harness.video.decode import open_video
from harness.video.sampling import SamplingPolicy
from harness.video.scan import scan

POLICY = SamplingPolicy(fps=25, max_frames=4096, even=False, long_side=None)
EVEN_TURN = 46341  # sine and cosine of 45 degrees, times 65536
MATRIX_AT = 40  # bytes from the type of an mp4 track header to its display matrix

# One colour per quarter of the picture; what is fixed tells the channels apart, `None` is the number of the frame.
QUARTERS = {(0, 0): (220, 30, None), (0, 1): (None, 210, 40), (1, 0): (30, None, 225), (1, 1): (None, 128, 230)}
STEP = 9


def numbered_picture(i: int, width: int, height: int) -> np.ndarray:
    picture = np.empty((height, width, 3), dtype=np.uint8)
    for (row, column), colour in QUARTERS.items():
        part = picture[row * height // 2 :, column * width // 2 :]
        part[:] = [20 + STEP * i % 200 if value is None else value for value in colour]
    return picture


def write(path, *, n=24, size=(64, 48), start=0.0, codec="libx264", pix_fmt="yuv420p", parts=None, matrix=None):
    """Frames `numbered_picture(0..n)`; `parts` is the size of the picture in each equal part of the video."""
    lossless = {"preset": "ultrafast", "qp": "0", "x264-params": "repeat-headers=1"} if codec == "libx264" else {}
    parts = parts or [size]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=dict(lossless))
        (stream.width, stream.height), stream.pix_fmt = parts[0], pix_fmt
        for number, (width, height) in enumerate(parts):
            encoder = stream.codec_context
            if number:
                encoder = av.CodecContext.create(codec, "w")
                encoder.width, encoder.height, encoder.pix_fmt = width, height, pix_fmt
                encoder.options, encoder.framerate = dict(lossless), Fraction(25)
            encoder.time_base = Fraction(1, 25)
            pictures = range(n * number // len(parts), n * (number + 1) // len(parts))
            frames = [av.VideoFrame.from_ndarray(numbered_picture(i, width, height), format="rgb24") for i in pictures]
            for i, frame in zip(pictures, frames, strict=True):
                frame.pts, frame.time_base = i + round(25 * start), Fraction(1, 25)
            for packet in [packet for frame in [*frames, None] for packet in encoder.encode(frame)]:
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                container.mux(packet)
    if matrix:
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 4 + MATRIX_AT
        data[at : at + 36] = struct.pack(">9i", *matrix[:2], 0, *matrix[2:], 0, 0, 0, 1 << 30)
        path.write_bytes(data)
    return path


def assert_colours_and_order(path, backend, n=24):
    """Every quarter of every frame has the colour that was drawn, and frames come in their order."""
    video = open_video(path, POLICY, backend=backend)
    frames = np.concatenate(list(video.windows(7))).astype(int)
    assert video.plan.indices == tuple(range(n)) and len(frames) == n
    height, width = frames.shape[1:3]
    for i, frame in enumerate(frames):
        wanted = numbered_picture(i, width, height)
        for y, x in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
            at = int(y * height), int(x * width)
            np.testing.assert_allclose(frame[at], wanted[at], atol=4)


def refused(path, backend, match):
    with pytest.raises(VideoError, match=match) as caught:
        list(open_video(path, POLICY, backend=backend).windows(8))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param({}, id="h264"),
        pytest.param({"pix_fmt": "yuv444p"}, id="whole chroma"),
        pytest.param({"pix_fmt": "yuvj420p"}, id="full range"),
        pytest.param({"codec": "ffv1"}, id="ffv1"),
        pytest.param({"codec": "libx264rgb", "pix_fmt": "rgb24"}, id="stored as RGB"),
        pytest.param({"start": 7.28}, id="late"),
    ],
)
def test_colours_and_order(tmp_path, backend, made):
    assert_colours_and_order(write(tmp_path / "video.mkv", **made), backend)


def test_swapped_channels_and_shifted_frames_would_be_noticed(tmp_path, backend, monkeypatch):
    from harness.video.container import reader_class

    path = write(tmp_path / "video.mkv")
    reader = reader_class(backend)
    frame = reader.frame
    for fault in (
        lambda self, index: frame(self, index)[:, :, ::-1],
        lambda self, index: frame(self, index)[::-1],
        lambda self, index: frame(self, index)[:, ::-1],
        lambda self, index: frame(self, min(index + 1, 23)),
    ):
        monkeypatch.setattr(reader, "frame", fault)
        with pytest.raises((AssertionError, VideoError)):
            assert_colours_and_order(path, backend)


def test_a_matroska_file_that_starts_late_and_is_cut_short(tmp_path, backend):
    """Its length is that of the last time in it, so a late start is no loss, and a loss is still seen."""
    path = write(tmp_path / "late.mkv", n=100, start=7.3)
    assert scan(path).info.duration_s == pytest.approx(4.0, abs=0.01)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    refused(path, backend, "is cut short, it holds .* of 11.3 s")


@pytest.mark.parametrize(("suffix", "codec"), [("ts", "libx264"), ("mkv", "libx264"), ("mpg", "mpeg2video")])
def test_joined_videos_whose_times_start_again(tmp_path, backend, suffix, codec):
    parts = [write(tmp_path / f"{n}.{suffix}", n=n, codec=codec) for n in (24, 16)]
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    refused(path, backend, r"its times start again \(\d\.\d\d s is stored after \d\.\d\d s\), as in")


def test_two_frames_at_one_time(make_video, backend):
    path = make_video("video.mkv", n=30, times=[i / 25 + (0.04 if i == 9 else 0) for i in range(30)])
    refused(path, backend, "two of its frames are to be shown at 0.400 s; fetch it again, or write it again")


def edited(path, parts):
    """The mp4 with an edit list of (start, duration) in seconds, which shows only these parts."""
    with av.open(str(path)) as container:
        rate = container.streams.video[0].time_base.denominator
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 8  # of the number of entries; a film's own clock ticks 1000 times a second
    entries = b"".join(struct.pack(">3i", round(length * 1000), round(start * rate), 65536) for start, length in parts)
    data[at : at + 16] = struct.pack(">i", len(parts)) + entries
    for box in (b"moov", b"trak", b"edts", b"elst"):
        size = data.index(box) - 4
        data[size : size + 4] = struct.pack(">i", struct.unpack(">i", data[size : size + 4])[0] + 12 * (len(parts) - 1))
    path.write_bytes(data)
    return path


def test_an_edit_list_of_two_parts_is_no_restart(make_video, gray_levels, backend):
    """What is stored for the second part starts at the keyframe before it, in times of the first, but is hidden."""
    path = edited(make_video(n=110, options={"g": "20"}), [(1.0, 1.0), (1.0, 2.0)])
    frames = np.concatenate(list(open_video(path, POLICY, backend=backend).windows(16)))
    shown = [*range(25, 50), *range(25, 75)]
    np.testing.assert_allclose(frames[:, -4:, -4:].mean(axis=(1, 2, 3)), gray_levels(110)[shown], atol=5)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_a_picture_whose_size_changes_midway(tmp_path, backend, suffix):
    path = write(tmp_path / f"video.{suffix}", parts=[(64, 48), (96, 80)])
    refused(path, backend, "its picture changes midway .64x48 yuv420p and 96x80 yuv420p.; fetch it again, or write it")


def test_a_picture_whose_size_changes_for_a_moment(tmp_path, backend, monkeypatch):
    """Too short for the scan to see; whoever decodes the frame with its own size says so."""
    path = write(tmp_path / "video.mkv", n=36, parts=[(64, 48), (96, 80), (64, 48)])
    monkeypatch.setattr(scanning, "LOOKS", 1)
    assert len(scan(path).keyframes) == 3
    if backend == "decord":
        pytest.skip("decord scales such pictures itself")
    refused(path, backend, "changes its size.* at frame 12 .pictures of 96x80 in place of 64x48.")


@pytest.mark.parametrize(
    "matrix",
    [
        pytest.param((EVEN_TURN, EVEN_TURN, -EVEN_TURN, EVEN_TURN), id="45 degrees"),
        pytest.param((0, 0, 0, 0), id="zeros"),
        pytest.param((-65536, 0, 0, 65536), id="mirrored"),
    ],
)
def test_a_turn_that_is_none_by_quarters(tmp_path, backend, matrix):
    path = write(tmp_path / "video.mp4", matrix=matrix)
    refused(path, backend, rf"matrix \[{matrix[0]} {matrix[1]}; .*which is no turn by a quarter; fetch it again")


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv411p", "yuv410p"])
def test_torchcodec_leaves_other_colours_to_the_others(tmp_path, backend, pix_fmt):
    path = write(tmp_path / "video.mkv", codec="ffv1" if "41" in pix_fmt else "libx264", pix_fmt=pix_fmt)
    if backend == "torchcodec":
        refused(path, backend, f"other colours of {pix_fmt} .*; set video.backend=decord or video.backend=pyav")
    else:
        assert_colours_and_order(path, backend)
        ours, reference = (next(open_video(path, POLICY, backend=b).windows(24)) for b in (backend, "pyav"))
        np.testing.assert_array_equal(ours, reference)


def test_gray_of_many_bits(tmp_path, backend):
    path = write(tmp_path / "video.mkv", codec="ffv1", pix_fmt="gray16le")
    refused(path, backend, "gray16le .gray of 16 bits. .*; write it again with 8 bits per colour")
