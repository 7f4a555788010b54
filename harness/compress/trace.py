"""The one record of what happened to an answer: filled while it is made, stored with it, drawn by reports."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from harness.compress.cache import CompressedCache
from harness.late import torch


def digest_of(tensor: torch.Tensor) -> str:
    """Sixteen hexadecimal digits of a tensor on the host: its format, shape and numbers."""
    content = f"{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True)
class Recording:
    """Tensors of one answer, for tests and pictures.

    Attributes:
        scores: [K][L] scores [c] of each chunk; `None` for a chunk that was not scored.
        kept_indices: [K][L], or [K][L * kv heads] where heads differ, indices within the chunk that were kept; `None`
            where nothing was judged.
        logits: raw next-token logits [new, vocabulary], row 0 after prefill.
        cache: the cache after the last forward pass.
        entered: [V] which of the video's tokens entered the language model, where a method chose among them before.
    """

    scores: list[list[torch.Tensor] | None]
    kept_indices: list[list[torch.Tensor] | None]
    logits: torch.Tensor
    cache: CompressedCache = field(repr=False)
    entered: torch.Tensor | None = None


@dataclass
class Trace:
    """How much was seen and kept. K chunks, L layers; all counts in tokens.

    Attributes:
        n_encoded: video tokens that the vision tower made.
        n_video: of these, the ones that entered the language model.
        chunk_budget: [K] per layer on average; the length where nothing was compressed.
        chunk_ratio: [K] the budget as a share of the chunk, before rounding.
        kept: [K][L] of the chunk's own video tokens, right after it.
        cache_after_chunk: [K][L].
        cache_length: [L] after prefill; where heads differ in length, their mean.
        head_lengths: [L][kv heads], only where heads differ in length.
        prefilled: tokens that passed the language model before the first new token, guides included; where layers
            differ, their mean.
        attended: of these tokens, the keys that each one looked at, in all; a mean over layers too.
        cache_peak: the most tokens per layer, mean over layers, that were ever cached until then.
        host_bytes: of keys and values that waited in host memory for this answer.
        moved_bytes: of these, copied to the device for this answer.
        kept_digest: of all choices of tokens made while prefilling; `None` when nothing was chosen.
        kept_margin: how near the closest of these choices was: the smallest gap between a score that was kept and one
            that was not, as a share of the largest score of its layer.
        next_position: id of the first new token.
        ids_digest: of the token ids of the prompt, the video's placeholders included.
        positions_digest: of their position ids.
    """

    n_prompt: int
    n_encoded: int
    n_video: int
    context: int | None
    compressed: bool
    chunk_lengths: list[int]
    chunk_budget: list[int] = field(default_factory=list)
    chunk_ratio: list[float] = field(default_factory=list)
    kept: list[list[int]] = field(default_factory=list)
    cache_after_chunk: list[list[float]] = field(default_factory=list)
    cache_length: list[float] = field(default_factory=list)
    head_lengths: list[list[int]] | None = None
    prefilled: float = 0
    attended: float = 0
    cache_peak: float = 0
    host_bytes: int = 0
    moved_bytes: int = 0
    kept_digest: str | None = None
    kept_margin: float | None = None
    next_position: int | None = None
    ids_digest: str | None = None
    positions_digest: str | None = None
    recording: Recording | None = None


@dataclass(frozen=True)
class Generation:
    """The new tokens, the end token included if it came, their text, and the trace of how they came about."""

    tokens: list[int]
    trace: Trace
    text: str = ""
