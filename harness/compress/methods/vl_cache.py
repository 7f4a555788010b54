"""VL-Cache (arXiv 2410.23317): layers whose attention is less sparse keep more; the question ranks the tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.compress.allocation import largest_remainder, water_filling
from harness.compress.cache import Kept
from harness.compress.evict import ChunkEvictor, Counts
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.scorers import LayerView, causal_weights, guide_rows, together, video_columns
from harness.compress.whole_context import WINDOWS, has_window, highest_and_newest
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class VLCache(ChunkEvictor):
    """`Prefill.state` holds the sparsity of each layer [L] in the chunk that passes.

    Attributes:
        threshold: p; an attention weight below p times the largest of its row counts as absent.
        sparsity_over: the weights that are looked at, those on the `chunk`, or on all that a row sees (`context`).
        floor: least share of a layer; published: 0.01 of the chunk.
        floor_of: what it is a share of, the chunk's even `budget` or the whole `chunk`.
        renormalise: layers above the floor pay for those on it, so that the budget is met. Off, as published, it is
            exceeded.
        recent: share of each layer's budget that goes to the newest tokens.
        window: in which chunks, see `recent.WINDOWS`.
        shared: all key heads of a layer keep the same tokens; otherwise each its own, as many.
    """

    threshold: float = setting(0.01, above=0, below=1)
    sparsity_over: str = setting("chunk", words=("chunk", "context"))
    floor: float = setting(0.25, least=0, most=1)
    floor_of: str = setting("budget", words=("budget", "chunk"))
    renormalise: bool = True
    recent: float = setting(0.1, least=0, most=1)
    window: str = setting("last", words=WINDOWS)
    shared: bool = False

    def begin(self, run: Prefill) -> None:
        super().begin(run)
        run.state = [torch.zeros(())] * run.language.num_layers

    def score(self, view: LayerView) -> torch.Tensor:
        """Attention from the guide, [kv, c] or shared [c]; notes the layer's sparsity on the way."""
        assert view.context is not None
        keys, columns, rows = together(view.context), video_columns(view), guide_rows(view)
        total = torch.zeros(keys.shape[0], len(columns), device=keys.device)
        absent, present = torch.zeros((), device=keys.device), 0
        for part, weights in causal_weights(view.queries, keys, view.scale, rows):
            of_video = weights.index_select(-1, columns)
            total += of_video.sum((1, 2))
            looked_at = of_video if self.sparsity_over == "chunk" else weights
            hidden = 0 if self.sparsity_over == "chunk" else sum(view.queries.shape[1] - 1 - row for row in part)
            low = looked_at < self.threshold * looked_at.amax(-1, keepdim=True)
            heads = view.queries.shape[0]
            absent += low.sum() - heads * hidden  # what a row cannot see is none of its weights
            present += looked_at.numel() - heads * hidden
        view.run.state[view.layer] = absent / max(1, present)
        return total.sum(0) if self.shared else total

    def layer_counts(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> list[int]:
        assert segment.chunk is not None
        budget, length = run.trace.chunk_budget[segment.chunk], segment.n_video
        device = run.state[0].device
        density = (1 - torch.stack([sparsity.to(device) for sparsity in run.state])).tolist()
        return layer_budgets(density, budget, length, self.least(budget, length), renormalise=self.renormalise)

    def least(self, budget: int, length: int) -> int:
        """Fewest tokens of a chunk that a layer keeps."""
        if self.floor_of == "budget":
            return int(self.floor * budget)
        return math.ceil(self.floor * length)

    def choose(self, run: Prefill, segment: Segment, scores: list[torch.Tensor], counts: Counts) -> list[Kept]:
        of_layer = torch.as_tensor(counts).tolist()
        recent = self.recent if has_window(run, segment, self.window) else 0.0
        return highest_and_newest(run, scores, of_layer, [int(recent * count) for count in of_layer])


def layer_budgets(density: list[float], budget: int, length: int, least: int, *, renormalise: bool) -> list[int]:
    """Tokens of a chunk that each layer keeps [L], in proportion to `density`.

    Args:
        density: 1 - sparsity of each layer.
        budget: tokens per layer on average.
        length: tokens of the chunk, which no layer exceeds.
        least: floor; where `renormalise` holds, not more than the budget.
        renormalise: whether the counts add up to L * budget.
    """
    layers = len(density)
    if renormalise:
        total = layers * budget
        return largest_remainder(water_filling(density, total, min(least, budget), [length] * layers), total)
    whole = sum(density)
    shares = [d / whole if whole else 1 / layers for d in density]
    return [min(max(int(share * layers * budget), least), length) for share in shares]


METHOD = VLCache
