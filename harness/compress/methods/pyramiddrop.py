"""PyramidDrop (arXiv 2410.17247): from stage to stage of the layers a smaller share of the video's tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.allocation import allocate
from harness.compress.dropping import FORMS, StagedEvictor, StateDropper, in_native_form
from harness.compress.evict import video_budget
from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.scorers import LayerView, received
from harness.errors import QuestionError
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class PyramidDrop(StagedEvictor):
    """Stages share a chunk's budget as 1 : decay : decay^2 ..., and each chooses among what the one before it keeps.

    At the end of a stage the last token ranks the video's, by the attention of the next layer. As published, the first
    stage keeps everything; here it is cut by the rank that its end gives to the second.

    Attributes:
        form: `kv`, under the context, as here; or `native`.
        stages: of equally many layers.
        decay: lambda, the share of its tokens that a stage hands on.
        first_stage_drops: kv form only. Off, the first stage keeps everything, so no context below its share of the
            layers can be met.
        reindex: see `StateDropper`; native form only.
    """

    form: str = setting("kv", words=FORMS)
    stages: int = setting(4, least=1)
    decay: float = setting(0.5, above=0, most=1)
    first_stage_drops: bool = True
    reindex: bool | None = None

    def for_family(self, family: str) -> Method:
        return in_native_form(self, PyramidDropStates) if self.form == "native" else self

    def begin(self, run: Prefill) -> None:
        if run.compress and not self.first_stage_drops:
            self._check_context(run)
        super().begin(run)

    def judges(self, layers: int) -> list[int]:
        stages = stage_of_layers(self.stages, layers)
        second = next((layer for layer in range(layers) if stages[layer]), 0)
        return [max(second, stages.index(stage)) for stage in stages]

    def weights(self, layers: int) -> list[float]:
        return [self.decay**stage for stage in stage_of_layers(self.stages, layers)]

    def rank(self, view: LayerView) -> torch.Tensor:
        return rank(view)

    def layer_counts(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> Sequence[int]:
        if self.first_stage_drops:
            return super().layer_counts(run, segment, scores)
        assert segment.chunk is not None
        layers, length = len(scores), segment.n_video
        whole = self._whole_layers(layers)
        rest = layers * run.trace.chunk_budget[segment.chunk] - whole * length
        others = allocate(self.weights(layers)[whole:], rest, [length] * (layers - whole))
        return [length] * whole + others

    def _whole_layers(self, layers: int) -> int:
        return stage_of_layers(self.stages, layers).count(0)

    def _check_context(self, run: Prefill) -> None:
        prompt, layers, lengths = run.prompt, run.language.num_layers, run.trace.chunk_lengths
        whole = self._whole_layers(layers)

        def enough(budget: int) -> bool:
            budgets = self.budgets_of(budget, lengths)
            return all(b * layers >= whole * length for b, length in zip(budgets, lengths, strict=True))

        if not enough(video_budget(prompt)):
            least = math.ceil(prompt.n_video * whole / layers)
            while not enough(least):  # rounding may leave one chunk short
                least += 1
            raise QuestionError(
                f"method {self.name} keeps the whole video in its first stage, {whole} of {layers} layers, which does "
                f"not fit context={prompt.context}: use a context of at least {prompt.n_text + least}, or "
                "method.first_stage_drops=true"
            )

    @staticmethod
    def budgets_of(total: int, lengths: Sequence[int]) -> list[int]:
        """Tokens that each chunk may keep [K] of `total`."""
        return allocate(lengths, total, lengths)

    def budgets(self, run: Prefill, lengths: Sequence[int]) -> list[int]:
        return self.budgets_of(video_budget(run.prompt), lengths)


@dataclass(frozen=True)
class PyramidDropStates(StateDropper):
    """As published: stage s keeps decay^s of the video's tokens."""

    looks_ahead: ClassVar[bool] = True
    reindexes: ClassVar[bool] = True

    stages: int = 4
    decay: float = 0.5

    def drops(self, layers: int) -> list[int]:
        stages = stage_of_layers(self.stages, layers)
        return [layer for layer in range(1, layers) if stages[layer] != stages[layer - 1]]

    def rank(self, view: LayerView) -> torch.Tensor:
        return rank(view)

    def counts(self, layers: int, n_video: int) -> list[int]:
        return [max(1, int(n_video * self.decay**stage)) for stage in stage_of_layers(self.stages, layers)]


def stage_of_layers(stages: int, layers: int) -> list[int]:
    """The stage of each layer [L]; where there are fewer layers than stages, some stages have none."""
    return [layer * stages // layers for layer in range(layers)]


def rank(view: LayerView) -> torch.Tensor:
    """Attention [c] that video tokens get from the last token; mean over heads."""
    n = view.queries.shape[1]
    return received(view, range(n - 1, n))


METHOD = PyramidDrop
