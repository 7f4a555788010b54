"""Reading a video file once, with only a few frames of it decoded.

One reader of containers for every decoding backend: all of them plan from the same frame times, so they cannot disagree
on which frame is the n-th, on the duration or on the rotation. The whole file is read (as any exact index needs).
What the backends would read in different ways is refused here, for all of them alike.
"""

import math
import os
import struct
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from harness.errors import VideoError
from harness.video.container import Track, VideoInfo, check_file

# A container may promise a little more than it holds (rounded headers); more than this is a damaged file.
MISSING_SECONDS = 0.5
MISSING_SHARE = 0.01
RESTART_SECONDS = 0.1  # stored times that step back by more belong to another video
LOOKS = 16  # keyframes, spread over the video, that are decoded to see whether the size of the picture stays
SAME_TURN = 0.01
WRITE_AGAIN = "fetch it again, or write it again with `ffmpeg -i FILE -c:v libx264 -crf 12 NEW.mp4`"
TURNS = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 90, (-1, 0, 0, -1): 180, (0, 1, -1, 0): 270}


@dataclass(frozen=True)
class _Shown:
    """One stored frame that is shown; times in units of the stream's time base."""

    pts: int | None
    duration: int
    key: bool


@dataclass
class _Contents:
    """What one pass over the packets of a file finds.

    first: the first decoded frame; pictures: (width, height, pixel format) of all that were decoded
    end_s: when the last packet of any stream ends
    closed: each keyframe starts a closed group of pictures and no frame is hidden
    """

    shown: list[_Shown] = field(default_factory=list)
    first: VideoFrame | None = None
    pictures: set[tuple[int, int, str]] = field(default_factory=set)
    end_s: float = 0.0
    closed: bool = True

    def look(self, frames: Iterable[object]) -> None:
        for frame in frames:
            if isinstance(frame, VideoFrame):
                self.first = self.first or frame
                self.pictures.add((frame.width, frame.height, frame.format.name))


def scan(path: str | Path) -> Track:
    """Reads the container's packets, the first frame and a few keyframes.

    Raises VideoError where the file is missing, empty, no video, audio only or truncated, its first frame cannot be
    decoded, its times start again, its picture changes its size or is turned by other than a quarter.
    """
    path = check_file(path)
    try:
        container = av.open(os.path.abspath(path))  # a relative name with a colon would be taken for a URL
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path}: is not a readable video ({reason(error)}); it is damaged or cut short: fetch it again"
        ) from None
    with closing(container):
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream):
            kinds = sorted({str(s.type) for s in container.streams}) or ["nothing"]
            raise VideoError(f"{path}: has no video stream, only {', '.join(kinds)}; fetch the right file")
        if stream.disposition & Disposition.attached_pic:
            raise VideoError(f"{path}: has no video, only sound with a cover picture; fetch the right file")
        return _track(path, container, stream, _read(path, container, stream))


def _read(path: Path, container: InputContainer, stream: VideoStream) -> _Contents:
    found = _Contents()
    key_pts: int | None = None
    last_dts: int | None = None
    time_base = stream.time_base or Fraction(1)
    look_every = (container.duration or 0) / av.time_base / LOOKS / time_base
    next_look = 0.0
    try:
        for packet in container.demux():
            if packet.size == 0:
                continue  # PyAV's own marks of the end of each stream
            pts = packet.dts if packet.pts is None else packet.pts
            if pts is not None:
                found.end_s = max(found.end_s, float((pts + (packet.duration or 0)) * (packet.time_base or 1)))
            if packet.stream_index != stream.index:
                continue
            if found.first is None:
                found.look(packet.decode())
                next_look = look_every + (pts or 0)
            elif packet.is_keyframe and (pts is None or pts >= next_look):
                found.look(_decoded(packet))
                next_look += look_every
            if packet.is_discard:
                found.closed = False
                continue  # hidden by an edit list, as in videos cut without encoding them again
            if packet.dts is not None:
                if last_dts is not None and (last_dts - packet.dts) * time_base > RESTART_SECONDS:
                    last, again = float(last_dts * time_base), float(packet.dts * time_base)
                    raise VideoError(
                        f"{path}: its times start again ({again:.2f} s is stored after {last:.2f} s), as in videos "
                        f"that were joined byte by byte; {WRITE_AGAIN}"
                    )
                last_dts = packet.dts
            if packet.is_keyframe:
                key_pts = pts
            elif pts is None or key_pts is None or pts < key_pts:
                found.closed = False  # an open group of pictures: shown before the keyframe that it is stored after
            found.shown.append(_Shown(pts, packet.duration or 0, packet.is_keyframe))
        found.look(stream.decode(None))
    except av.FFmpegError as error:
        where = f"after {len(found.shown)} frames" if found.shown else "at its first frame"
        raise VideoError(
            f"{path}: is damaged {where} ({codec_name(stream)}; {reason(error)}); fetch it again"
        ) from None
    return found


def _decoded(packet: Packet) -> Iterable[object]:
    """A keyframe's pictures; none where it is damaged, which the reader of frames there reports."""
    try:
        return packet.decode()
    except av.FFmpegError:
        return []


def _track(path: Path, container: InputContainer, stream: VideoStream, found: _Contents) -> Track:
    codec, first, shown = codec_name(stream), found.first, found.shown
    if first is None or not shown:
        raise VideoError(f"{path}: holds no decodable {codec} frame; it is damaged or cut short: fetch it again")
    if len(found.pictures) > 1:
        sizes = " and ".join(f"{width}x{height} {pix_fmt}" for width, height, pix_fmt in sorted(found.pictures))
        raise VideoError(f"{path}: its picture changes midway ({sizes}); {WRITE_AGAIN}")
    rotation = _rotation(path, first)

    # ffmpeg makes up display times for AVI, which stores none, and they are wrong for frames stored out of order.
    numbered = "avi" in container.format.name.split(",")
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    time_base = stream.time_base or 1 / rate
    timed = [frame for frame in shown if frame.pts is not None]
    if len(timed) < len(shown):
        if timed:  # a frame whose beginning was cut off with what it refers to; it cannot be decoded
            shown = timed
        else:  # raw streams carry no times: frames follow one another at the nominal rate
            numbered, rate = True, stream.guessed_rate or rate
            shown, time_base = [_Shown(i, 1, frame.key) for i, frame in enumerate(shown)], 1 / rate
    shown = sorted(shown, key=lambda frame: frame.pts or 0)
    pts = [frame.pts or 0 for frame in shown]
    twice = next((time for time, after in pairwise(pts) if time == after), None)
    if twice is not None:
        raise VideoError(
            f"{path}: two of its frames are to be shown at {float(twice * time_base):.3f} s; {WRITE_AGAIN}"
        )
    end = pts[-1] + (shown[-1].duration or (pts[-1] - pts[-2] if len(pts) > 1 else round(1 / (rate * time_base))))
    origin = pts[0]
    if timed and container.start_time is not None:
        origin = round(Fraction(container.start_time, av.time_base) / time_base)
        _check_complete(path, container, stream, float(end * time_base), found.end_s)

    duration = float((end - pts[0]) * time_base)
    width, height = (first.height, first.width) if rotation in (90, 270) else (first.width, first.height)
    fps = len(pts) / duration if duration > 0 else float(rate)
    info = VideoInfo(duration, width, height, fps, codec, len(pts), rotation, first.format.name)
    step = pts[1] - pts[0] if len(pts) > 1 else 0
    steady = found.closed and not numbered and stream.duration == len(pts) * step
    steady = steady and all(p == i * step for i, p in enumerate(pts))
    keyframes = [position for position, frame in enumerate(shown) if frame.key]
    return Track(path, info, stream.index, pts, end, time_base, origin, keyframes, numbered, steady)


def _rotation(path: Path, frame: VideoFrame) -> int:
    """Degrees counter-clockwise, from the display matrix that the container stores with the picture.

    Raises VideoError for no turn by quarters: the backends make different pictures of that.
    """
    stored = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(stored, SideData):
        return 0
    a, b, _, c, d, *_ = struct.unpack("<9i", bytes(stored))
    size = math.hypot(a, b) or 1.0
    for turn, degrees in TURNS.items():
        if all(abs(entry / size - wanted) < SAME_TURN for entry, wanted in zip((a, b, c, d), turn, strict=True)):
            return degrees
    raise VideoError(
        f"{path}: its picture is to be shown turned or mirrored by the matrix [{a} {b}; {c} {d}] / 65536, which is no "
        f"turn by a quarter; {WRITE_AGAIN}"
    )


def _check_complete(path: Path, container: InputContainer, stream: VideoStream, end: float, file_end: float) -> None:
    """Compares the promised length with the packets that are there.

    A container without a length for the picture alone (Matroska) promises one for the longest stream, counted from
    time 0 also where the first picture comes later.
    """
    if stream.duration is not None and stream.time_base is not None:
        promised = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        found = end
    elif container.duration is not None:
        promised = (min(0, container.start_time or 0) + container.duration) / av.time_base
        found = max(end, file_end)
    else:
        return
    if promised - found > max(MISSING_SECONDS, MISSING_SHARE * promised):
        raise VideoError(f"{path}: is cut short, it holds {found:.1f} of {promised:.1f} s; fetch it again")


def codec_name(stream: VideoStream) -> str:
    """ffmpeg's name of the codec."""
    return stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"


def reason(error: Exception) -> str:
    """ffmpeg's own words, without the path and the call they are wrapped in."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
