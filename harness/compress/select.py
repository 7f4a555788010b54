"""Choosing frames by what is asked, before the model sees any of them."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compress.method import Candidates, WithQuirks
from harness.compress.prefill import Prefill
from harness.errors import QuestionError, UserError
from harness.late import F, torch
from harness.settings.rules import setting

if TYPE_CHECKING:
    import numpy as np

    from harness.compress.method import Candidates


FEATURES = "features"
"""Names the scores by the answering model's own features, which need no other weights."""

_BATCH = 32  # frames judged at a time
_OPTION = re.compile(r"\s*\(?A[.):]")


class ImageTextModel:
    """A checkpoint that judges frames: two towers (CLIP, SigLIP), or BLIP with its head for matching.

    Args:
        path: folder or hub id.
        device: where it runs.

    Raises:
        UserError: there is no such checkpoint, or it is of another kind.
    """

    def __init__(self, path: str, device: torch.device) -> None:
        from transformers import AutoConfig, AutoModel, AutoProcessor, BlipForImageTextRetrieval

        self.path, self.device = path, device
        try:
            self.matches = AutoConfig.from_pretrained(path).model_type == "blip"
            loaded: Any = (BlipForImageTextRetrieval if self.matches else AutoModel).from_pretrained(path)
            self.processor: Any = AutoProcessor.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise UserError(
                f"method.relevance={path} is no checkpoint of images and texts ({str(error).splitlines()[0]}); give "
                f"folder or hub id of a CLIP or BLIP model, for example openai/clip-vit-large-patch14, or {FEATURES}"
            ) from error
        if not self.matches and not hasattr(loaded, "get_text_features"):
            raise UserError(f"method.relevance={path} is a {loaded.config.model_type} model: use a CLIP or BLIP one")
        self.model: Any = loaded.to(device).eval()

    def scores(self, frames: np.ndarray, text: str, memo: dict[Any, Any]) -> torch.Tensor:
        """One score [T] per frame uint8 [T, height, width, 3], float64: cosine with the text, or BLIP's probability
        of a match. What two towers make of the frames is kept in `memo`, for the next question.
        """
        with torch.inference_mode():
            if self.matches:
                return torch.cat([self._matching(batch, text) for batch in _batches(frames)])
            key = ("image features", self.path)
            if key not in memo:
                memo[key] = torch.cat([self._image_features(batch) for batch in _batches(frames)])
            words = self.processor(text=[text], return_tensors="pt", truncation=True, padding=True).to(self.device)
            query = _pooled(self.model.get_text_features(**words)).double()
            return F.cosine_similarity(memo[key].double(), query, dim=-1).cpu()

    def _image_features(self, frames: np.ndarray) -> torch.Tensor:
        pixels = self.processor(images=list(frames), return_tensors="pt")["pixel_values"]
        return _pooled(self.model.get_image_features(pixel_values=pixels.to(self.device)))

    def _matching(self, frames: np.ndarray, text: str) -> torch.Tensor:
        inputs = self.processor(
            images=list(frames), text=[text] * len(frames), return_tensors="pt", truncation=True, padding=True
        )
        logits = self.model(**inputs.to(self.device)).itm_score
        probabilities: torch.Tensor = logits.double().softmax(-1)[:, 1].cpu()
        return probabilities


def by_features(candidates: Candidates) -> torch.Tensor:
    """One score [G] per grid, float64: mean over the question's words of the largest cosine with a token."""
    words = candidates.embed(question_alone(candidates.question)).to(candidates.device)
    words = F.normalize(words.float(), dim=-1)
    found = []
    for grids in candidates.features.split(64):
        tokens = F.normalize(grids.to(candidates.device).float(), dim=-1)
        found.append((tokens @ words.T).amax(1).double().mean(-1))
    return torch.cat(found).cpu()


def question_alone(prompt: str) -> str:
    """The question of a prompt without options and instructions: the last line in front of the first option.

    A prompt without options is taken as it is.
    """
    lines = [line for line in prompt.splitlines() if line.strip()]
    first = next((i for i, line in enumerate(lines) if _OPTION.match(line)), None)
    if not first:
        return prompt
    before = [line for line in lines[:first] if line.strip().rstrip(":").lower() not in ("options", "choices")]
    return re.sub(r"^\s*question:\s*", "", before[-1], flags=re.IGNORECASE).strip() if before else prompt


def _batches(frames: np.ndarray) -> Iterator[np.ndarray]:
    return (frames[start : start + _BATCH] for start in range(0, len(frames), _BATCH))


def _pooled(output: Any) -> torch.Tensor:
    """Newer transformers wrap what the towers' projections return."""
    features: torch.Tensor = getattr(output, "pooler_output", output)
    return features


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
