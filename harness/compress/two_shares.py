"""Tokens made fewer before the language model, and fewer again deep in it: two lengths of the cache, of one budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.compress.dropping import StateDropper
from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.prune import Merger
from harness.compress.scorers import LayerView, received
from harness.errors import UserError
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class TwoShares(Merger, StateDropper):
    """See `Merger`; then video tokens that the last token does not look at stop passing, deep in the model (see
    `StateDropper`). Before that layer there are more tokens than the budget and behind it fewer; their mean is exact.

    Attributes:
        depth: the layer before which they are dropped, and of how many, in the published model.
        keep_inner: share of the tokens that enter that passes the last layers; how many enter follows from it.
        layer: the first layer that only these pass; `None` = as deep as `depth`.
    """

    sees_question: ClassVar[bool] = True
    reusable: ClassVar[bool] = False
    depth: ClassVar[tuple[int, int]]

    keep_inner: float = setting(0.5, above=0, most=1)
    layer: int | None = setting(None, least=1)

    def first_dropped(self, layers: int) -> int:
        """The layer before which tokens are dropped."""
        return max(1, layers * self.depth[0] // self.depth[1]) if self.layer is None else self.layer

    def drops(self, layers: int) -> list[int]:
        return [self.first_dropped(layers)]

    def rank(self, view: LayerView) -> torch.Tensor:
        n = view.queries.shape[1]
        return received(view, range(n - 1, n))

    def shares(self, prompt: Prompt, layers: int) -> tuple[int, int]:
        """Tokens that enter the model, and those that pass its last layers."""
        mean = min(self.target(prompt), prompt.n_video)
        return two_shares(mean, prompt.n_video, self.first_dropped(layers), layers, self.keep_inner)

    def entering(self, run: Prefill) -> int:
        layers = run.language.num_layers
        if not 0 < self.first_dropped(layers) < layers:
            raise UserError(f"method.layer={self.layer}: this model allows 1 to {layers - 1}")
        run.state = self.shares(run.prompt, layers)
        return int(run.state[0])

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
