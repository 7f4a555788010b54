"""What is in a video file, read once without decoding it (but for the first frame).

One reader of containers for every decoding backend: all of them plan from the same frame times, so they cannot disagree
on which frame is the n-th, on the duration or on the rotation. The whole file is read (as any exact index needs).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from harness.errors import VideoError

# A container may promise a little more than it holds (rounded headers); more than this is a damaged file.
MISSING_SECONDS = 0.5
MISSING_SHARE = 0.01
SMALL_PICTURE = 320 * 240  # pixels


@dataclass(frozen=True)
class VideoInfo:
    """One video file.

    duration_s: seconds from the first frame to the end of the last
    width, height: of the picture as shown, after rotation, in stored pixels (pixel aspect ratio is not applied)
    fps: mean frame rate; codec: ffmpeg's name; n_frames: frames shown
    rotation: degrees counter-clockwise that the stored picture is turned before it is shown: 0, 90, 180, 270
    pix_fmt: ffmpeg's name of the pixel format, such as yuv420p10le
    """

    duration_s: float
    width: int
    height: int
    fps: float
    codec: str
    n_frames: int
    rotation: int
    pix_fmt: str


@dataclass(frozen=True)
class Track:
    """The video stream that ffmpeg would choose, with the time of each frame.

    stream: index in the container
    pts: ascending times of the shown frames, end: when the last one ends, both in time_base units, as in the file
    origin: start of the file in the same units (ffmpeg's time 0)
    keyframes: ascending positions in `pts` of the frames where decoding can start
    numbered: the file lacks display times (AVI, raw streams); a frame is then known by its number, not by its time
    steady: frame i is shown at exactly i / n of the duration and each keyframe starts a closed group of pictures
    """

    path: Path
    info: VideoInfo
    stream: int
    pts: Sequence[int]
    end: int
    time_base: Fraction
    origin: int
    keyframes: Sequence[int]
    numbered: bool
    steady: bool

    @property
    def threads(self) -> int:
        """For the decoder; 0 = as many as it sees fit. Handing small pictures around costs more than decoding."""
        return 1 if self.info.width * self.info.height <= SMALL_PICTURE else 0


def check_file(path: str | Path) -> Path:
    """The path, if a file with at least one byte is there.

    Raises:
        VideoError: missing, a folder, empty or unreadable.
    """
    path = Path(path)
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        raise VideoError(
            f"{path}: no such file; check data.root, or fetch it with `python -m harness prepare`"
        ) from None
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}); check the permissions and data.root") from None
    if path.is_dir():
        raise VideoError(f"{path}: is a folder, not a video file; check the task's data layout")
    if size == 0 and path.is_file():
        raise VideoError(f"{path}: is empty (0 bytes); delete it and fetch it again with `python -m harness prepare`")
    return path


def scan(path: str | Path) -> Track:
    """Reads the container's packets and the first frame.

    Raises:
        VideoError: the file is missing, empty, no video, audio only, truncated, or its first frame cannot be decoded.
    """
    path = check_file(path)
    try:
        container = av.open(os.path.abspath(path))  # a relative name with a colon would be taken for a URL
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path}: is not a readable video ({reason(error)}); it is damaged or cut short: fetch it again"
        ) from None
    with container:
        stream = container.streams.best("video")
        if stream is None:
            kinds = sorted({s.type for s in container.streams}) or ["nothing"]
            raise VideoError(f"{path}: has no video stream, only {', '.join(kinds)}; fetch the right file")
        if stream.disposition & Disposition.attached_pic:
            raise VideoError(f"{path}: has no video, only sound with a cover picture; fetch the right file")
        return _scan_stream(path, container, stream)


def _scan_stream(path: Path, container: InputContainer, stream: VideoStream) -> Track:
    codec = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
    shown: list[tuple[int | None, int, bool]] = []  # pts, duration, is a keyframe
    first, file_end, key_pts, steady = None, 0.0, None, True
    # ffmpeg makes up display times for AVI, which stores none, and they are wrong for frames stored out of order.
    numbered = "avi" in container.format.name.split(",")
    try:
        for packet in container.demux():
            if packet.size == 0:
                continue  # PyAV's own marks of the end of each stream
            pts = packet.dts if packet.pts is None else packet.pts
            if pts is not None:
                file_end = max(file_end, float((pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            if first is None:
                first = next(iter(packet.decode()), None)
            if packet.is_discard:
                steady = False
                continue  # hidden by an edit list, as in videos cut without encoding them again
            if packet.is_keyframe:
                key_pts = pts
            elif pts is None or key_pts is None or pts < key_pts:
                steady = False  # an open group of pictures: shown before the keyframe that it is stored after
            shown.append((pts, packet.duration or 0, packet.is_keyframe))
        if first is None:
            first = next(iter(stream.decode(None)), None)
    except av.FFmpegError as error:
        where = f"after {len(shown)} frames" if shown else "at its first frame"
        raise VideoError(f"{path}: is damaged {where} ({codec}; {reason(error)}); fetch it again") from None
    if first is None or not shown:
        raise VideoError(f"{path}: holds no decodable {codec} frame; it is damaged or cut short: fetch it again")

    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    time_base = stream.time_base
    timed = [frame for frame in shown if frame[0] is not None]
    if len(timed) < len(shown):
        if timed:  # a frame whose beginning was cut off with what it refers to; it cannot be decoded
            shown = timed
        else:  # raw streams carry no times: frames follow one another at the nominal rate
            numbered, rate = True, stream.guessed_rate or rate
            shown, time_base = [(i, 1, key) for i, (_, _, key) in enumerate(shown)], 1 / rate
    order = sorted(range(len(shown)), key=lambda i: shown[i][0])
    pts = [shown[i][0] for i in order]
    end = pts[-1] + (shown[order[-1]][1] or (pts[-1] - pts[-2] if len(pts) > 1 else round(1 / (rate * time_base))))
    origin = pts[0]
    if timed and container.start_time is not None:
        origin = round(Fraction(container.start_time, av.time_base) / time_base)
        _check_complete(path, container, stream, float(end * time_base), file_end)

    rotation = round(first.rotation) % 360
    turned = rotation in (90, 270)
    duration = float((end - pts[0]) * time_base)
    info = VideoInfo(
        duration_s=duration,
        width=first.height if turned else first.width,
        height=first.width if turned else first.height,
        fps=len(pts) / duration if duration > 0 else float(rate),
        codec=codec,
        n_frames=len(pts),
        rotation=rotation,
        pix_fmt=first.format.name,
    )
    step = pts[1] - pts[0] if len(pts) > 1 else 0
    steady = steady and not numbered and stream.duration == len(pts) * step
    steady = steady and all(p == i * step for i, p in enumerate(pts))
    keyframes = [position for position, i in enumerate(order) if shown[i][2]]
    return Track(path, info, stream.index, pts, end, time_base, origin, keyframes, numbered, steady)


def _check_complete(path: Path, container: InputContainer, stream: VideoStream, end: float, file_end: float) -> None:
    """Compares the promised length with the packets that are there.

    A container without a length for the picture alone (Matroska) promises one for the longest stream.
    """
    if stream.duration is not None:
        promised = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        found = end
    elif container.duration is not None:
        promised = ((container.start_time or 0) + container.duration) / av.time_base
        found = max(end, file_end)
    else:
        return
    if promised - found > max(MISSING_SECONDS, MISSING_SHARE * promised):
        raise VideoError(f"{path}: is cut short, it holds {found:.1f} of {promised:.1f} s; fetch it again")


def reason(error: Exception) -> str:
    """ffmpeg's own words, without the path and the call they are wrapped in."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
