"""The decoding backends, by name. A backend is used because it was asked for; none replaces another silently."""

import importlib
from pathlib import Path
from typing import Protocol, cast

import av

from harness.advice import install
from harness.errors import UserError, VideoError
from harness.video.container import Frame, Track, VideoInfo


class FrameReader(Protocol):
    """Reads frames of one track in ascending order. Used by one thread, the one that opened it.

    Raises on construction: VideoError if the backend cannot open the track.
    """

    def __init__(self, track: Track) -> None: ...

    def frame(self, index: int) -> Frame:
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
PACKAGES = {"decord": "decord", "pyav": "av", "torchcodec": "torchcodec"}
# Codecs that a backend's own libraries do not know. decord 0.6 ships ffmpeg 4.1, which is older than AV1 decoding.
UNKNOWN_CODECS = {"decord": {"av1", "vvc"}}


def reader_class(backend: str) -> type[FrameReader]:
    """The reader of that backend.

    Raises:
        UserError: unknown backend, or its package does not work on this machine.
    """
    if backend not in BACKENDS:
        raise UserError(f"video.backend={backend!r} is unknown; allowed: {', '.join(BACKENDS)}")
    module, name = BACKENDS[backend].split(":")
    try:
        return cast(type[FrameReader], getattr(importlib.import_module(module), name))
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec raises RuntimeError if it finds no ffmpeg
        why = str(error).strip().splitlines()[0]
        others = " or ".join(f"video.backend={other}" for other in BACKENDS if other != backend)
        raise UserError(
            f"video.backend={backend} does not work here ({why}); install it with `{install(PACKAGES[backend])}`"
            f"{' and ffmpeg with `apt-get install ffmpeg`' * (backend == 'torchcodec')}, or set {others}"
        ) from error


def check_format(path: Path, info: VideoInfo, backend: str) -> None:
    """Raises VideoError if the backend cannot decode the video as the others do, and names the ones that can.

    Each backend turns the stored colours into RGB by its own libraries. All give the same for 8-bit video with whole or
    halved chroma; where they were found to differ beyond that, all or the one that stands alone are refused.
    """
    able = [other for other in BACKENDS if not _why_not(info, other)]
    if backend in able:
        return
    advice = "set " + " or ".join(f"video.backend={other}" for other in able)
    if not able:
        advice = "write it again with 8 bits per colour: `ffmpeg -i FILE -pix_fmt yuv420p NEW`"
    raise VideoError(f"{path}: {_why_not(info, backend)}; {advice}")


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
