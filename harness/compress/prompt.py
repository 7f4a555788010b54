"""What a prompt with one video looks like, and how it is cut into the segments that pass the model one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.errors import UserError
from harness.late import torch


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of a prompt that pass the model together.

    Attributes:
        tokens: where they are in the prompt.
        video: which of the video's tokens are among them; empty for text.
        chunk: the number of the chunk; `None` for text.
    """

    tokens: slice
    video: slice
    chunk: int | None = None

    @property
    def length(self) -> int:
        """Tokens, text between grids included."""
        return int(self.tokens.stop - self.tokens.start)

    @property
    def n_video(self) -> int:
        """Tokens of the video."""
        return int(self.video.stop - self.video.start)


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt with one video: text, video tokens in one run or in several with text between, and text.

    Notation: N tokens of the prompt, V of them the video's, G grids, r rows of position ids.

    Attributes:
        input_ids: [N] on the host, a placeholder for every video token.
        positions: ids [r, N] on the host; r = 3 (temporal, height, width) or 1.
        video: [V] ascending, which of the prompt's tokens are the video's.
        grid_lengths: tokens of each grid [G]; they add up to V.
        frames_per_grid: frames that share one grid of tokens (1 in families without temporal merging).
        context: C, tokens per layer that may stay in the cache; `None` = no limit.
        evidence: grids that show what is asked about, where the benchmark says so; only for methods that serve as a
            bound.
        attention: what each video token got in the vision tower [V]; `None` where nobody asked for it.
        text_of_video: tokens of text in front of the first grid that are its own, such as its time, and behind the last
            one; the text between two grids begins with as many as the latter, and the rest is of the grid behind it.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    video: torch.Tensor
    grid_lengths: tuple[int, ...]
    frames_per_grid: int = 2
    context: int | None = None
    evidence: tuple[int, ...] = ()
    attention: torch.Tensor | None = None
    text_of_video: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.context is not None and self.context < 1:
            raise UserError(f"context={self.context} is not a budget: use 1 or more tokens, for example context=16k")
        if sum(self.grid_lengths) != len(self.video):
            raise ValueError(f"{len(self.video)} video tokens for grids of {sum(self.grid_lengths)}")
        if self.positions.shape[1] != len(self.input_ids):
            raise ValueError(f"{len(self.input_ids)} tokens for {self.positions.shape[1]} positions")

    @cached_property
    def n_prompt(self) -> int:
        """N."""
        return len(self.input_ids)

    @cached_property
    def n_video(self) -> int:
        """V."""
        return len(self.video)

    @cached_property
    def n_text(self) -> int:
        """Tokens that are not the video's; they are never evicted."""
        return self.n_prompt - self.n_video

    @cached_property
    def video_start(self) -> int:
        """Tokens in front of the first video token."""
        return int(self.video[0]) if self.n_video else 0

    @cached_property
    def video_stop(self) -> int:
        """The token behind the last video token: where the last text begins."""
        return int(self.video[-1]) + 1 if self.n_video else 0

    @property
    def n_grids(self) -> int:
        """G."""
        return len(self.grid_lengths)

    @property
    def over_context(self) -> bool:
        """Whether the prompt does not fit, so that a method has to compress."""
        return self.context is not None and self.n_prompt > self.context

    def guide(self, max_length: int | None) -> slice:
        """The prompt tokens that score a chunk: the text after the video, or its last `max_length` tokens."""
        after = self.n_prompt - self.video_stop
        return slice(self.n_prompt - (after if max_length is None else min(max_length, after)), self.n_prompt)

    def keep_video(self, kept: torch.Tensor, positions: torch.Tensor | None = None) -> Prompt:
        """The prompt without the video tokens that are not in `kept` [k] (ascending).

        The others keep their ids, where they are not given others: `positions` [r, N - V + k].
        """
        kept = kept.cpu()
        grid_of = torch.repeat_interleave(torch.arange(self.n_grids), torch.tensor(self.grid_lengths))
        stays = torch.ones(self.n_prompt, dtype=torch.bool)
        stays[self.video] = False
        stays[self.video[kept]] = True
        return dataclasses.replace(
            self,
            input_ids=self.input_ids[stays],
            positions=self.positions[:, stays] if positions is None else positions,
            video=stays.cumsum(0)[self.video[kept]] - 1,
            grid_lengths=tuple(torch.bincount(grid_of[kept], minlength=self.n_grids).tolist()),
            attention=None if self.attention is None else self.attention[kept],
        )

    def segments(self, lengths: Sequence[int]) -> list[Segment]:
        """Text in front, one segment per chunk of so many video tokens, and the text behind.

        A chunk ends with its last video token; text between two grids belongs to the chunk of the grid behind it.

        Raises:
            ValueError: the lengths are not those of the video.
        """
        if sum(lengths) != self.n_video:
            raise ValueError(f"chunks of {list(lengths)} tokens do not make up a video of {self.n_video}")
        first, seen = self.video_start, 0
        found = [Segment(slice(0, first), slice(0, 0))] if first else []
        for chunk, length in enumerate(lengths):
            stop = int(self.video[seen + length - 1]) + 1
            found.append(Segment(slice(first, stop), slice(seen, seen + length), chunk))
            first, seen = stop, seen + length
        if first < self.n_prompt:
            found.append(Segment(slice(first, self.n_prompt), slice(seen, seen)))
        return found


def cut(total: int, size: int) -> list[int]:
    """`total` tokens in pieces of `size`, the last one with what is left."""
    whole, rest = divmod(total, size)
    return [size] * whole + ([rest] if rest else [])


def whole_grids(prompt: Prompt, chunk_frames: int) -> list[int]:
    """Chunk lengths in video tokens: `chunk_frames` frames each, the last one with what is left."""
    grids = max(1, chunk_frames // prompt.frames_per_grid)
    lengths = [sum(prompt.grid_lengths[i : i + grids]) for i in range(0, prompt.n_grids, grids)]
    return [length for length in lengths if length]
