"""Keys and values of a video in host memory: prefilled once, loaded into the cache of every question about it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.cache import Stored
from harness.compress.method import Method
from harness.compress.positions import TEMPORAL
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.reforge import rotate_again
from harness.late import torch
from harness.settings.rules import setting

Block = tuple[Stored, ...]
"""Consecutive tokens in all layers [L], in host memory."""


@dataclass(frozen=True)
class HostStore:
    """Keys and values of a video.

    Attributes:
        prefix: the text in front; empty where there is none.
        blocks: of the video, in order.
        devices: [L] where each layer is loaded to.
        summaries: [L] of the blocks, where a method chooses by them.
    """

    prefix: Block
    blocks: tuple[Block, ...]
    devices: tuple[torch.device, ...]
    summaries: tuple[torch.Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(_nbytes(stored) for block in (self.prefix, *self.blocks) for stored in block)

    def append(self, run: Prefill, block: Block) -> None:
        """Load a block behind what is cached."""
        for layer, device in enumerate(self.devices):
            run.trace.moved_bytes += _nbytes(block[layer])
            run.cache.append(layer, block[layer], device)
        run.note_peak()


def load(run: Prefill, layer: int, tokens: slice, stored: Stored) -> None:
    """Load something in place of some of a layer's cached tokens."""
    run.trace.moved_bytes += _nbytes(stored)
    run.cache.replace(layer, tokens, stored)
    run.note_peak()


def joined(parts: Sequence[Stored]) -> Stored:
    """Stored tokens one after the other."""
    ids = [part.positions for part in parts]
    return Stored(
        torch.cat([part.keys for part in parts], dim=1),
        torch.cat([part.values for part in parts], dim=1),
        torch.cat([i for i in ids if i is not None], dim=1) if None not in ids else None,
    )


@dataclass(frozen=True)
class Reloading(Method):
    """Keeps a video's keys and values in host memory, and loads for each question what it may need.

    Attributes:
        memory_ids: position ids of what is loaded: `kept` = as it was prefilled; `squeezed` = temporal ids without
            gaps, in each layer, and the question right behind them, as methods that cache keys before rotation do.
    """

    reusable: ClassVar[bool] = True

    memory_ids: str = setting("kept", words=("kept", "squeezed"))

    @property
    def tracks_positions(self) -> bool:
        return self.memory_ids == "squeezed"

    def compresses(self, prompt: Prompt) -> bool:
        return prompt.over_context

    def layer_ids(self, run: Prefill, ids: torch.Tensor, *, decoded: bool) -> list[torch.Tensor] | None:
        shifts: list[int] = getattr(run.state, "shifts", [])
        moved = {shift: ids + shift for shift in set(shifts)}  # layers that move alike share one rotation
        return [moved[shift] for shift in shifts] or None

    def squeeze_memory(self, run: Prefill) -> list[int]:
        """Re-rotate the cached video without gaps in time; returns by how much the ids of later text move [L]."""
        prompt, shifts = run.prompt, []
        for layer in range(run.cache.num_layers):
            old = run.cache.positions(layer)[:, prompt.video_start :]
            new = without_gaps(old.cpu(), int(prompt.positions[TEMPORAL, prompt.video_start]))
            rotate_again(run.language, run.cache, layer, old, new, torch.arange(old.shape[1]))
            behind = math.ceil(float(new.max())) + 1
            shifts.append(behind - int(prompt.positions[TEMPORAL, prompt.video_stop]))
        return shifts


def without_gaps(ids: torch.Tensor, start: int) -> torch.Tensor:
    """Ids [r, n] whose temporal row counts its different values from `start`; with one row that is 0, 1, 2, ..."""
    squeezed = ids.clone()
    squeezed[TEMPORAL] = start + torch.unique(ids[TEMPORAL], return_inverse=True)[1].to(ids.dtype)
    return squeezed


def pass_video(run: Prefill, method: Method, then: Callable[[Prefill, Segment], None]) -> Prefill:
    """Prefill all but the question into a cache of its own under another method, and do something behind each segment.

    What it cost is added to the trace of `run`.
    """
    aside = Prefill(run.language, method, run.prompt, run.features, max_new_tokens=0, record=False)
    method.begin(aside)
    for segment in aside.segments:
        if segment.tokens.stop < run.prompt.n_prompt:
            method.feed(aside, segment)
            then(aside, segment)
    aside.check_scores()
    run.trace.prefilled += aside.trace.prefilled
    run.trace.attended += aside.trace.attended
    run.trace.cache_peak = max(run.trace.cache_peak, aside.trace.cache_peak)
    return aside


def store_video(run: Prefill, method: Method) -> HostStore:
    """What another method keeps of the text in front and of each chunk of the video; costs as `pass_video`."""
    segments: list[Block] = []
    ends = [0] * run.cache.num_layers

    def store(aside: Prefill, segment: Segment) -> None:
        layers = range(aside.cache.num_layers)
        behind = [aside.cache.get_seq_length(layer) for layer in layers]
        segments.append(tuple(aside.cache.store(layer, slice(ends[layer], behind[layer])) for layer in layers))
        ends[:] = behind

    cache = pass_video(run, method, store).cache
    devices = tuple(cache.keys(layer).device for layer in range(cache.num_layers))
    prefix = segments.pop(0) if run.prompt.video_start else ()
    return HostStore(prefix, tuple(segments), devices)


def video_key(run: Prefill) -> Hashable:
    """What keys and values of a video depend on besides its features and the method that made them.

    That is the decoder, the tokens in front of the video and in it, and the ids of all of them.
    """
    stop = run.prompt.video_stop
    digest = hashlib.sha256(run.prompt.input_ids[:stop].numpy().tobytes())
    digest.update(run.prompt.positions[:, :stop].contiguous().numpy().tobytes())
    return run.language, digest.digest()


def _nbytes(stored: Stored) -> int:
    return stored.keys.nbytes + stored.values.nbytes
