"""What is known of a video file before its frames are decoded: the types, and the checks that need no decoder."""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol, cast

import av
import numpy as np
import numpy.typing as npt

from harness.advice import install
from harness.errors import UserError, VideoError

SMALL_PICTURE = 320 * 240  # pixels
Frame = npt.NDArray[np.uint8]
"""A picture [H, W, 3], or several [n, H, W, 3], RGB."""


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
    """The path of a file with at least one byte; VideoError where it is missing, a folder, empty or unreadable."""
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


class FrameReader(Protocol):
    """Reads frames of one track in ascending order, in the thread that opened it. Both may raise `unreadable`."""

    def __init__(self, track: Track) -> None: ...

    def frame(self, index: int) -> Frame:
        """Source frame `index` (position in `track.pts`, ascending from call to call): uint8 [H, W, 3] RGB, upright."""

    def close(self) -> None: ...


def unreadable(track: Track, backend: str, what: str, why: str) -> VideoError:
    """The error for a track that a backend cannot read: what is wrong, and the backend's own words."""
    other = "" if backend == "pyav" else ", or try video.backend=pyav"
    held = f"{track.info.n_frames} {track.info.codec} frames"
    return VideoError(f"{track.path}: {what} ({held}, {backend}: {why}); fetch it again{other}")


BACKENDS = {
    "decord": "harness.video.read_decord:DecordReader",
    "pyav": "harness.video.read_pyav:PyavReader",
    "torchcodec": "harness.video.read_torchcodec:TorchcodecReader",
}
# Codecs that a backend's own libraries do not know. decord 0.6 ships ffmpeg 4.1, which is older than AV1 decoding.
UNKNOWN_CODECS = {"decord": {"av1", "vvc"}}


def reader_class(backend: str) -> type[FrameReader]:
    """The reader of that backend; UserError where the backend is unknown, or does not work on this machine."""
    if backend not in BACKENDS:
        raise UserError(f"video.backend={backend!r} is unknown; allowed: {', '.join(BACKENDS)}")
    module, name = BACKENDS[backend].split(":")
    try:
        return cast(type[FrameReader], getattr(importlib.import_module(module), name))
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec raises RuntimeError if it finds no ffmpeg
        why = str(error).strip().splitlines()[0]
        package = "av" if backend == "pyav" else backend
        others = " or ".join(f"video.backend={other}" for other in BACKENDS if other != backend)
        raise UserError(
            f"video.backend={backend} does not work here ({why}); install it with `{install(package)}`"
            f"{' and ffmpeg with `apt-get install ffmpeg`' * (backend == 'torchcodec')}, or set {others}"
        ) from error


def check_format(path: Path, info: VideoInfo, backend: str) -> None:
    """Raises VideoError if the backend cannot decode the video as the others do, and names the ones that can.

    Each backend turns the stored colours into RGB by its own libraries. All give the same for 8-bit video with whole or
    halved chroma. For other video all backends are refused, or the only one that differs.
    """
    reasons = {other: _why_not(info, other) for other in BACKENDS}
    able = " or ".join(f"video.backend={other}" for other, reason in reasons.items() if not reason)
    advice = f"set {able}" if able else "write it again with 8 bits per colour: `ffmpeg -i FILE -pix_fmt yuv420p NEW`"
    if reasons[backend]:
        raise VideoError(f"{path}: {reasons[backend]}; {advice}")


def _why_not(info: VideoInfo, backend: str) -> str | None:
    if info.codec in UNKNOWN_CODECS.get(backend, ()):
        return f"codec {info.codec} cannot be decoded by {backend}"
    stored = av.VideoFormat(info.pix_fmt)
    bits = max(component.bits for component in stored.components)
    deep_quarter_chroma = bits > 8 and stored.chroma_height(2) == 1
    if bits > 8 and len(stored.components) == 1:
        return f"{info.pix_fmt} (gray of {bits} bits) is decoded differently by every backend"
    if backend == "torchcodec" and (deep_quarter_chroma or stored.chroma_width(4) == 1):
        return f"torchcodec makes other colours of {info.pix_fmt} than decord and pyav"
    return None
