"""AdaReTaKe as the code of April 2026 computes it under transformers 4.57.0; the README's tables were made with it.

Most deviations come from two sources: position ids arrive as four rows, of which the code reads the first (the plain
text index) as the temporal one, and the temporal patch factor is applied twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from harness.compress.allocation import water_filling
from harness.compress.methods.adaretake.release import SHARED_QUIRKS, Release
from harness.compress.positions import after_temporal_row, after_text_index
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.errors import UserError
from harness.late import F, torch

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
class Release2026(Release):
    """The second release with temporal adaptation and layer ("adakv") allocation on or off."""

    defaults: ClassVar[Mapping[str, bool]] = QUIRKS
    default_positions: ClassVar[str] = "truncated"

    def check_family(self, family: str) -> None:
        if family not in FAMILIES:
            raise UserError(
                f"semantics release_2026 does not exist for {family}: that code does not run under its own pinned "
                f"transformers; it exists for {', '.join(FAMILIES)}. Set method.semantics=paper"
            )

    @property
    def shifts(self) -> bool:
        return not self.quirks["reforge_without_shift"]

    @property
    def squeezes_towards(self) -> Literal["segment", "chunk", "kept"]:
        return "segment" if self.quirks["reforge_towards_guide"] else "chunk"

    def recorded_ids(self, run: Prefill, ids: list[torch.Tensor], index: int) -> list[torch.Tensor]:
        if self.reforge and self.shifts:
            return ids
        count = ids[0].shape[1]
        return [torch.arange(index, index + count).repeat(ids[0].shape[0], 1)] * len(ids)  # the plain text index

    def shares(self, run: Prefill, lengths: Sequence[int]) -> list[float]:
        if not self.temporal:
            return super().shares(run, lengths)
        half, border = self.quirks["half_video_ratios"], self.quirks["border_is_own_neighbour"]

        def distances() -> list[float]:
            vectors = chunk_vectors(run.prompt, run.features[0], len(lengths), run.language.device, half=half)
            return neighbour_distances(vectors, border_is_own_neighbour=border)

        return neighbour_ratios(
            run.of_video(("neighbour_distances", len(lengths), half, border), distances),
            lengths,
            self.sample_ratio(run.prompt),
            by_shift=self.quirks["projection_by_shift"],
            short_chunk_weighs_full=self.quirks["short_chunk_weighs_full"],
        )

    def guide_ids(self, prompt: Prompt, segment: Segment) -> torch.Tensor:
        rule = after_text_index if self.quirks["guide_by_text_index"] else after_temporal_row
        return rule(prompt.positions, segment.tokens, self.guide(prompt))

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        if not run.compress or segment.chunk is None or run.state[segment.chunk] < MOST:
            return super().feed(run, segment)
        guide = self.guide(run.prompt)  # a chunk whose share reaches 1 is not looked at
        run.forward(segment, guide=guide, guide_ids=self.guide_ids(run.prompt, segment))
        if not self.quirks["whole_chunk_keeps_guide"]:
            run.cache.drop_last(guide.stop - guide.start)
        return None


def neighbour_ratios(
    distances: Sequence[float],
    lengths: Sequence[int],
    ratio: float,
    *,
    by_shift: bool = True,
    short_chunk_weighs_full: bool = True,
) -> list[float]:
    """Shares [K] from the chunks' distances: those that differ from their neighbours keep more.

    `ratio` is the sample's; flags: see `QUIRKS`.
    """
    mean = sum(distances) / len(distances)
    if not mean > 0:  # a still video; or chunks without a grid of their own, whose mean is not a number
        return [ratio] * len(lengths)
    raw = [ratio * d / mean for d in distances]
    if by_shift:
        weights = [1.0] * len(lengths) if short_chunk_weighs_full else [c / max(lengths) for c in lengths]
        return projected_by_shift(raw, ratio, weights)
    counted = [1] * len(lengths) if short_chunk_weighs_full else list(lengths)
    total = ratio * sum(counted)
    shares = water_filling([r * c for r, c in zip(raw, counted, strict=True)], total, 0, counted)
    return [max(LEAST, float(s) / c) for s, c in zip(shares, counted, strict=True)]


def neighbour_distances(vectors: torch.Tensor, *, border_is_own_neighbour: bool) -> list[float]:
    """Mean cosine distance of each chunk's vector [K, d] to its two neighbours [K]."""
    padded = torch.cat((vectors[:1], vectors, vectors[-1:]))
    left = 1 - F.cosine_similarity(vectors, padded[:-2], dim=-1)
    right = 1 - F.cosine_similarity(vectors, padded[2:], dim=-1)
    distances: list[float] = ((left + right) / 2).tolist()
    if not border_is_own_neighbour and len(distances) > 1:
        distances[0], distances[-1] = float(right[0]), float(left[-1])
    return distances


def chunk_vectors(
    prompt: Prompt, features: torch.Tensor, chunks: int, device: torch.device, *, half: bool
) -> torch.Tensor:
    """One mean feature vector per chunk [K, d], from pieces of a grid's tokens (or, with `half`, of half as many)."""
    size, grids = max(1, prompt.grid_lengths[0] // (2 if half else 1)), prompt.n_grids
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
    shares: list[float] = np.clip(q - (high + low) / 2, LEAST, MOST).tolist()
    return shares
