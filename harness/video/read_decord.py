"""Frames through decord (https://github.com/dmlc/decord), the backend of the published runs."""

import decord
import numpy as np

from harness.errors import VideoError
from harness.video.container import Track

decord.logging.set_level(decord.logging.QUIET)  # its warnings about threads and seeking go straight to the terminal


class DecordReader:
    """Reads forward with skip and next; decord turns rotated pictures upright itself.

    decord's own seeking is not used: it counts frames of the file where edit lists and open groups of pictures make
    decoded frames differ from them.
    """

    def __init__(self, track: Track) -> None:
        self._track = track
        self._next = 0
        try:
            self._reader = decord.VideoReader(str(track.path), ctx=decord.cpu(0))
        except decord.DECORDError as error:
            raise VideoError(self._message("cannot be opened", error)) from None

    def frame(self, index: int) -> np.ndarray:
        try:
            if index > self._next:
                self._reader.skip_frames(index - self._next)
            array = self._reader.next().asnumpy()
        except (decord.DECORDError, StopIteration) as error:
            raise VideoError(self._message(f"is damaged or cut short near frame {index}", error)) from None
        self._next = index + 1
        return array

    def close(self) -> None:
        self._reader = None

    def _message(self, what: str, error: Exception) -> str:
        track = self._track
        lines = [line for line in str(error).splitlines() if line.strip()]
        why = lines[0].split("Check failed: ")[-1] if lines else type(error).__name__
        return (
            f"{track.path}: {what} of {track.info.n_frames} ({track.info.codec}, decord: {why}); "
            "fetch it again, or try video.backend=pyav"
        )
