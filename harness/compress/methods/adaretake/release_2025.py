"""AdaReTaKe as the first public code computed it (April 2025); the paper's tables were made with it.

Its temporal adaptation is not the paper's: each layer's share is scaled by its own heavy hitters, so the cache may
hold more or less than the context. Every deviation is one quirk that can be switched off alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.allocation import by_distance
from harness.compress.evict import video_budget
from harness.compress.methods.adaretake.release import SHARED_QUIRKS, Release
from harness.compress.positions import after_temporal_row
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.errors import UserError
from harness.late import torch

QUIRKS = {
    **SHARED_QUIRKS,
    # Temporal adaptation scales a layer's share by its heavy hitters, after the fact and without regard to the total.
    # Off: chunks share the budget by how much changes in them, as the paper says.
    "heavy_hitter_adaptation": True,
    # The guide continues the temporal row only. Off: it starts behind the largest id of all rows.
    "guide_by_temporal_row": True,
}
QWEN2_VL_QUIRKS = {
    # Reforge: an in-place write moves all three rows of a decoded token. Off: the temporal row, as everywhere else.
    "decoded_rows_move_together": True,
}


@dataclass(frozen=True)
class Release2025(Release):
    """The first release with temporal adaptation and layer ("adakv") allocation on or off."""

    defaults: ClassVar[Mapping[str, bool]] = QUIRKS
    by_heavy_hitters: ClassVar[bool] = True

    def check_family(self, family: str) -> None:
        if family == "llava_onevision" and not self.reforge:
            raise UserError(
                "semantics release_2025 exists for llava_onevision only with reforge, because its code else indexes "
                "position ids that are not there: set method.reforge=true, or method.semantics=paper"
            )

    def known_quirks(self, family: str) -> dict[str, bool]:
        return QUIRKS | (QWEN2_VL_QUIRKS if family == "qwen2_vl" else {})

    @property
    def shifts_all_rows_of_decoded(self) -> bool:
        return self.quirks.get("decoded_rows_move_together", False)

    def shares(self, run: Prefill, lengths: Sequence[int]) -> list[float]:
        if not self.temporal or self.quirks["heavy_hitter_adaptation"]:
            return super().shares(run, lengths)
        prompt = run.prompt
        budgets = by_distance(run.grid_distances(), prompt.grid_lengths[0], lengths, video_budget(prompt))
        return [b / c for b, c in zip(budgets, lengths, strict=True)]

    def guide_ids(self, prompt: Prompt, segment: Segment) -> torch.Tensor:
        if not self.quirks["guide_by_temporal_row"]:
            return super().guide_ids(prompt, segment)
        return after_temporal_row(prompt.positions, segment.tokens, self.guide(prompt))
