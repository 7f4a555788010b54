"""Evicting once, when the whole video is cached and the question is not: what is left serves any question."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from harness.compress.allocation import largest_remainder
from harness.compress.cache import Kept
from harness.compress.evict import Counts, highest, video_budget
from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
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


@dataclass(frozen=True)
class WholeContextEvictor(Method):
    """While the video passes, nothing is evicted: the cache holds all of it for a while (`Trace.cache_peak`)."""

    def compresses(self, prompt: Prompt) -> bool:
        return prompt.over_context

    def begin(self, run: Prefill) -> None:
        if run.compress:
            video_budget(run.prompt)  # a context that has no room is seen before the video has passed

    @abstractmethod
    def scores(self, run: Prefill) -> list[torch.Tensor]:
        """Of each layer [L] one score per key-value head and token of the video [kv, V], higher = keep."""

    def counts(self, run: Prefill, scores: list[torch.Tensor]) -> Counts:
        """How many of the video's tokens each layer, or each of its heads, keeps; here as many everywhere."""
        return [video_budget(run.prompt)] * len(scores)

    def before_question(self, run: Prefill) -> None:
        if not run.compress:
            return
        scores = self.scores(run)
        chunks = [segment for segment in run.segments if segment.chunk is not None]
        for chunk in chunks:
            run.note_scores(chunk, [of_layer[:, chunk.video] for of_layer in scores])
        kept = highest(run, scores, self.counts(run, scores))
        run.note_choice(kept)
        heads = [of_head for of_layer in kept for of_head in of_layer]
        run.record_kept(heads)
        run.trace.chunk_budget = per_chunk(heads, chunks)
        run.trace.chunk_ratio = [b / c.n_video for b, c in zip(run.trace.chunk_budget, chunks, strict=True)]
        video = Segment(slice(run.prompt.video_start, run.prompt.video_stop), slice(0, run.prompt.n_video))
        for layer, of_layer in enumerate(kept):
            run.cache.keep_of_last(layer, video.length, [run.kept_places(video, of_head) for of_head in of_layer])


def per_chunk(kept: Sequence[torch.Tensor], chunks: Sequence[Segment]) -> list[int]:
    """Tokens that are left of each chunk [K], on average over heads, in whole numbers that add up.

    `kept` holds for every layer and head which of the video's tokens it keeps.
    """
    ends = torch.tensor([chunk.video.stop for chunk in chunks])
    total = torch.zeros(len(chunks), dtype=torch.long)
    for of_head in kept:
        total += torch.bucketize(of_head.cpu(), ends, right=True).bincount(minlength=len(chunks))
    shares = [Fraction(int(count), len(kept)) for count in total.tolist()]
    return largest_remainder(shares, round(sum(shares)))
