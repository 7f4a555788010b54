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
    rows: int  # of position ids


class ScoreCollector:
    """Observer of one chunk: lets the scorer see each layer and keeps its scores."""

    def __init__(
        self,
        language: LanguageModel,
        method: Method,
        chunk: int,
        length: int,
        ids: torch.Tensor,
        layer_ids: list[torch.Tensor] | None,
    ) -> None:
        self._language, self._method, self._chunk, self._length = language, method, chunk, length
        self._ids, self._layer_ids = ids, layer_ids
        self.scores: list[torch.Tensor] = [torch.empty(0)] * language.num_layers

    def __call__(self, layer: int, query: torch.Tensor, key: torch.Tensor, scale: float) -> None:
        n, c = query.shape[1], self._length
        keys = key[:, key.shape[1] - n :]
        if self._method.content_scores:
            ids = self._ids if self._layer_ids is None else self._layer_ids[layer]
            query, keys = self._language.unrotate(query, ids), self._language.unrotate(keys, ids)
        view = LayerView(query[:, c:], query[:, :c], keys[:, :c], scale, layer, self._chunk)
        self.scores[layer] = self._method.scorer(view)


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
    if compress and method.uses_guide and guide.start == guide.stop:
        raise ValueError("the prompt has no text after the video, so nothing can score the chunks")
    lengths = method.cut(layout, method.chunk_frames)
    budgets = method.temporal(layout, features, lengths, language.device) if compress else [None] * len(lengths)
    resident = layout.context if compress else layout.n_prompt
    cache = CompressedCache(
        language.num_layers,
        reserve=resident + (max(lengths, default=0) if compress else 0) + guide.stop - guide.start + max_new_tokens,
        track_positions=record or method.reforge is not None,
    )
    positions = layout.positions
    hidden = None
    if layout.n_pre:
        pre = slice(0, layout.n_pre)
        hidden = run_segment(language, cache, method, language.embed(input_ids[pre]), positions[:, pre], text_from=0)
    guide_embeds = language.embed(input_ids[guide])
    chunks: list[ChunkLog] = []
    start = layout.video.start
    for i, (length, budget) in enumerate(zip(lengths, budgets, strict=True)):
        chunk = slice(start, start + length)
        part = features[chunk.start - layout.video.start : chunk.stop - layout.video.start]
        embeds = part.to(guide_embeds.device, guide_embeds.dtype, non_blocking=True)
        log = ChunkLog(length, budget)
        if compress:
            ids = positions[:, chunk]
            if method.uses_guide:
                ids = torch.cat((ids, method.guide_positions(positions, chunk, guide)), dim=1)
                embeds = torch.cat((embeds, guide_embeds))
            _compressed_chunk(language, cache, method, layout, i, embeds, ids, log, record)
        else:
            from_index = start if method.text_index_recorded else None
            hidden = run_segment(language, cache, method, embeds, positions[:, chunk], text_from=from_index)
            log.kept = [length] * language.num_layers
        log.cache_length = cache.lengths
        chunks.append(log)
        start = chunk.stop
    if layout.n_post:
        post = slice(layout.video.stop, layout.n_prompt)
        ids = positions[:, post]
        hidden = run_segment(language, cache, method, language.embed(input_ids[post]), ids, text_from=post.start)
    return Prefilled(cache, hidden, chunks, compress, positions.shape[0])


def run_segment(
    language: LanguageModel,
    cache: CompressedCache,
    method: Method,
    embeds: torch.Tensor,
    ids: torch.Tensor,
    *,
    text_from: int | None,
    decoded: bool = False,
) -> torch.Tensor:
    """Run tokens that all stay in the cache; returns the last token's hidden state [d].

    `text_from` is the prompt index of the segment's first token, or `None` where ids are recorded as they are.
    """
    layer_ids = method.reforge.layer_positions(cache, ids, decoded=decoded) if method.reforge else None
    hidden = language.forward(embeds, ids, cache, layer_positions=layer_ids)
    if cache.track_positions:
        recorded = ids
        if method.text_index_recorded and text_from is not None:
            recorded = torch.arange(text_from, text_from + ids.shape[1]).expand_as(ids).clone()
        for layer in range(language.num_layers):
            cache.append_positions(layer, recorded if layer_ids is None else layer_ids[layer])
    return hidden


def _compressed_chunk(
    language: LanguageModel,
    cache: CompressedCache,
    method: Method,
    layout: Layout,
    i: int,
    embeds: torch.Tensor,
    ids: torch.Tensor,
    log: ChunkLog,
    record: bool,
) -> None:
    length, layers = log.length, range(language.num_layers)
    guide_length = ids.shape[1] - length
    whole = method.whole(log.budget)
    layer_ids = method.reforge.layer_positions(cache, ids) if method.reforge else None
    collector = None if whole else ScoreCollector(language, method, i, length, ids, layer_ids)
    language.forward(embeds, ids, cache, collector, layer_positions=layer_ids)
    for layer in layers:
        cache.append_positions(layer, ids if layer_ids is None else layer_ids[layer])
    if not (whole and method.whole_keeps_guide):
        cache.drop_last(guide_length)
    if whole:
        log.kept = [length] * language.num_layers
        return
    vectors = collector.scores
    if record:
        log.scores = [s.cpu() for s in vectors]
    if method.stale_text_scores and i == 0 and layout.n_pre:
        text = torch.full((layout.n_pre,), _TEXT_SCORE, device=vectors[0].device)
        vectors = [text] * language.num_layers + vectors
    counts = method.layers(vectors, log.budget, language.num_layers)
    judged = vectors[0].shape[0]  # tokens at the end of the cache that the scores decide about
    if record:
        log.kept_indices = []
    for layer in layers:
        if method.reforge:
            segment = ids if layer_ids is None else layer_ids[layer]
            origin = int((segment if method.reforge.from_guide else segment[:, :length])[TEMPORAL].min())
            ratio = counts[layer] / judged if method.reforge.by_kept_share else layout.context / layout.n_prompt
            store_squeezed(language, cache, layer, length, origin, ratio)
        kept = method.choose(vectors[layer], counts[layer], chunk=i, layer=layer)
        cache.keep_of_last(layer, judged, kept)
        if record:
            untouched = torch.arange(length - judged)
            log.kept_indices.append(torch.cat((untouched, kept.cpu() + length - judged)))
    log.kept = [length - judged + counts[layer] for layer in layers]
