"""Frames through decord (https://github.com/dmlc/decord), the backend of the published runs."""

import os
import re

import decord

from harness.errors import VideoError
from harness.video.container import Frame, Track, unreadable

decord.logging.set_level(decord.logging.QUIET)  # its warnings about threads and seeking go straight to the terminal


class DecordReader:
    """Reads forward; decord turns rotated pictures upright itself.

    decord's own ways of skipping (skip_frames, get_batch, indexing) seek to a keyframe at a time computed from the mean
    frame rate and count from there, which silently gives wrong frames with variable frame rates, open groups of
    pictures (x265's default), edit lists (videos cut without encoding), rounded times and AVI. It skips only where its
    arithmetic is exact; elsewhere every frame is read and counted.

    A reader does not survive a fork: using it in the child hangs. Open videos after forking, or spawn.
    """

    def __init__(self, track: Track) -> None:
        self._track = track
        self._next = 0
        try:
            self._reader = decord.VideoReader(os.path.abspath(track.path), ctx=decord.cpu(0), num_threads=track.threads)
        except decord.DECORDError as error:
            raise _unreadable(track, "cannot be opened", error) from None

    def frame(self, index: int) -> Frame:
        try:
            if self._track.steady and index > self._next:
                self._reader.skip_frames(index - self._next)
                self._next = index
            while self._next < index:
                self._reader.next()
                self._next += 1
            picture: Frame = self._reader.next().asnumpy()
        except (decord.DECORDError, StopIteration) as error:
            raise _unreadable(self._track, f"cannot be decoded up to frame {index}", error) from None
        self._next = index + 1
        height, width, channels = picture.shape
        if channels != 3:  # rotated pictures narrower than the padding of a row: decord takes the padding for channels
            picture = picture.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)
        return picture

    def close(self) -> None:
        self._reader = None


def _unreadable(track: Track, what: str, error: Exception) -> VideoError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    # Without the time and the place in decord's own source, which may be there twice.
    why = re.sub(r"\[[\d:]+\] \S+\.cc:\d+: ", "", lines[0]) if lines else "no more frames"
    return unreadable(track, "decord", what, why[:160])
