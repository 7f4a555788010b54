"""Settings of sampling and decoding. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from harness.setting import setting

PUBLISHED = "decord"
"""The reader of the published runs. It has no package for some machines, Apple's processors among them."""
DEFAULT = PUBLISHED if find_spec("decord") else "pyav"
"""The reader where none is asked for; each cell records its own, so answers of two readers do not mix."""


@dataclass
class VideoConfig:
    """Which frames a model sees, and how they are decoded.

    ``fps`` and ``max_frames`` cap each other. ``sampler`` says by whose rule frames are chosen and scaled: that of the
    release, or lmms-eval's stock one, which has ``min_pixels`` and ``max_pixels`` in place of ``even``, ``grid_fps``,
    ``long_side`` and ``resample``. ``window`` is the number of frames decoded and encoded at a time, ``timeout_s`` the
    longest that decoding one video may take.
    """

    fps: float = setting(2.0, above=0, most=240)
    max_frames: int = setting(least=2, most=100_000)
    even: bool = True
    grid_fps: float = setting(25.0, above=0, most=1000)
    long_side: int | None = setting(448, least=28, most=8192)
    resample: str = setting("nearest", words=("nearest",))
    sampler: str = setting("release", words=("release", "stock"), neutral="release")
    min_pixels: int | None = setting(None, least=784, most=100_000_000, neutral=None)
    max_pixels: int | None = setting(None, least=784, most=100_000_000, neutral=None)
    backend: str = setting(DEFAULT, words=("decord", "pyav", "torchcodec"))
    window: int = setting(128, least=1, most=100_000, runtime=True)
    timeout_s: float = setting(1800.0, above=0, most=1e6, runtime=True)
