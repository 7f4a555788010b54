"""Evicting behind every chunk: score its tokens, share out the budget, keep the best. Most methods start from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.compress.allocation import allocate
from harness.compress.attention import Heads, last_keys
from harness.compress.cache import Kept
from harness.compress.method import Method
from harness.compress.positions import after_chunk
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.scorers import LayerView, guide_attention
from harness.errors import QuestionError
from harness.late import torch

Counts = Sequence[int] | Sequence[Sequence[int]]
"""Tokens to keep per layer [L], or per layer and key-value head [L][kv]."""


@dataclass(frozen=True)
class ChunkEvictor(Method):
    """Evicts from each chunk once it has passed all layers. Stages, in the order in which a chunk meets them:

    `budgets` (once per prompt), `guide` and `guide_ids`, `score`, `judge` (`layer_counts`, `choose`), `evict`. As they
    stand here: budgets in proportion to length, scored by the question, as many in every layer, the highest scores.
    """

    uses_guide: ClassVar[bool] = True
    sees_question: ClassVar[bool] = True
    reusable: ClassVar[bool] = False

    max_guide_length: int | None = None

    def compresses(self, prompt: Prompt) -> bool:
        return prompt.over_context

    def begin(self, run: Prefill) -> None:
        if not run.compress:
            return
        lengths = run.trace.chunk_lengths
        run.trace.chunk_budget = self.budgets(run, lengths)
        run.trace.chunk_ratio = [b / c for b, c in zip(run.trace.chunk_budget, lengths, strict=True)]

    def budgets(self, run: Prefill, lengths: Sequence[int]) -> list[int]:
        """Tokens per layer, on average, that each chunk may keep [K]."""
        return allocate(lengths, video_budget(run.prompt), lengths)

    def guide(self, prompt: Prompt) -> slice:
        """The prompt tokens that follow each chunk to score it; empty where it is scored by itself."""
        return prompt.guide(self.max_guide_length if self.uses_guide else 0)

    def guide_ids(self, prompt: Prompt, segment: Segment) -> torch.Tensor:
        """Ids [r, g] of the guide behind a chunk."""
        return after_chunk(prompt.positions, segment.tokens, self.guide(prompt))

    def score(self, view: LayerView) -> torch.Tensor:
        """One score per token of the chunk, higher = keep: [c] for all heads, or [kv, c]."""
        return guide_attention(view)

    def judge(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> list[Kept]:
        """Which tokens each layer keeps [L]: `choose` under the `layer_counts`."""
        return self.choose(run, segment, scores, self.layer_counts(run, segment, scores))

    def layer_counts(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> Counts:
        """How many tokens each layer, or each of its heads, keeps."""
        assert segment.chunk is not None
        return [run.trace.chunk_budget[segment.chunk]] * len(scores)

    def choose(self, run: Prefill, segment: Segment, scores: list[torch.Tensor], counts: Counts) -> list[Kept]:
        """Which of the chunk's tokens each layer keeps [L], ascending."""
        return highest(run, scores, counts)

    def evict(self, run: Prefill, segment: Segment, kept: Sequence[Kept]) -> None:
        """Remove from the end of the cache, where the chunk is, what is not kept."""
        for layer, of_layer in enumerate(kept):
            if isinstance(of_layer, torch.Tensor):
                run.cache.keep_of_last(layer, segment.length, run.kept_places(segment, of_layer))
            else:
                places = [run.kept_places(segment, of_head) for of_head in of_layer]
                run.cache.keep_of_last(layer, segment.length, places)

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        if not run.compress or segment.chunk is None:
            return super().feed(run, segment)
        guide = self.guide(run.prompt)
        collector = ScoreCollector(self, run, segment, guide.stop - guide.start)
        guided: dict[str, Any] = {}
        if guide.stop > guide.start:
            guided = {"guide": guide, "guide_ids": self.guide_ids(run.prompt, segment)}
        run.forward(segment, observer=collector, **guided)
        run.cache.drop_last(guide.stop - guide.start)
        scores = collector.scores
        run.note_scores(segment, scores)
        kept = self.judge(run, segment, scores)
        self.note(run, segment, kept, scores)
        self.evict(run, segment, kept)
        return None

    def note(self, run: Prefill, segment: Segment, kept: Sequence[Kept], scores: list[torch.Tensor]) -> None:
        """Write what was chosen into the trace."""
        assert segment.chunk is not None
        run.trace.kept.append([_count(of_layer) for of_layer in kept])
        run.note_choice(kept)
        if run.record:
            rows = [[of_layer] if isinstance(of_layer, torch.Tensor) else of_layer for of_layer in kept]
            run.kept_indices[segment.chunk] = [row.cpu() for of_layer in rows for row in of_layer]


class ScoreCollector:
    """Observer of one chunk and its guide: lets a method score each layer, and keeps the scores [L]."""

    def __init__(self, method: ChunkEvictor, run: Prefill, segment: Segment, n_guide: int) -> None:
        self._method, self._run, self._segment, self._n_guide = method, run, segment, n_guide
        self.scores: list[torch.Tensor] = [torch.empty(0)] * run.language.num_layers

    def __call__(self, layer: int, query: torch.Tensor, key: Heads, scale: float) -> None:
        segment = self._segment
        places = None if segment.length == segment.n_video else self._run.places(segment)
        keys = last_keys(key, query.shape[1])
        view = LayerView(query, keys, self._n_guide, places, scale, layer, segment, self._run, key)
        self.scores[layer] = self._method.score(view)


def video_budget(prompt: Prompt) -> int:
    """Tokens B = C - (N - V) that the video may keep per layer on average.

    Raises:
        QuestionError: the text alone fills the context.
    """
    assert prompt.context is not None
    if prompt.context - prompt.n_text < 1:
        raise QuestionError(
            f"context={prompt.context} leaves no room for the video: the text alone has {prompt.n_text} tokens; "
            f"use a context of at least {prompt.n_text + 1}"
        )
    return prompt.context - prompt.n_text


def highest(run: Prefill, scores: Sequence[torch.Tensor], counts: Counts) -> list[Kept]:
    """Per layer, or per layer and head, the indices of the highest scores, ascending; among equal ones the lower index.

    How near the closest choice was goes into the trace.
    """
    first = scores[0]
    stacked = torch.stack([s.to(first.device) for s in scores])  # small: [L, c] or [L, kv, c]
    length = stacked.shape[-1]
    wanted = torch.tensor(counts)
    if wanted.dim() < stacked.dim() - 1:
        wanted = wanted[:, None].expand(stacked.shape[:-1])
    order = torch.sort(stacked, dim=-1, descending=True, stable=True).indices
    chosen = torch.arange(length, device=stacked.device) < wanted.to(stacked.device)[..., None]
    run.note_margin(margin(stacked, torch.zeros_like(chosen).scatter(-1, order, chosen)))
    ascending = torch.where(chosen, order, length).sort(dim=-1).values.flatten(0, -2)  # what is not chosen goes last
    rows = [row[:count] for row, count in zip(ascending, wanted.flatten().tolist(), strict=True)]
    if stacked.dim() == 2:
        return list(rows)
    heads = stacked.shape[1]
    return [rows[i : i + heads] for i in range(0, len(rows), heads)]


def margin(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """How near a choice was: the smallest gap [] between a chosen score and one that was not, over the row's largest.

    Infinite where nothing was left to choose. `chosen` marks some of the `scores` [..., c].
    """
    if not scores.numel():
        return torch.tensor(torch.inf)
    last = scores.masked_fill(~chosen, torch.inf).amin(-1)
    first = scores.masked_fill(chosen, -torch.inf).amax(-1)
    return ((last - first) / scores.abs().amax(-1).clamp_min(torch.finfo(scores.dtype).tiny)).min()


def _count(kept: Kept) -> int:
    if isinstance(kept, torch.Tensor):
        return kept.numel()
    return sum(of_head.numel() for of_head in kept) // len(kept)
