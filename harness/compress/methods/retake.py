"""ReTaKe (arXiv 2412.20504), as its code: PivotKV, optionally with the key patches of DPSelect.

A chunk scores itself, so no question is needed; the same share of every chunk stays in every layer.
"""

from __future__ import annotations

import dataclasses

import torch

from harness.compress.key_patches import key_patches
from harness.compress.layout import Layout, half_of_a_short_video
from harness.compress.method import Method, MethodOptions, checked_quirks
from harness.compress.reforge import Reforge
from harness.compress.release import SameRatio, highest_by_topk
from harness.compress.scorers import LayerView, attention_received
from harness.errors import UserError

QUIRKS = {
    # Mark key patches and prefer them. The published configurations do so except for Video-MME with Qwen2-VL.
    "key_patches": False,
    # Key patches are decided for whole grids. Off: for each patch position, as published.
    "key_patches_synced": False,
    # A key patch is given score 1, which is the mean of all scores, though it was meant to come first. Off: first.
    "key_patches_at_mean": True,
}


@dataclasses.dataclass(frozen=True)
class SelfAttention:
    """Scorer: attention that each token gets from its whole chunk, later tokens included."""

    key_patch_score: float

    def __call__(self, view: LayerView) -> torch.Tensor:
        scores = attention_received(view.chunk_queries, view.chunk_keys, view.scale)
        if view.marked is not None:
            scores = scores.masked_fill(view.marked.to(scores.device), self.key_patch_score)
        return scores


@dataclasses.dataclass(frozen=True)
class KeyPatches:
    """Marks the key patches of a video."""

    synced: bool

    def __call__(self, layout: Layout, features: torch.Tensor, device: torch.device) -> torch.Tensor:
        return key_patches(features, layout.tokens_per_grid, device, synced=self.synced)


def share_of_chunk(scores: list[torch.Tensor], ratio: float, num_layers: int) -> list[int]:
    """The same share of the chunk in every layer, rounded down, at least one token."""
    return [max(1, int(ratio * scores[0].shape[0]))] * num_layers


def build(options: MethodOptions, family: str) -> Method:
    quirks = checked_quirks(options, QUIRKS)
    if options.semantics == "release_2026":
        raise UserError(
            "semantics release_2026 does not exist for retake: that code fails on it; set method.semantics=release_2025"
        )
    rows_together = family == "qwen2_vl"  # an in-place write in that family's code
    return Method(
        name=options.name,
        semantics=options.semantics,
        positions=options.positions or "float",
        chunk_frames=options.chunk_frames,
        uses_guide=False,
        cut=half_of_a_short_video,
        temporal=SameRatio(of_whole_prompt=True),
        scorer=SelfAttention(1.0 if quirks["key_patches_at_mean"] else float("inf")),
        mark=KeyPatches(quirks["key_patches_synced"]) if quirks["key_patches"] else None,
        layers=share_of_chunk,
        choose=highest_by_topk,
        content_scores=bool(options.reforge),
        reforge=Reforge(shift_all_rows_of_decoded=rows_together, origin="kept", by_kept_share=True)
        if options.reforge
        else None,
    )
