"""AdaKV (arXiv 2407.11550, algorithm 1): the key heads of a layer share its budget by where its best tokens are."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from harness.compress.allocation import largest_remainder, pooled_margin, top_hits_of_each
from harness.compress.methods.snapkv import SnapKV
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class AdaKV(SnapKV):
    """SnapKV's scores; layers keep the same, their heads do not. What AdaReTaKe's releases call "adakv" is not this:
    there layers share, and all heads of a layer keep the same tokens.

    Attributes:
        floor: share of the even budget that every head has for itself (the paper's safeguard alpha).
    """

    floor: float = setting(0.2, least=0, most=1)

    def layer_counts(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> list[list[int]]:
        assert segment.chunk is not None
        budget = run.trace.chunk_budget[segment.chunk]
        for of_layer in scores:
            run.note_margin(pooled_margin(list(of_layer), budget))
        return head_counts(torch.stack([s.to(scores[0].device) for s in scores]), budget, self.floor)


def head_counts(scores: torch.Tensor, budget: int, floor: float) -> list[list[int]]:
    """Tokens per layer and head [L][kv] by scores [L, kv, c]; of each layer they add up to kv * budget."""
    layers, heads, _ = scores.shape
    total, even = heads * budget, Fraction(floor)
    hits = top_hits_of_each(scores, total) if total else [[0] * heads] * layers
    return [largest_remainder([(1 - even) * hit + even * budget for hit in row], total) for row in hits]


METHOD = AdaKV
