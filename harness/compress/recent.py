"""Keeping the newest tokens whatever their score: a window that some methods take from their budget."""

from __future__ import annotations

from collections.abc import Sequence

from harness.compress.cache import Kept
from harness.compress.evict import highest
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.late import torch

WINDOWS = ("last", "every")
"""Which chunks have a window: the last one, in which the newest tokens of the video are; or each its own."""


def has_window(run: Prefill, segment: Segment, window: str) -> bool:
    """Whether a chunk keeps its newest tokens, see `WINDOWS`."""
    return window == "every" or segment.video.stop == run.prompt.n_video


def highest_and_newest(
    run: Prefill, scores: Sequence[torch.Tensor], counts: Sequence[int], newest: Sequence[int]
) -> list[Kept]:
    """Per layer (and head) so many of the newest tokens, and the highest scores among the others; ascending.

    Args:
        run: whose margin is noted.
        scores: [L] of [c] or [kv, c].
        counts: tokens to keep, per layer [L].
        newest: of these, the ones that need no score [L].
    """
    if not any(newest):
        return highest(run, scores, counts)
    kept: list[Kept] = []
    for of_layer, count, window in zip(scores, counts, newest, strict=True):
        older = of_layer.shape[-1] - window
        (found,) = highest(run, [of_layer[..., :older]], [count - window])
        rest = torch.arange(older, of_layer.shape[-1], device=of_layer.device)
        if isinstance(found, torch.Tensor):
            kept.append(torch.cat((found, rest)))
        else:
            kept.append([torch.cat((of_head, rest)) for of_head in found])
    return kept
