"""Control: every so many tokens of a chunk, the same in all layers; what is in them is not looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.compress.cache import Kept
from harness.compress.evict import ChunkEvictor, Counts
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.scorers import LayerView
from harness.late import torch


@dataclass(frozen=True)
class Stride(ChunkEvictor):
    """Chunks share the budget by their length; of k tokens out of c the i-th is the one at floor(i * c / k)."""

    sees_question: ClassVar[bool] = False
    reusable: ClassVar[bool] = True
    uses_guide: ClassVar[bool] = False

    def score(self, view: LayerView) -> torch.Tensor:
        """Nothing is scored."""
        return torch.zeros(view.segment.n_video)

    def choose(self, run: Prefill, segment: Segment, scores: list[torch.Tensor], counts: Counts) -> list[Kept]:
        return [evenly(int(count), len(s)) for count, s in zip(torch.as_tensor(counts).tolist(), scores, strict=True)]


def evenly(count: int, length: int) -> torch.Tensor:
    """`count` of `length` places [count], ascending, as far apart as can be."""
    return torch.arange(count) * length // max(1, count)


METHOD = Stride
