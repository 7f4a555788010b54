"""Prefilling a prompt chunk by chunk, evicting behind each chunk.

At any time the device holds one chunk, the guide and the compressed cache; the video's features wait on the host.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from harness.compress.cache import CompressedCache
from harness.compress.language import LanguageModel
from harness.compress.layout import Layout
from harness.compress.method import Method
from harness.compress.positions import TEMPORAL
from harness.compress.reforge import store_squeezed
from harness.compress.scorers import LayerView

_TEXT_SCORE = 1000.0  # what the releases give every token of a text segment


@dataclass
class ChunkLog:
    """What happened to one chunk; counts are per layer."""

    length: int  # c
    budget: float | None = None  # as the temporal allocator gave it
    kept: list[int] = field(default_factory=list)  # of the chunk's tokens [L]
    cache_length: list[int] = field(default_factory=list)  # after the chunk [L]
    kept_indices: list[torch.Tensor] | None = None  # within the chunk [L][kept]; only when recording
    scores: list[torch.Tensor] | None = None  # [L][c]; only when recording, and where the chunk was scored


@dataclass
class Prefilled:
    """State after the prompt, ready to decode."""

    cache: CompressedCache
    hidden: torch.Tensor  # last hidden state of the last prompt token [d]
    chunks: list[ChunkLog]
    compressed: bool


@dataclass
class ScoreCollector:
    """Observer of one chunk: lets the scorer see each layer and keeps its scores [L][c]."""

    language: LanguageModel
    method: Method
    chunk: int
    length: int
    layer_ids: list[torch.Tensor]  # ids [r, n] of chunk and guide as each layer rotated them
    marked: torch.Tensor | None

    def __post_init__(self) -> None:
        self.scores: list[torch.Tensor] = [torch.empty(0)] * self.language.num_layers

    def __call__(self, layer: int, query: torch.Tensor, key: torch.Tensor, scale: float) -> None:
        c, keys = self.length, key[:, key.shape[1] - query.shape[1] :]
        if self.method.content_scores:
            ids = self.layer_ids[layer]
            query, keys = self.language.unrotate(query, ids), self.language.unrotate(keys, ids)
        view = LayerView(query[:, c:], query[:, :c], keys[:, :c], scale, layer, self.chunk, self.marked)
        self.scores[layer] = self.method.scorer(view)


def prefill(
    language: LanguageModel,
    layout: Layout,
    input_ids: torch.Tensor,
    features: torch.Tensor,
    method: Method,
    *,
    max_new_tokens: int = 0,
    record: bool = False,
) -> Prefilled:
    """Run a prompt through the model: text, video chunk by chunk, text.

    Args:
        input_ids: the prompt [N].
        features: the video's tokens as they enter the language model [V, d], usually in host memory.
        max_new_tokens: room to leave in the cache for decoding.
        record: keep scores, kept indices and position ids.
    """
    compress = method.compresses and layout.over_context
    guide = layout.guide(method.max_guide_length if compress and method.uses_guide else 0)
    if not layout.n_post:
        raise ValueError("the prompt has no text after the video, so nothing asks for an answer")
    lengths = method.cut(layout, method.chunk_frames)
    budgets = method.temporal(layout, features, lengths, language.device) if compress else [None] * len(lengths)
    marks = method.mark(layout, features, language.device) if compress and method.mark else None
    resident = layout.context + max(lengths) + guide.stop - guide.start if compress else layout.n_prompt
    cache = CompressedCache(
        language.num_layers,
        reserve=resident + max_new_tokens,
        track_positions=record or method.reforge is not None,
    )
    positions, first = layout.positions, layout.video.start
    if layout.n_pre:
        embeds = language.embed(input_ids[:first])
        run_segment(language, cache, method, embeds, positions[:, :first], 0, output=False)
    guide_embeds = language.embed(input_ids[guide])
    chunks = [ChunkLog(length, budget) for length, budget in zip(lengths, budgets, strict=True)]
    for i, log in enumerate(chunks):
        chunk = slice(first, first + log.length)
        within = slice(first - layout.video.start, chunk.stop - layout.video.start)
        embeds = features[within].to(guide_embeds.device, guide_embeds.dtype, non_blocking=True)
        ids = positions[:, chunk]
        if compress:
            if method.uses_guide:
                embeds = torch.cat((embeds, guide_embeds))
                ids = torch.cat((ids, method.guide_positions(positions, chunk, guide)), dim=1)
            marked = None if marks is None else marks[within]
            collector = ScoreCollector(language, method, i, log.length, [ids] * language.num_layers, marked)
            _compressed_chunk(collector, cache, layout, embeds, ids, log, record=record)
        else:
            run_segment(language, cache, method, embeds, ids, first, output=False)
            log.kept = [log.length] * language.num_layers
        log.cache_length = cache.lengths
        first = chunk.stop
    hidden = run_segment(language, cache, method, language.embed(input_ids[first:]), positions[:, first:], first)
    return Prefilled(cache, hidden, chunks, compress)


def run_segment(
    language: LanguageModel,
    cache: CompressedCache,
    method: Method,
    embeds: torch.Tensor,
    ids: torch.Tensor,
    index: int,
    *,
    decoded: bool = False,
    output: bool = True,
) -> torch.Tensor | None:
    """Run tokens [n, d] with ids [r, n] that all stay in the cache; returns the last one's hidden state [d].

    `index` is the place of the first token in prompt and answer; without `output` only the cache is filled.
    """
    layer_ids = method.reforge.layer_positions(cache, ids, decoded=decoded) if method.reforge else None
    hidden = language.forward(embeds, ids, cache, layer_positions=layer_ids, output=output)
    recorded = layer_ids or [ids] * language.num_layers
    if method.text_index_recorded:
        recorded = [torch.arange(index, index + ids.shape[1]).repeat(ids.shape[0], 1)] * language.num_layers
    for layer, layer_recorded in enumerate(recorded):
        cache.append_positions(layer, layer_recorded)
    return hidden


def _compressed_chunk(
    collector: ScoreCollector,
    cache: CompressedCache,
    layout: Layout,
    embeds: torch.Tensor,
    ids: torch.Tensor,
    log: ChunkLog,
    *,
    record: bool,
) -> None:
    """Run one chunk with its guide, then evict; `log` takes what happened."""
    language, method, length = collector.language, collector.method, log.length
    guide_length = ids.shape[1] - length
    whole = method.whole(log.budget)
    layer_ids = method.reforge.layer_positions(cache, ids) if method.reforge else None
    collector.layer_ids = layer_ids or collector.layer_ids
    observer = None if whole else collector
    language.forward(embeds, ids, cache, observer, layer_positions=layer_ids, output=False)
    for layer, segment in enumerate(collector.layer_ids):
        cache.append_positions(layer, segment)
    if not (whole and method.whole_keeps_guide):
        cache.drop_last(guide_length)
    if whole:
        log.kept = [length] * language.num_layers
        return
    vectors = collector.scores
    if method.stale_text_scores and collector.chunk == 0 and layout.n_pre:
        text = torch.full((layout.n_pre,), _TEXT_SCORE, device=vectors[0].device)
        vectors = [text] * language.num_layers + vectors
    counts = method.layers(vectors, log.budget, language.num_layers)
    judged = vectors[0].shape[0]  # tokens at the end of the cache that the scores decide about
    deciding = torch.stack([v.to(vectors[0].device) for v in vectors[: language.num_layers]])  # small: [L, judged]
    kept = method.choose(deciding, counts, chunk=collector.chunk)
    if method.reforge:
        _squeeze_chunk(collector, cache, layout, kept, judged)
    for layer, indices in enumerate(kept):
        cache.keep_of_last(layer, judged, indices)
    log.kept = [length - judged + count for count in counts]
    if record:
        log.scores = [s.cpu() for s in collector.scores]
        offset = length - judged  # tokens in front of the judged ones stay
        log.kept_indices = [torch.cat((torch.arange(max(offset, 0)), i.cpu() + offset)) for i in kept]


def _squeeze_chunk(
    collector: ScoreCollector, cache: CompressedCache, layout: Layout, kept: list[torch.Tensor], judged: int
) -> None:
    """Squeeze the temporal ids of the chunk's tokens in every layer, before eviction."""
    reforge, length = collector.method.reforge, collector.length
    for layer, segment in enumerate(collector.layer_ids):
        temporal = segment[TEMPORAL]
        if reforge.origin == "chunk":
            temporal = temporal[:length]
        elif reforge.origin == "kept":
            temporal = temporal[:length][kept[layer].cpu()]
        ratio = len(kept[layer]) / judged if reforge.by_kept_share else layout.context / layout.n_prompt
        store_squeezed(collector.language, cache, layer, length, int(temporal.min()), ratio)
