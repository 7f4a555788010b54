"""Control: fewer frames instead of fewer tokens. As many steps of time as fit the context, evenly spread and whole."""

from __future__ import annotations

from dataclasses import dataclass

from harness.compress.method import Candidates, Method
from harness.compress.prefill import Prefill
from harness.errors import QuestionError
from harness.late import torch


@dataclass(frozen=True)
class UniformFrames(Method):
    """The model never sees the other frames: those that are left are paired and encoded by themselves, and only they
    count as encoded. Less than one grid of the context stays empty.
    """

    @property
    def needs_frames(self) -> bool:
        return True

    @property
    def needs_features(self) -> bool:
        return False

    def select_frames(self, candidates: Candidates) -> torch.Tensor | None:
        grids, room = len(candidates.features), candidates.room
        if room is None or not 1 <= room < grids:
            return None
        assert candidates.frames is not None
        return middles(room * candidates.frames_per_grid, len(candidates.frames))

    def begin(self, run: Prefill) -> None:
        prompt = run.prompt
        if prompt.over_context:
            raise QuestionError(
                f"context={prompt.context} has no room for one grid of {prompt.grid_lengths[0]} tokens beside the "
                f"{prompt.n_text} of the text: use a context of at least {prompt.n_text + prompt.grid_lengths[0]}"
            )


def middles(count: int, length: int) -> torch.Tensor:
    """The middle of each of `count` equal parts of `length` frames [count], ascending."""
    return (2 * torch.arange(count) + 1) * length // (2 * count)


METHOD = UniformFrames
