"""FlashVID (arXiv 2602.08024, code 1d37422): tokens that the tower attends to and that differ, the rest merged.

Merged over time where a token repeats the grid before, within segments of alike grids, and then in clusters of each
grid. Its tokens are exact in number and every place is taken once, which is not so in the code (`tokens.released`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import torch

from harness.compress.causal import received
from harness.compress.dropping import StateDropper
from harness.compress.method import Method, Pruned
from harness.compress.methods.flashvid.tokens import Settings, exactly
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.prune import Pruner
from harness.compress.scorers import LayerView
from harness.errors import UserError
from harness.setting import setting

QUIRKS: Mapping[str, bool] = {
    # A merged token counts its direct children only, so that what repeats for long grows in norm. Off: all of them.
    "children_counted_once": True,
}


@dataclass(frozen=True)
class FlashVID(Pruner, StateDropper):
    """See `Pruner`; then video tokens that the last token does not look at stop passing, deep in the model (see
    `StateDropper`). Before that layer there are more tokens than the budget and behind it fewer; their mean is exact.

    Attributes:
        keep_inner: share of the tokens that enter that passes the last layers (0.3; Qwen3-VL 0.1); how many enter
            follows from it: 1.25 of the mean with the published numbers.
        layer: the first layer that only these pass; `None` = as deep as 20 of 28.
        min_segments: segments that the video has at least; `None` = 8 (LLaVA), or 4 (Qwen).
    """

    sees_question: ClassVar[bool] = True
    reusable: ClassVar[bool] = False
    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS
    by_segment: ClassVar[bool] = False

    keep_inner: float = setting(0.3, above=0, most=1)
    layer: int | None = setting(None, least=1)
    min_segments: int | None = setting(None, least=1)

    @property
    def needs_attention(self) -> bool:
        return True

    def for_family(self, family: str) -> Method:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return (FlashVIDOnLLaVA if family == "llava_onevision" else FlashVID)(**values)

    def first_dropped(self, layers: int) -> int:
        """The layer before which tokens are dropped."""
        return max(1, layers * 20 // 28) if self.layer is None else self.layer

    def drops(self, layers: int) -> list[int]:
        return [self.first_dropped(layers)]

    def rank(self, view: LayerView) -> torch.Tensor:
        n = view.queries.shape[1]
        return received(view, range(n - 1, n))

    def shares(self, prompt: Prompt, layers: int) -> tuple[int, int]:
        """Tokens that enter the model, and those that pass its last layers."""
        mean = min(self.target(prompt), prompt.n_video)
        return two_shares(mean, prompt.n_video, self.first_dropped(layers), layers, self.keep_inner)

    def prune(self, run: Prefill) -> Pruned:
        prompt, layers = run.prompt, run.language.num_layers
        if prompt.attention is None:
            raise UserError("method flashvid needs the tower's attention: encode(..., keep_attention=True)")
        if not 0 < self.first_dropped(layers) < layers:
            raise UserError(f"method.layer={self.layer}: this model allows 1 to {layers - 1}")
        run.state = self.shares(prompt, layers)
        kept = Settings(self.by_segment, min_segments=self.min_segments or (8 if self.by_segment else 4))
        settings = dataclasses.replace(kept, children_counted_once=self.has("children_counted_once"))
        device, shape = run.language.device, (prompt.n_grids, prompt.grid_lengths[0], -1)
        grids = run.features[0].to(device).float().view(shape)
        tokens, ids = exactly(grids, prompt.attention.to(device).view(shape[:2]), run.state[0], settings)
        ids = ids.cpu()
        run.note_choice([ids])
        return Pruned(ids, (tokens.to(run.features[0].dtype), *(f[ids] for f in run.features[1:])))

    def keep(self, run: Prefill, grids: torch.Tensor, total: int) -> torch.Tensor:
        raise NotImplementedError("its tokens are merged, see `prune`")

    def check_context(self, run: Prefill, slots: float) -> None:
        if self.retention is None:
            super().check_context(run, slots)

    def counts(self, layers: int, n_video: int) -> list[int] | None:
        return None

    def count(self, view: LayerView, layer: int, scores: torch.Tensor) -> int:
        return int(view.run.state[1])

    def segments(self, prompt: Prompt) -> list[Segment]:
        return Method.segments(self, prompt)

    def begin(self, run: Prefill) -> None:
        if run.compress:  # what is left may fit the context, and passes at once all the same
            run.segments = super().segments(run.prompt)
            run.trace.chunk_lengths, run.scores, run.kept_indices = [run.prompt.n_video], [None], [None]
            super().begin(run)

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        return super().feed(run, segment) if run.compress else Method.feed(self, run, segment)


@dataclass(frozen=True)
class FlashVIDOnLLaVA(FlashVID):
    """There tokens are picked by their likeness to the segment, too."""

    by_segment: ClassVar[bool] = True


def two_shares(mean: int, n_video: int, first: int, layers: int, keep_inner: float) -> tuple[int, int]:
    """Tokens in the layers before `first`, and in the others: near the published shares, and on average exactly `mean`.

    There is always such a pair near by: the common divisor of `first` and the other layers divides all layers.
    """
    rest, total = layers - first, layers * mean
    wanted = total / (first + keep_inner * rest)
    pairs = [
        (outer, (total - first * outer) // rest)
        for outer in range(mean, min(n_video, total // first) + 1)
        if (total - first * outer) % rest == 0 and 1 <= (total - first * outer) // rest
    ]
    return min(pairs, key=lambda pair: abs(pair[0] - wanted))


METHOD = FlashVID
