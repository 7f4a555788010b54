"""The decoding backends, by name. A backend is used because it was asked for; none replaces another silently."""

import importlib
from pathlib import Path
from typing import Protocol

import numpy as np

from harness.errors import UserError, VideoError
from harness.video.container import Track


class FrameReader(Protocol):
    """Reads frames of one track in ascending order. Used by one thread, the one that opened it.

    Raises on construction: VideoError if the backend cannot open the track.
    """

    def __init__(self, track: Track) -> None: ...

    def frame(self, index: int) -> np.ndarray:
        """Source frame `index` (position in `track.pts`, more than in the call before): uint8 [H, W, 3] RGB, upright.

        Raises:
            VideoError: it cannot be decoded.
        """

    def close(self) -> None: ...


BACKENDS = {
    "decord": "harness.video.read_decord:DecordReader",
    "pyav": "harness.video.read_pyav:PyavReader",
    "torchcodec": "harness.video.read_torchcodec:TorchcodecReader",
}
INSTALL = {"decord": "decord", "pyav": "av", "torchcodec": "torchcodec` and ffmpeg with `apt-get install ffmpeg"}
# Codecs that a backend's own libraries do not know. decord 0.6 ships ffmpeg 4.1, which is older than AV1 decoding.
UNREADABLE = {"decord": {"av1", "vvc"}}


def reader_class(backend: str) -> type[FrameReader]:
    """The reader of that backend.

    Raises:
        UserError: unknown backend, or its package does not work on this machine.
    """
    if backend not in BACKENDS:
        raise UserError(f"video.backend={backend!r} is unknown; allowed: {', '.join(BACKENDS)}")
    module, name = BACKENDS[backend].split(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec raises RuntimeError if it finds no ffmpeg
        why = str(error).strip().splitlines()[0]
        others = " or ".join(f"video.backend={other}" for other in BACKENDS if other != backend)
        raise UserError(
            f"video.backend={backend} does not work here ({why}); install it with `pip install {INSTALL[backend]}`"
            f", or set {others}"
        ) from error


def check_codec(path: Path, codec: str, backend: str) -> None:
    """Raises VideoError if the backend cannot decode the codec, and names the ones that can."""
    if codec in UNREADABLE.get(backend, ()):
        able = [f"video.backend={other}" for other in BACKENDS if codec not in UNREADABLE.get(other, ())]
        raise VideoError(f"{path}: codec {codec} cannot be decoded by {backend}; set {' or '.join(able)}")
