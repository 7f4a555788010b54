"""What a prompt with one video looks like, and how the video is cut into chunks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from harness.errors import UserError


@dataclass(frozen=True)
class Layout:
    """One prompt: `pre` text tokens, then V video tokens, then `post` text tokens.

    Notation: N tokens of the prompt, V video tokens, n tokens of one grid, G grids, r rows of position ids.
    """

    positions: torch.Tensor  # [r, N], on the host; r = 3 (temporal, height, width) or 1
    video: slice  # the V video tokens within the prompt
    tokens_per_grid: int  # n
    frames_per_grid: int = 2  # frames that share one grid of tokens (1 in families without temporal merging)
    context: int | None = None  # C, tokens per layer that may stay in the cache; None = no limit

    def __post_init__(self) -> None:
        if self.n_video % self.tokens_per_grid:
            raise ValueError(f"{self.n_video} video tokens are not whole grids of {self.tokens_per_grid}")
        if self.context is not None and self.context < 1:
            raise UserError(f"context={self.context} is not a budget: use 1 or more tokens, for example context=16k")

    @property
    def n_prompt(self) -> int:
        return self.positions.shape[1]

    @property
    def n_video(self) -> int:
        return self.video.stop - self.video.start

    @property
    def n_pre(self) -> int:
        return self.video.start

    @property
    def n_post(self) -> int:
        return self.n_prompt - self.video.stop

    @property
    def n_grids(self) -> int:
        return self.n_video // self.tokens_per_grid

    @property
    def over_context(self) -> bool:
        """Whether the prompt does not fit, so that a method has to compress."""
        return self.context is not None and self.n_prompt > self.context

    def guide(self, max_length: int | None) -> slice:
        """The prompt tokens that score a chunk: the text after the video, or its last `max_length` tokens."""
        length = self.n_post if max_length is None else min(max_length, self.n_post)
        return slice(self.n_prompt - length, self.n_prompt)


def _cut(total: int, size: int) -> list[int]:
    whole, rest = divmod(total, size)
    return [size] * whole + ([rest] if rest else [])


def whole_grids(layout: Layout, chunk_frames: int) -> list[int]:
    """Chunk lengths in tokens: `chunk_frames` frames each, the last one with what is left."""
    grids = max(1, chunk_frames // layout.frames_per_grid)
    return _cut(layout.n_video, grids * layout.tokens_per_grid)


def half_of_a_short_video(layout: Layout, chunk_frames: int) -> list[int]:
    """Chunk lengths in tokens as both releases cut: frames are compared with grids before halving.

    A video of fewer grids than `chunk_frames` is therefore cut into chunks of half its length, not in chunks of
    `chunk_frames` frames, and a chunk may end inside a grid.
    """
    size = min(chunk_frames, layout.n_grids) * layout.tokens_per_grid // layout.frames_per_grid
    return _cut(layout.n_video, max(1, size))
