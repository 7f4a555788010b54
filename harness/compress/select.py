"""Choosing frames by what is asked, before the model sees any of them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.method import Candidates
from harness.compress.prefill import Prefill
from harness.compress.quirks import WithQuirks
from harness.compress.relevance import FEATURES, ImageTextModel, by_features, question_alone
from harness.errors import QuestionError
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class FrameSelector(WithQuirks):
    """Shows the model some of the sampled frames, as a video of its own, evenly spaced as far as it can tell.

    With scores by a model of images and texts every frame is a candidate, and those chosen are encoded by themselves.
    With scores by the model's own features candidates are whole grids, and all frames count as encoded.

    Attributes:
        relevance: what scores the frames: folder or hub id of a CLIP or BLIP checkpoint, or `features`.
        frames: how many are shown; `None` = as many as fit the context, in whole grids.
    """

    sees_question: ClassVar[bool] = True
    reusable: ClassVar[bool] = False
    relevance: str = FEATURES
    frames: int | None = setting(None, least=1)

    @property
    def needs_frames(self) -> bool:
        return self.relevance != FEATURES

    @property
    def needs_features(self) -> bool:
        return self.relevance == FEATURES

    @abstractmethod
    def choose(self, scores: torch.Tensor, count: int) -> torch.Tensor:
        """Which of the candidates [c] with these scores are shown [m] ascending; m is `count` but for quirks."""

    def select_frames(self, candidates: Candidates) -> torch.Tensor | None:
        together = candidates.frames_per_grid if self.needs_features else 1
        if self.frames is not None:
            count = self.frames // together
        elif candidates.room is not None:
            count = candidates.room * candidates.frames_per_grid // together
        else:
            return None
        total = len(candidates.features) if candidates.frames is None or self.needs_features else len(candidates.frames)
        if not 1 <= count < total:
            return None
        chosen = self.choose(self.scores(candidates), count)
        if not len(chosen):
            raise QuestionError(
                f"of {count} frames the code of {self.name} shows none: ask for more, or set method.quirks={{}}"
            )
        return (chosen[:, None] * together + torch.arange(together)).flatten()

    def scores(self, candidates: Candidates) -> torch.Tensor:
        """One score [c] per candidate, float64; higher = more to do with the question."""
        if self.needs_features:
            return by_features(candidates)
        judge = candidates.judges.get(self.relevance)
        if judge is None:
            judge = candidates.judges[self.relevance] = ImageTextModel(self.relevance, candidates.device)
        assert candidates.frames is not None
        return judge.scores(candidates.frames, question_alone(candidates.question), candidates.memo)

    def begin(self, run: Prefill) -> None:
        prompt = run.prompt
        if self.frames is None and prompt.over_context:
            raise QuestionError(
                f"context={prompt.context} has no room for one grid of {prompt.grid_lengths[0]} tokens beside the "
                f"{prompt.n_text} of the text: use a context of at least {prompt.n_text + prompt.grid_lengths[0]}"
            )


def scaled(scores: torch.Tensor) -> torch.Tensor:
    """From 0 to 1; all 1 where they are all the same."""
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else torch.ones_like(scores)


def filled_up(chosen: torch.Tensor, scores: torch.Tensor, count: int) -> torch.Tensor:
    """`count` different candidates [count] ascending: those chosen, and of the others the highest scores."""
    found = torch.zeros(len(scores), dtype=torch.bool)
    found[chosen] = True
    rest = scores.masked_fill(found, -torch.inf).sort(descending=True, stable=True).indices
    found[rest[: count - int(found.sum())]] = True
    return found.nonzero().flatten()
