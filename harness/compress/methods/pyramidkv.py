"""PyramidKV (arXiv 2406.02069): SnapKV whose lower layers keep more."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from harness.compress.allocation import largest_remainder
from harness.compress.methods.snapkv import SnapKV
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class PyramidKV(SnapKV):
    """Attributes:
    beta: the last layer keeps one in so many of the tokens that a layer keeps on average.
    """

    beta: int = setting(20, least=1)

    def layer_counts(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> list[int]:
        assert segment.chunk is not None
        budget = run.trace.chunk_budget[segment.chunk]
        return pyramid(len(scores), budget, segment.n_video, self.beta)


def pyramid(layers: int, budget: int, length: int, beta: int) -> list[int]:
    """Tokens per layer [L] on a line that falls to budget / beta and whose mean is the budget; exact to the token.

    Where the first layer would keep more than the `length` that there is, it keeps all of it and the line falls less.
    """
    least = Fraction(budget, beta)
    most = min(2 * budget - least, Fraction(length))
    least = 2 * budget - most
    steps = max(1, layers - 1)
    shares = [most - (most - least) * layer / steps for layer in range(layers)] if layers > 1 else [Fraction(budget)]
    return largest_remainder(shares, layers * budget)


METHOD = PyramidKV
