"""Frames through torchcodec (https://meta-pytorch.org/torchcodec), which uses the machine's own ffmpeg."""

import os

from torchcodec.decoders import VideoDecoder

from harness.errors import VideoError
from harness.video.container import Frame, Track, unreadable

# Well below one frame, well above the rounding of times to floats.
SAME_TIME_S = 0.002


class TorchcodecReader:
    """Reads by frame number from torchcodec's exact index; torchcodec turns rotated pictures upright itself."""

    def __init__(self, track: Track) -> None:
        self._track = track
        if track.numbered:
            raise _unreadable(track, "has no display times for its frames", "counts them differently")
        try:
            self._decoder = VideoDecoder(
                os.path.abspath(track.path),
                stream_index=track.stream,
                dimension_order="NHWC",
                num_ffmpeg_threads=track.threads,
                seek_mode="exact",
            )
        except (RuntimeError, ValueError) as error:
            raise _unreadable(track, "cannot be opened", str(error)) from None

    def frame(self, index: int) -> Frame:
        track = self._track
        try:
            frame = self._decoder.get_frame_at(index)
        except (RuntimeError, IndexError) as error:
            raise _unreadable(track, f"is damaged near frame {index}", str(error)) from None
        wanted = float(track.pts[index] * track.time_base)
        if abs(frame.pts_seconds - wanted) > SAME_TIME_S:
            why = f"it gives the picture of {frame.pts_seconds:.3f} s for the one of {wanted:.3f} s"
            raise _unreadable(track, f"has frames that cannot be decoded near frame {index}", why)
        picture: Frame = frame.data.numpy()
        return picture

    def close(self) -> None:
        self._decoder = None


def _unreadable(track: Track, what: str, why: str) -> VideoError:
    why = why.strip().splitlines()[0] if why.strip() else "no reason given"
    why = why.rsplit(".cpp:", 1)[-1].split(", ", 1)[-1]  # without the place in torchcodec's own source
    return unreadable(track, "torchcodec", what, why)
