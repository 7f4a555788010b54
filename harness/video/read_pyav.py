"""Frames through PyAV (https://pyav.basswood-io.com), which carries its own recent ffmpeg."""

import bisect
import os

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from harness.video.container import Frame, Track, unreadable
from harness.video.scan import MISSING_SECONDS, reason

# Decoding this many frames costs less than a seek, which empties the decoder's pipeline.
SEEK_BEYOND = 32


class PyavReader:
    """Reads forward and matches frames by their time; jumps over groups of pictures from which no frame is wanted."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self._shown: av.VideoFrame | None = None
        self._shown_pts = -1
        self._ahead: av.VideoFrame | None = None
        self._count = 0
        self._reformatter = VideoReformatter()
        try:
            self._container = av.open(os.path.abspath(track.path))
            self._stream = next(s for s in self._container.streams.video if s.index == track.stream)
            self._stream.thread_type = "AUTO"
            self._stream.thread_count = track.threads
            self._frames = self._container.decode(self._stream)
        except (av.FFmpegError, OSError) as error:
            raise unreadable(track, "pyav", "cannot be opened", reason(error)) from None

    def frame(self, index: int) -> Frame:
        track, damaged = self._track, f"is damaged near frame {index}"
        try:
            self._advance(index)
        except av.FFmpegError as error:
            raise unreadable(track, "pyav", damaged, reason(error)) from None
        if self._shown is None or track.pts[index] - self._shown_pts > MISSING_SECONDS / track.time_base:
            raise unreadable(track, "pyav", damaged, "frames are missing")
        picture = self._rgb(self._shown)
        return np.rot90(picture, track.info.rotation // 90) if track.info.rotation else picture

    def close(self) -> None:
        self._container.close()

    def _advance(self, index: int) -> None:
        """Decodes until the frame shown at that index; if the decoder drops it, until the one before it."""
        wanted = self._track.pts[index]
        self._jump(index)
        while self._shown is None or self._shown_pts < wanted:
            frame = self._ahead or next(self._frames, None)
            self._ahead = None
            if frame is None:
                return
            pts = self._pts(frame)
            if pts is None:
                continue  # the container scan left it out as well
            if pts > wanted and self._shown is not None:
                self._ahead = frame
                return
            self._shown, self._shown_pts = frame, pts

    def _jump(self, index: int) -> None:
        track = self._track
        if track.numbered:
            return  # without times a frame is known by its count alone
        here = bisect.bisect_right(track.pts, self._shown_pts) if self._shown is not None else 0
        keyframe = bisect.bisect_right(track.keyframes, index) - 1
        if keyframe >= 0 and track.keyframes[keyframe] - here > SEEK_BEYOND:
            self._container.seek(track.pts[track.keyframes[keyframe]], stream=self._stream, backward=True)
            self._frames = self._container.decode(self._stream)
            self._shown = self._ahead = None

    def _pts(self, frame: av.VideoFrame) -> int | None:
        if not self._track.numbered:
            return frame.pts
        self._count += 1
        return self._track.pts[min(self._count, len(self._track.pts)) - 1]

    def _rgb(self, frame: av.VideoFrame) -> Frame:
        """By the frame's own matrix and range; PyAV alone takes ITU-R 601 and the limited range for all."""
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        rgb = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=int(frame.colorspace),
            dst_colorspace=Colorspace.ITU601,  # without effect on RGB
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        )
        return rgb.to_ndarray().astype(np.uint8, copy=False)
