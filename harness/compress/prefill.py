"""Prefilling a prompt segment by segment: the driver that calls a method's stages.

At any time the device holds one segment, the guide and the cache; the video's features wait on the host.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from harness.compress.allocation import grid_distances
from harness.compress.attention import Observer
from harness.compress.cache import CompressedCache, Kept, mean
from harness.compress.language import Alive, LanguageModel, LayerInput
from harness.compress.method import Method
from harness.compress.prompt import Prompt, Segment
from harness.compress.scorers import check_nothing_evicted, no_number, slots
from harness.compress.trace import Trace
from harness.late import torch

Value = TypeVar("Value")

LIMIT_BYTES = 16 * 2**30  # all keys and values of 1024 frames of a 7B model are 4 GiB


def reused(
    memo: dict[Hashable, Any], key: Hashable, compute: Callable[[], Value], limit_bytes: int | None = None
) -> Value:
    """The value of a key in `memo`, computed and kept if it is not there.

    Values that have `nbytes` take at most `limit_bytes` together (`None` = `LIMIT_BYTES`): those not used for longest
    go first, and one that is larger by itself is not kept.
    """
    limit = LIMIT_BYTES if limit_bytes is None else limit_bytes
    value: Value = memo.pop(key) if key in memo else compute()
    if _nbytes(value) <= limit:
        memo[key] = value  # behind all others: in order of use
    total = sum(map(_nbytes, memo.values()))
    for old in list(memo):
        if total > limit and _nbytes(memo[old]):
            total -= _nbytes(memo.pop(old))
    return value


def _nbytes(value: Any) -> int:
    return int(getattr(value, "nbytes", 0))


Forward: TypeAlias = "Callable[..., torch.Tensor | None]"


@dataclass
class FirstPass:
    """What one pass put into the cache, and what it showed to an observer; n tokens, by layer [L].

    Attributes:
        queries: [h, n, d] after rotation; none where nobody looked.
        keys: [kv, n, d] after rotation.
        values: [kv, n, d].
        scale: of the attention logits.
    """

    queries: list[torch.Tensor]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    scale: float

    def again(self, cache: CompressedCache, observer: Observer | None) -> None:
        """Append it to a cache, and show it."""
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            cached, _ = cache.update(keys[None], values[None], layer)
            if observer is not None:
                observer(layer, self.queries[layer], cached, self.scale)


def passes_of(memo: dict[Any, Any], input_ids: torch.Tensor, *, repeats: bool) -> dict[Any, FirstPass] | None:
    """The passes known of a prompt [N], to be read and added to; `None` where there is nothing to read or to keep.

    Only those of one prompt are held, and not beyond its last method.

    Args:
        memo: of the video.
        input_ids: on the host.
        repeats: whether the prompt will come again.
    """
    name = input_ids.numpy().tobytes()
    of, passes = memo.pop("first_passes", (None, {}))
    if of != name:
        passes = {}
    if repeats:
        memo["first_passes"] = name, passes
    return passes if repeats or passes else None


def once(forward: Forward, passes: dict[Any, FirstPass], key: Any) -> Forward:
    """`LanguageModel.forward` for a pass without output: not run where `passes` has it under `key`."""

    def run(
        embeds: torch.Tensor,
        positions: torch.Tensor,
        cache: CompressedCache,
        observer: Observer | None = None,
        **options: Any,
    ) -> None:
        if (known := passes.get(key)) is not None:
            known.again(cache, observer)
            return
        queries: list[torch.Tensor] = []
        scales: list[float] = []

        def looking(layer: int, query: torch.Tensor, cached: Any, scale: float) -> None:
            queries.append(query)
            scales.append(scale)
            if observer is not None:
                observer(layer, query, cached, scale)

        forward(embeds, positions, cache, None if observer is None else looking, **options)
        n, layers = positions.shape[1], range(cache.num_layers)
        keys = [cache.keys(layer)[:, -n:].clone() for layer in layers]
        values = [cache.values(layer)[:, -n:].clone() for layer in layers]
        passes[key] = FirstPass(queries, keys, values, scales[0] if scales else 1.0)

    return run


T = TypeVar("T")


class Prefill:
    """One prompt on its way through the model; what a method's stages act on.

    Attributes:
        language: the decoder.
        method: whose stages are called.
        prompt: the whole one in `prune`, later what is left of it.
        features: each [V, d]; the first enters the embeddings, the k-th after it is added behind layer k - 1.
        segments: from the method, in order.
        compress: whether anything is to be removed.
        cache: what has been kept so far.
        trace: what has happened so far.
        record: whether scores and kept indices are recorded.
        ids: those [r, n] by which each layer rotated what passed last, the guide included.
        state: the method's own.
    """

    def __init__(
        self,
        language: LanguageModel,
        method: Method,
        prompt: Prompt,
        features: Sequence[torch.Tensor],
        *,
        max_new_tokens: int,
        record: bool,
        memo: dict[Any, Any] | None = None,
        repeats: bool = False,
    ) -> None:
        if len(features[0]) != prompt.n_video:
            raise ValueError(f"{len(features[0])} features for {prompt.n_video} video tokens")
        if prompt.video_stop == prompt.n_prompt:
            raise ValueError("the prompt has no text after the video, so nothing asks for an answer")
        self.language, self.method, self.record = language, method, record
        self.prompt, self.features = prompt, tuple(features)
        self.state: Any = None
        self._memo = {} if memo is None else memo
        self._passes = passes_of(self._memo, prompt.input_ids, repeats=repeats)
        self._choices: list[torch.Tensor] = []
        self._margins: list[torch.Tensor] = []
        self._no_numbers: list[torch.Tensor] = []
        self.compress = method.compresses(prompt)
        self.trace = trace = Trace(prompt.n_prompt, prompt.n_video, prompt.n_video, prompt.context, self.compress, [])
        self.entered: torch.Tensor | None = None
        if self.compress and (pruned := method.prune(self)) is not None:
            self.entered = pruned.kept
            self.features = pruned.features or tuple(f[pruned.kept.to(f.device)] for f in self.features)
            self.prompt = prompt = prompt.keep_video(pruned.kept, pruned.positions)
            trace.n_prompt, trace.n_video = prompt.n_prompt, prompt.n_video
            self._memo, self._passes = {}, None  # both are of the whole video
        self.segments = method.segments(prompt)
        trace.chunk_lengths = [segment.n_video for segment in self.segments if segment.chunk is not None]
        trace.chunk_budget, trace.chunk_ratio = list(trace.chunk_lengths), [1.0] * len(trace.chunk_lengths)
        self.ids: list[torch.Tensor] = []
        self.scores: list[list[torch.Tensor] | None] = [None] * len(trace.chunk_lengths)
        self.kept_indices: list[list[torch.Tensor] | None] = [None] * len(trace.chunk_lengths)
        longest = max((segment.length for segment in self.segments), default=0)
        room = prompt.n_prompt if not self.compress or prompt.context is None else prompt.context + 2 * longest
        self.cache = CompressedCache(
            language.num_layers,
            reserve=min(room, prompt.n_prompt) + max_new_tokens,
            track_positions=record or method.tracks_positions,
        )

    def forward(
        self,
        segment: Segment,
        *,
        ids: torch.Tensor | None = None,
        guide: slice | None = None,
        guide_ids: torch.Tensor | None = None,
        observer: Observer | None = None,
        between: LayerInput | None = None,
    ) -> torch.Tensor | None:
        """Run a segment behind what is cached; all of it is cached, the guide too.

        Args:
            segment: of the prompt.
            ids: [r, n] where they are not those of the prompt.
            guide: prompt tokens that follow it for now, with ids `guide_ids` [r, g].
            observer: sees each layer's queries and keys.
            between: drops or merges hidden states before a layer.

        Returns:
            The last hidden state [d] where the segment ends the prompt.
        """
        prompt, embeds = self.prompt, self._embed(segment)
        ids = prompt.positions[:, segment.tokens] if ids is None else ids
        if guide is not None and guide_ids is not None:
            embeds = torch.cat((embeds, self.language.embed(prompt.input_ids[guide])))
            ids = torch.cat((ids, guide_ids), dim=1)
        added = [feature[segment.video] for feature in self.features[1:]] if segment.n_video else []
        return self._run(
            embeds,
            ids,
            segment.tokens.start,
            observer=observer,
            between=between,
            added=added,
            added_at=self.places(segment) if added else None,
            output=guide is None and segment.tokens.stop == prompt.n_prompt,
            recorded=segment.chunk is None or not self.compress,
            once=not segment.chunk and between is None,
        )

    def decode(self, token: int, ids: torch.Tensor, index: int) -> torch.Tensor:
        """Run one new token with ids [r, 1], `index` its place in prompt and answer; returns its hidden state [d]."""
        embeds = self.language.embed(torch.tensor([token]))
        hidden = self._run(embeds, ids, index, decoded=True, output=True, recorded=True)
        assert hidden is not None
        return hidden

    def places(self, segment: Segment) -> torch.Tensor:
        """Where a segment's video tokens [c] are among its tokens."""
        return self.prompt.video[segment.video].sub(segment.tokens.start)

    def kept_places(self, segment: Segment, kept: torch.Tensor) -> torch.Tensor:
        """Which of a segment's tokens stay when of its video tokens only `kept` [k] do: these and all text."""
        if segment.length == segment.n_video:
            return kept
        stays = torch.ones(segment.length, dtype=torch.bool, device=kept.device)
        places = self.places(segment).to(kept.device)
        stays[places] = False
        stays[places[kept]] = True
        return stays.nonzero().flatten()

    def of_video(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` makes of the video's features alone: computed once for all prompts and methods on a video."""
        return reused(self._memo, key, compute)

    def grid_distances(self) -> list[float]:
        """How much changes from each grid to the next [G - 1] (see `temporal.grid_distances`)."""
        n, device = self.prompt.grid_lengths[0], self.language.device
        return self.of_video("grid_distances", lambda: grid_distances(self.features[0], n, device))

    def note_scores(self, segment: Segment, scores: Sequence[torch.Tensor]) -> None:
        """Remember the scores [L] of a chunk; whether they are numbers is seen in the end, for it means waiting."""
        assert segment.chunk is not None
        device = scores[0].device
        self._no_numbers.append(torch.stack([s.to(device).isnan().any() for s in scores]).any())
        if self.record:
            self.scores[segment.chunk] = [s.cpu() for s in scores]

    def note_choice(self, kept: Sequence[Kept]) -> None:
        """Remember which tokens were kept, layer by layer."""
        for of_layer in kept:
            self._choices += [of_layer] if isinstance(of_layer, torch.Tensor) else list(of_layer)

    def record_kept(self, heads: Sequence[torch.Tensor]) -> None:
        """Where recording, remember which of all video tokens [V] are kept: by layers and heads, or the same by all."""
        for segment in self.segments if self.record else ():
            if segment.chunk is not None:
                start, stop = segment.video.start, segment.video.stop
                own = [kept[(kept >= start) & (kept < stop)].cpu() - start for kept in heads]
                self.kept_indices[segment.chunk] = own

    def note_margin(self, margin: torch.Tensor) -> None:
        """Remember how near a choice was (a scalar on any device; see `Trace.kept_margin`)."""
        self._margins.append(margin)

    def check_scores(self) -> None:
        """Raise QuestionError where some score was not a number."""
        for chunk, bad in enumerate(torch.stack(self._no_numbers).tolist() if self._no_numbers else ()):
            if bad:
                raise no_number(f"scores of chunk {chunk}")

    def finish(self) -> None:
        """Complete the trace when the prompt is in the cache.

        Raises:
            QuestionError, UserError: some score was not a number; the method evicted behind the question.
        """
        self.check_scores()
        check_nothing_evicted(self.method.name, self._behind_last, self.cache)
        trace = self.trace
        self.note_peak()
        trace.cache_length = self.cache.lengths
        if self.cache.ragged:
            trace.head_lengths = [self.cache.head_lengths(layer) for layer in range(self.cache.num_layers)]
        if self._choices:
            device = self._choices[0].device
            flat = torch.cat([choice.to(device, torch.int32) for choice in self._choices]).cpu()
            trace.kept_digest = hashlib.sha256(flat.numpy().tobytes()).hexdigest()[:16]
        if self._margins:
            margins = torch.stack([margin.to(self._margins[0].device) for margin in self._margins]).tolist()
            trace.kept_margin = min(filter(math.isfinite, margins), default=None)

    def _embed(self, segment: Segment) -> torch.Tensor:
        features, device = self.features[0][segment.video], self.language.device
        if segment.length == segment.n_video:
            return features.to(device, self.language.dtype, non_blocking=True)
        embeds = self.language.embed(self.prompt.input_ids[segment.tokens])
        if segment.n_video:
            embeds = embeds.clone()
            embeds[self.places(segment).to(device)] = features.to(device, embeds.dtype, non_blocking=True)
        return embeds

    def _run(
        self,
        embeds: torch.Tensor,
        ids: torch.Tensor,
        index: int,
        *,
        observer: Observer | None = None,
        between: LayerInput | None = None,
        added: Sequence[torch.Tensor] = (),
        added_at: torch.Tensor | None = None,
        decoded: bool = False,
        output: bool,
        recorded: bool,
        once: bool = False,
    ) -> torch.Tensor | None:
        layers = self.language.num_layers
        layer_ids = self.method.layer_ids(self, ids, decoded=decoded)
        self.ids = layer_ids or [ids] * layers
        alive = [torch.arange(ids.shape[1])] * layers
        before = self.cache.lengths
        reduce = None if between is None else Alive(between, alive)
        forward = self.language.forward
        if once and not output and layer_ids is None and self._passes is not None:
            forward = self._once(self._passes, ids, index, observer)
        hidden = forward(
            embeds,
            ids,
            self.cache,
            observer,
            layer_positions=layer_ids,
            between=reduce,
            added=added,
            added_at=added_at,
            output=output,
        )
        of_layer = self.method.recorded_ids(self, self.ids, index) if recorded else self.ids
        if between is not None:
            of_layer = [i[:, a] for i, a in zip(of_layer, alive, strict=True)]
        for layer, layer_ids_ in enumerate(of_layer):
            self.cache.append_positions(layer, layer_ids_)
        if not decoded:
            passed = [ids.shape[1]] if between is None else [a.numel() for a in alive]
            self.trace.prefilled += mean(passed)
            seen = zip(passed if between is not None else passed * layers, before, strict=True)
            self.trace.attended += sum(n * cached + n * (n + 1) / 2 for n, cached in seen) / layers
            self.note_peak()
            self._behind_last = slots(self.cache)
        return hidden

    def _once(self, passes: dict[Any, FirstPass], ids: torch.Tensor, index: int, observer: Observer | None) -> Forward:
        """The forward pass of a segment that begins at `index`, not run again where nothing was evicted before."""
        if any(length != index for layer in range(self.cache.num_layers) for length in self.cache.head_lengths(layer)):
            return self.language.forward
        before = self.prompt.positions[:, :index].numpy().tobytes()
        return once(self.language.forward, passes, (before, ids.cpu().numpy().tobytes(), observer is None))

    def note_peak(self) -> None:
        """Remember how much is cached; to be called by a stage that makes the cache longer without a forward pass."""
        self.trace.cache_peak = max(self.trace.cache_peak, mean(self.cache.lengths))
