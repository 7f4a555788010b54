"""AdaReTaKe as the paper's equations say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.compress.allocation import by_distance, pooled, pooled_margin
from harness.compress.evict import Counts, video_budget
from harness.compress.method import Method, checked_quirks
from harness.compress.methods.adaretake.release import Options
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.errors import UserError
from harness.late import torch


@dataclass(frozen=True)
class Paper(Options):
    """`temporal` (eq. 8, 9) and `layers` (eq. 11-16) allocation, each on or off."""

    def for_family(self, family: str) -> Method:
        checked_quirks(self.quirks, {}, f"method {self.name} with semantics paper")
        if self.reforge:
            raise UserError(
                "method.reforge=true does not exist in semantics paper, where kept tokens keep their ids: "
                "set method.reforge=false, or method.semantics=release_2025"
            )
        return self

    def budgets(self, run: Prefill, lengths: Sequence[int]) -> list[int]:
        if not self.temporal:
            return super().budgets(run, lengths)
        return by_distance(run.grid_distances(), run.prompt.grid_lengths[0], lengths, video_budget(run.prompt))

    def layer_counts(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> Counts:
        if not self.layers:
            return super().layer_counts(run, segment, scores)
        assert segment.chunk is not None
        budget = run.trace.chunk_budget[segment.chunk]
        run.note_margin(pooled_margin(scores, budget))
        return pooled(scores, budget)
