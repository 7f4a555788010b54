"""What each layer kept of every token of a video, and when chunks and grids are in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy as np

    from harness.compress.trace import Trace
    from harness.models.features import VideoFeatures


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


@dataclass(frozen=True)
class Kept:
    """L layers, K chunks, G grids of rows x columns tokens, V = G * rows * columns.

    Attributes:
        layers: share of a layer's heads that keep each token [L, V].
        shape: (G, rows, columns).
        ends: [K + 1] tokens at which chunks begin, and V.
    """

    layers: np.ndarray
    shape: tuple[int, int, int]
    ends: tuple[int, ...]

    @property
    def share(self) -> np.ndarray:
        """Of all layers, those that keep each token [G, rows, columns]."""
        share: np.ndarray = self.layers.mean(0).reshape(self.shape)
        return share

    @property
    def of_chunks(self) -> np.ndarray:
        """Share of each chunk that each layer keeps [L, K]."""
        parts = [self.layers[:, start:stop].mean(1) for start, stop in zip(self.ends, self.ends[1:], strict=False)]
        return np.stack(parts, axis=1)


def kept_of(trace: Trace, features: VideoFeatures) -> Kept | None:
    """What an answer's cache held of the video when the question came; None where the method did not record it, or
    chose among frames before they were tokens.

    Raises:
        ValueError: the trace has no recording.
    """
    if (recording := trace.recording) is None:
        raise ValueError("the answer was generated without record=True, so nobody knows which tokens were kept")
    grids, height, width = features.grid
    merge = math.isqrt(height * width // features.tokens_per_grid)
    total, entered = grids * features.tokens_per_grid, recording.entered
    n = total if entered is None else len(entered)
    chosen = entered is not None or any(layers is not None for layers in recording.kept_indices)
    if sum(trace.chunk_lengths) != n or (trace.compressed and not chosen):
        return None
    n_layers = len(trace.cache_length)
    held = np.zeros((n_layers, n), np.float32)
    ends = np.concatenate([[0], np.cumsum(trace.chunk_lengths)]).astype(int)
    for start, length, rows in zip(ends, trace.chunk_lengths, recording.kept_indices, strict=False):
        if rows is None:
            held[:, start : start + length] = 1
            continue
        counts = np.stack([np.bincount(row.numpy(), minlength=length)[:length] for row in rows]).clip(0, 1)
        if len(rows) < n_layers:  # one choice for all layers
            counts = np.repeat(counts, n_layers // len(rows), axis=0)
        held[:, start : start + length] = counts.reshape(n_layers, -1, length).mean(1)
    if entered is not None:
        places = entered.numpy()
        whole = np.zeros((n_layers, total), np.float32)
        whole[:, places] = held
        held, ends = whole, np.append(places, total)[ends]
        ends[0] = 0
    return Kept(held, (grids, height // merge, width // merge), tuple(ends.tolist()))


@dataclass(frozen=True)
class Timeline:
    """When things are in the video, in seconds: K chunks, G grids."""

    edges: list[float]  # [K + 1] where chunks begin, and the end
    grids: list[float]  # [G] where grids begin

    @classmethod
    def of(cls, ends: Sequence[int], tokens_per_grid: int, grid_times: Sequence[float]) -> Timeline:
        """Args: ends as in `Kept`; grid_times [G + 1], the last one the end of the video. A chunk may end in a grid."""
        edges = np.interp(np.array(ends) / tokens_per_grid, np.arange(len(grid_times)), grid_times)
        return cls(edges.tolist(), list(grid_times[:-1]))


def chunk_ends(lengths: Sequence[int]) -> list[int]:
    """[K + 1] tokens at which chunks [K] begin, and their sum."""
    return [0, *np.cumsum(lengths).tolist()]


def video_clock(seconds: float) -> str:
    """``1:05`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def choose_grids(share: np.ndarray, held: Sequence[int], count: int) -> list[int]:
    """Of `count` equal stretches of the video, the grid with most kept tokens among those whose frame is held."""
    stretches = np.array_split(np.array(sorted(held)), min(count, len(held)))
    total = share.sum(axis=(1, 2))
    return [int(stretch[total[stretch].argmax()]) for stretch in stretches]
