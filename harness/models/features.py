"""A video as the vision tower left it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.late import torch

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class VideoFeatures:
    """A video as it enters the language model. V tokens, n per grid, hidden size d.

    Attributes:
        features: [V, d] in host memory (pinned when the model is on CUDA).
        grid: grids, height, width in patches before merging.
        tokens_per_grid: n.
        second_per_grid: seconds between two grids.
        deepstack: more features, each [V, d], that some families add behind their first layers.
        frames: the pixels uint8 [T, H, W, 3], where they were kept for methods that choose among them.
        seconds: when each grid is shown [grids], where it is not as `second_per_grid` says.
        attention: that each token got in the tower [V], in host memory, where it was kept for methods that need it.
        memo: what has been computed from the features alone, kept for the next question.
    """

    features: torch.Tensor
    grid: tuple[int, int, int]
    tokens_per_grid: int
    second_per_grid: float
    deepstack: tuple[torch.Tensor, ...] = ()
    frames: np.ndarray | None = None
    seconds: tuple[float, ...] | None = None
    attention: torch.Tensor | None = None
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def grids_at(self, spans: Sequence[tuple[float, float]]) -> tuple[int, ...]:
        """The grids that show some spans of time (from, to), in seconds from the start of the video."""
        step = self.second_per_grid
        return tuple(
            grid
            for grid in range(self.grid[0])
            if any(start < (grid + 1) * step and stop >= grid * step for start, stop in spans)
        )

    def grid_seconds(self, frames_per_grid: int) -> tuple[float, ...]:
        """When each grid is shown, the mean of its frames, in seconds; the first frame at 0 where nothing is said."""
        if self.seconds is not None:
            return self.seconds
        middle = self.second_per_grid * (frames_per_grid - 1) / (2 * frames_per_grid)
        return tuple(grid * self.second_per_grid + middle for grid in range(self.grid[0]))

    def seconds_of(self, frames: torch.Tensor, frames_per_grid: int) -> tuple[float, ...]:
        """When grids are shown that some frames [k] of this video make, the last one repeated if need be."""
        times = frames.double() * self.second_per_grid / frames_per_grid
        if missing := -len(times) % frames_per_grid:
            times = torch.cat((times, times[-1:].repeat(missing)))
        return tuple(times.view(-1, frames_per_grid).mean(1).tolist())

    def with_odd_end(self, n_frames: int, frames_per_grid: int) -> VideoFeatures:
        """This video of so many frames, the last of which is shown again where it alone is left for the last grid."""
        if not n_frames % frames_per_grid:
            return self
        return replace(self, seconds=self.seconds_of(torch.arange(n_frames), frames_per_grid))

    def of_grids(self, grids: torch.Tensor, second_per_grid: float) -> VideoFeatures:
        """A video of some grids [k] of this one; nothing that was computed from all of them comes along."""
        n = self.tokens_per_grid
        tokens = (grids[:, None] * n + torch.arange(n)).flatten()
        deepstack = tuple(tensor[tokens] for tensor in self.deepstack)
        attention = None if self.attention is None else self.attention[tokens]
        shape = (len(grids), *self.grid[1:])
        return VideoFeatures(self.features[tokens], shape, n, second_per_grid, deepstack, attention=attention)


def whole_grids_of(frames: torch.Tensor, frames_per_grid: int) -> torch.Tensor | None:
    """The grids [k] that some frames [k * frames_per_grid] make up; `None` where they tear one apart."""
    if len(frames) % frames_per_grid:
        return None
    grids = frames[::frames_per_grid] // frames_per_grid
    whole = (grids[:, None] * frames_per_grid + torch.arange(frames_per_grid)).flatten()
    return grids if torch.equal(whole, frames) else None


def host_buffer(tokens: int, like: torch.Tensor) -> torch.Tensor:
    """An empty [tokens, d] tensor in host memory, pinned where `like` [., d] is on CUDA."""
    return torch.empty(tokens, like.shape[-1], dtype=like.dtype, pin_memory=like.device.type == "cuda")
