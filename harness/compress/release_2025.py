"""AdaReTaKe as the first public code computed it (April 2025); the paper's tables were made with it.

Its temporal adaptation is not the paper's: each layer's share is scaled by its own heavy hitters, so the cache may
hold more or less than the context. Every deviation is one quirk that can be switched off alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from harness.compress.layout import Layout, half_of_a_short_video, whole_grids
from harness.compress.method import Method, MethodOptions, checked_quirks
from harness.compress.positions import after_chunk, after_temporal_row
from harness.compress.reforge import Reforge
from harness.compress.release import SHARED_QUIRKS, LayerShares, SameRatio, highest_by_topk
from harness.compress.temporal import by_distance

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
class DistanceRatios:
    """Temporal allocator: the paper's budgets, as shares of the chunks."""

    def __call__(
        self, layout: Layout, features: torch.Tensor, lengths: Sequence[int], device: torch.device
    ) -> list[float]:
        budgets = by_distance(layout, features, lengths, device)
        return [b / c for b, c in zip(budgets, lengths, strict=True)]


def build(options: MethodOptions, family: str) -> Method:
    """The 2025 release with `temporal` adaptation and `layers` ("adakv") allocation on or off."""
    known = QUIRKS | (QWEN2_VL_QUIRKS if family == "qwen2_vl" else {})
    quirks = checked_quirks(options, known)
    adapts = options.temporal and quirks["heavy_hitter_adaptation"]
    cut = half_of_a_short_video if quirks["halved_short_videos"] else whole_grids
    by_content = options.temporal and not adapts
    return Method(
        name=options.name,
        semantics="release_2025",
        positions=options.positions or "float",
        chunk_frames=options.chunk_frames,
        max_guide_length=options.max_guide_length,
        cut=cut,
        temporal=DistanceRatios() if by_content else SameRatio(quirks["ratio_of_whole_prompt"]),
        layers=LayerShares(
            by_hits=options.layers,
            hits_start_at_one=quirks["hits_start_at_one"],
            floor_not_renormalised=quirks["floor_not_renormalised"],
            by_heavy_hitters=adapts,
        ),
        choose=highest_by_topk,
        guide_positions=after_temporal_row if quirks["guide_by_temporal_row"] else after_chunk,
        stale_text_scores=quirks["stale_first_chunk"],
        content_scores=bool(options.reforge) and quirks["content_scores"],
        reforge=Reforge(
            shift_all_rows_of_decoded=quirks.get("decoded_rows_move_together", False),
            by_kept_share=not quirks["reforge_by_sample_ratio"],
        )
        if options.reforge
        else None,
    )
