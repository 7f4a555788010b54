"""What is known of a video file before its frames are decoded: the types, and the checks that need no decoder."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.errors import VideoError

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
