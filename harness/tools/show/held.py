"""Frames that are held back for a picture while a video passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SHOWN = 256
"""Most frames that are held back for the picture, spread over the video."""


class HeldFrames:
    """Passes windows of frames on, and holds some of them back for the picture.

    Attributes:
        frames: number of the grid -> its first frame, uint8 [H, W, 3]; about `SHOWN` of them once all have passed.
    """

    def __init__(self, windows: Iterable[np.ndarray], n_frames: int, frames_per_grid: int) -> None:
        self._windows = windows
        self._stride = frames_per_grid * max(1, -(-n_frames // (SHOWN * frames_per_grid)))
        self._frames_per_grid = frames_per_grid
        self.frames: dict[int, Any] = {}

    def __iter__(self) -> Iterator[np.ndarray]:
        start = 0
        for window in self._windows:
            for number in range(-start % self._stride, len(window), self._stride):
                self.frames[(start + number) // self._frames_per_grid] = window[number].copy()
            start += len(window)
            yield window
