"""What the two public releases of AdaReTaKe have in common, each of their quirks as one switch.

A release works with shares of a chunk ("ratios") where the paper works with whole tokens. The arithmetic is float32
wherever the releases' is, because rounding down to whole tokens shows the difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from harness.compress.allocation import allocate
from harness.compress.layout import Layout
from harness.compress.temporal import video_budget

FLOOR = 0.01  # least share of a chunk that a layer keeps
HEAVY = 0.01  # a heavy hitter scores more than this share of the chunk's largest score
ADAPTATION = 4.0  # `temporal_adaptation_ratio` of every published configuration

SHARED_QUIRKS = {
    # The ratio is context / prompt; the text, which is never evicted, is not subtracted. Off: budget / video tokens.
    "ratio_of_whole_prompt": True,
    # Fewer grids than `chunk_frames`: chunks of half the video. Off: chunks of `chunk_frames` frames.
    "halved_short_videos": True,
    # The first chunk is evicted by the scores of the text before the video: all equal, and only for the last so many
    # tokens; the rest stays whole. Off: by its own scores.
    "stale_first_chunk": True,
    # Layer allocation: every layer starts with one hit. Off: with none.
    "hits_start_at_one": True,
    # A layer keeps at least 1 % of a chunk, and counts are rounded down, without taking it from other layers.
    # Off: the layers' counts add up to the chunk's budget.
    "floor_not_renormalised": True,
    # Reforge: scores use queries and keys from before rotation. Off: after rotation, as without reforge.
    "content_scores": True,
    # Reforge: ids are squeezed by the sample's ratio. Off: by the share of the chunk that the layer keeps.
    "reforge_by_sample_ratio": True,
}


def highest_by_topk(scores: torch.Tensor, counts: Sequence[int], *, chunk: int) -> list[torch.Tensor]:
    """Per layer the indices [count] of its highest scores, ascending; among equal scores torch.topk decides."""
    return [row.topk(count).indices.sort().values for row, count in zip(scores, counts, strict=True)]


def sample_ratio(layout: Layout, *, of_whole_prompt: bool) -> float:
    """The share of every chunk that may stay: C / N, or budget / video tokens."""
    if of_whole_prompt:
        return layout.context / layout.n_prompt
    return video_budget(layout) / layout.n_video


@dataclass(frozen=True)
class SameRatio:
    """Temporal allocator: the sample's ratio for every chunk."""

    of_whole_prompt: bool

    def __call__(
        self, layout: Layout, features: torch.Tensor, lengths: Sequence[int], device: torch.device
    ) -> list[float]:
        return [sample_ratio(layout, of_whole_prompt=self.of_whole_prompt)] * len(lengths)


@dataclass(frozen=True)
class LayerShares:
    """Layer allocator of the releases: a share of the chunk per layer, then rounded down.

    Attributes:
        by_hits: "adakv": shares follow each layer's hits among the top scores of all layers; otherwise "even".
        hits_start_at_one, floor_not_renormalised: see `SHARED_QUIRKS`.
        by_heavy_hitters: scale each layer's share by how many heavy hitters it has (2025's temporal adaptation).
    """

    by_hits: bool
    hits_start_at_one: bool = True
    floor_not_renormalised: bool = True
    by_heavy_hitters: bool = False

    def __call__(self, scores: Sequence[torch.Tensor], ratio: float, num_layers: int) -> list[int]:
        length = scores[0].shape[0]
        shares = self._shares(scores, ratio, num_layers).tolist()
        if self.by_heavy_hitters:
            factors = [_heavy_hitter_factor(s) for s in scores[:num_layers]]
            shares = [min(1.0, g * r) for g, r in zip(factors, shares, strict=True)]
        if self.floor_not_renormalised:
            return [min(length, max(1, int(max(FLOOR, r) * length))) for r in shares]
        total = round(sum(min(r, 1.0) for r in shares) * length)
        return allocate(shares, min(max(total, num_layers), num_layers * length), [length] * num_layers)

    def _shares(self, scores: Sequence[torch.Tensor], ratio: float, num_layers: int) -> torch.Tensor:
        if not self.by_hits:
            return ratio * torch.ones(num_layers)
        length, device = scores[0].shape[0], scores[0].device
        pooled = torch.cat([s.to(device) for s in scores])
        top = min(int(max(1, ratio * length) * num_layers), pooled.shape[0])
        layer = pooled.topk(top).indices // length
        # With the stale scores of text in front, an index may lie behind the last layer; such a hit counts for none.
        hits = torch.bincount(layer[layer < num_layers], minlength=num_layers).to("cpu", torch.float32)
        hits += 1 if self.hits_start_at_one else 0
        return (num_layers * ratio) * (hits / hits.sum())


def _heavy_hitter_factor(scores: torch.Tensor) -> float:
    """Between 1/2 and 2, neutral when a quarter of the tokens are heavy hitters."""
    share = float((scores > HEAVY * scores.max()).sum()) / scores.shape[0]
    return min(2.0, max(0.5, math.sqrt(ADAPTATION * share)))
