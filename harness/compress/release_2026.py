"""AdaReTaKe as the code of April 2026 computes it under transformers 4.57.0; the README's tables were made with it.

Most deviations come from two sources: position ids arrive as four rows, of which the code reads the first (the plain
text index) as the temporal one, and the temporal patch factor is applied twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from harness.compress.allocation import water_filling
from harness.compress.layout import Layout, half_of_a_short_video, whole_grids
from harness.compress.method import Method, MethodOptions, checked_quirks
from harness.compress.positions import after_temporal_row, after_text_index
from harness.compress.reforge import Reforge
from harness.compress.release import SHARED_QUIRKS, LayerShares, SameRatio, highest_by_topk, sample_ratio
from harness.errors import UserError

LEAST, MOST = 1e-3, 1.0  # bounds of a chunk's ratio
FAMILIES = ("qwen2_5_vl",)  # the code of the other families does not run under its own pinned transformers

QUIRKS = {
    **SHARED_QUIRKS,
    # Temporal ratios read half a grid's tokens per grid, so only the first half of the video: a chunk is judged by
    # the content at half its time. Off: by its own content.
    "half_video_ratios": True,
    # A border chunk's missing neighbour is the chunk itself, at distance zero. Off: only real neighbours count.
    "border_is_own_neighbour": True,
    # Ratios are brought to their sum by subtracting a common shift. Off: by a common factor.
    "projection_by_shift": True,
    # A short last chunk weighs as much as a full one in that sum. Off: chunks weigh by their length.
    "short_chunk_weighs_full": True,
    # A chunk that stays whole leaves its guide's states in the cache for good. Off: they are dropped.
    "whole_chunk_keeps_guide": True,
    # The guide is placed by the plain text index, usually far before the chunk. Off: behind the chunk's last
    # temporal id, which was meant.
    "guide_by_text_index": True,
    # Reforge: layers are given the text index only, so ids are never moved behind the last cached one.
    # Off: they are, as in 2025.
    "reforge_without_shift": True,
    # Reforge: ids are squeezed towards the smallest id of chunk and guide, usually the guide's. Off: the chunk's.
    "reforge_towards_guide": True,
}


@dataclass(frozen=True)
class NeighbourRatios:
    """Temporal allocator: chunks that differ from their neighbours keep a larger share. Fields: see `QUIRKS`."""

    ratio_of_whole_prompt: bool = True
    half_video: bool = True
    border_is_own_neighbour: bool = True
    by_shift: bool = True
    short_chunk_weighs_full: bool = True

    def __call__(
        self, layout: Layout, features: torch.Tensor, lengths: Sequence[int], device: torch.device
    ) -> list[float]:
        ratio = sample_ratio(layout, of_whole_prompt=self.ratio_of_whole_prompt)
        distances = self._distances(chunk_vectors(layout, features, len(lengths), device, half=self.half_video))
        mean = sum(distances) / len(distances)
        if not mean > 0:  # a still video; or chunks without a grid of their own, whose mean is not a number
            return [ratio] * len(lengths)
        raw = [ratio * d / mean for d in distances]
        if self.by_shift:
            weights = [1.0] * len(lengths) if self.short_chunk_weighs_full else [c / max(lengths) for c in lengths]
            return projected_by_shift(raw, ratio, weights)
        counted = [1] * len(lengths) if self.short_chunk_weighs_full else list(lengths)
        total = ratio * sum(counted)
        shares = water_filling([r * c for r, c in zip(raw, counted, strict=True)], total, 0, counted)
        return [max(LEAST, float(s) / c) for s, c in zip(shares, counted, strict=True)]

    def _distances(self, vectors: torch.Tensor) -> list[float]:
        padded = torch.cat((vectors[:1], vectors, vectors[-1:]))
        left = 1 - F.cosine_similarity(vectors, padded[:-2], dim=-1)
        right = 1 - F.cosine_similarity(vectors, padded[2:], dim=-1)
        distances = ((left + right) / 2).tolist()
        if not self.border_is_own_neighbour and len(distances) > 1:
            distances[0], distances[-1] = float(right[0]), float(left[-1])
        return distances


def chunk_vectors(
    layout: Layout, features: torch.Tensor, chunks: int, device: torch.device, *, half: bool
) -> torch.Tensor:
    """One mean feature vector per chunk [K, d], from pieces of a grid's tokens (or, with `half`, of half as many)."""
    size, grids = max(1, layout.tokens_per_grid // (2 if half else 1)), layout.n_grids
    per_chunk = grids / chunks
    vectors = []
    for k in range(chunks):
        first, last = int(k * per_chunk), min(int((k + 1) * per_chunk), grids)
        tokens = features[first * size : last * size].to(device, non_blocking=True).float()
        vectors.append(tokens.view(last - first, size, features.shape[-1]).mean(dim=1).mean(dim=0))
    return torch.stack(vectors)


def projected_by_shift(raw: Sequence[float], ratio: float, weights: Sequence[float]) -> list[float]:
    """clip(q - mu, 0.001, 1) whose weighted sum is ratio * sum(weights); q is `raw` scaled to that sum.

    mu is found by bisection: at most 100 steps, until the bracket is at most 1e-5 wide, then its middle.
    """
    w = np.array(weights)
    target = ratio * w.sum()
    q = np.array(raw) / (np.array(raw) * w).sum() * target
    low, high = q.min() - MOST, q.max() - LEAST
    for _ in range(100):
        if high - low <= 1e-5:
            break
        middle = (high + low) / 2
        if (np.clip(q - middle, LEAST, MOST) * w).sum() > target:
            low = middle
        else:
            high = middle
    return np.clip(q - (high + low) / 2, LEAST, MOST).tolist()


def stays_whole(ratio: float) -> bool:
    """A chunk whose ratio reaches 1 is not looked at."""
    return ratio >= MOST


def build(options: MethodOptions, family: str) -> Method:
    """The 2026 release with `temporal` adaptation and `layers` ("adakv") allocation on or off.

    Raises:
        UserError: a family for which this release does not exist.
    """
    if family not in FAMILIES:
        raise UserError(
            f"semantics release_2026 does not exist for {family}: that code does not run under its own pinned "
            f"transformers; it exists for {', '.join(FAMILIES)}. Set method.semantics=paper"
        )
    quirks = checked_quirks(options, QUIRKS)
    shift = not quirks["reforge_without_shift"]
    neighbours = NeighbourRatios(
        quirks["ratio_of_whole_prompt"],
        quirks["half_video_ratios"],
        quirks["border_is_own_neighbour"],
        quirks["projection_by_shift"],
        quirks["short_chunk_weighs_full"],
    )
    return Method(
        name=options.name,
        semantics="release_2026",
        positions=options.positions or "truncated",
        chunk_frames=options.chunk_frames,
        max_guide_length=options.max_guide_length,
        cut=half_of_a_short_video if quirks["halved_short_videos"] else whole_grids,
        temporal=neighbours if options.temporal else SameRatio(quirks["ratio_of_whole_prompt"]),
        layers=LayerShares(
            by_hits=options.layers,
            hits_start_at_one=quirks["hits_start_at_one"],
            floor_not_renormalised=quirks["floor_not_renormalised"],
        ),
        choose=highest_by_topk,
        guide_positions=after_text_index if quirks["guide_by_text_index"] else after_temporal_row,
        whole=stays_whole,
        whole_keeps_guide=quirks["whole_chunk_keeps_guide"],
        stale_text_scores=quirks["stale_first_chunk"],
        text_index_recorded=not (options.reforge and shift),
        content_scores=bool(options.reforge) and quirks["content_scores"],
        reforge=Reforge(
            shift=shift,
            origin="segment" if quirks["reforge_towards_guide"] else "chunk",
            by_kept_share=not quirks["reforge_by_sample_ratio"],
        )
        if options.reforge
        else None,
    )
