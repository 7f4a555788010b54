"""From a prompt and the features of its video to an answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch

from harness.compress.cache import CompressedCache
from harness.compress.decode import greedy
from harness.compress.language import LanguageModel
from harness.compress.layout import Layout
from harness.compress.method import Method
from harness.compress.positions import next_position
from harness.compress.prefill import prefill


@dataclass(frozen=True)
class Recording:
    """Tensors of one answer, for tests and pictures.

    Attributes:
        scores: [K][L] scores [c] of each chunk; `None` for a chunk that was not scored.
        kept_indices: [K][L] indices within the chunk that were kept; `None` where nothing was judged.
        logits: raw next-token logits [new, vocabulary], row 0 after prefill.
        cache: the cache after the last forward pass.
    """

    scores: list[list[torch.Tensor] | None]
    kept_indices: list[list[torch.Tensor] | None]
    logits: torch.Tensor
    cache: CompressedCache = field(repr=False)


@dataclass(frozen=True)
class Trace:
    """How much was seen and kept. K chunks, L layers; all counts in tokens."""

    n_prompt: int
    n_video: int
    context: int | None
    compressed: bool
    chunk_lengths: list[int]  # [K]
    chunk_budget: list[int]  # [K] per layer on average; the length where nothing was compressed
    chunk_ratio: list[float]  # [K] budget as a share of the chunk, before rounding
    kept: list[list[int]]  # [K][L] of the chunk's own tokens
    cache_after_chunk: list[list[int]]  # [K][L]
    cache_length: list[int]  # [L] after prefill
    recording: Recording | None = None


@dataclass(frozen=True)
class Generation:
    """The new tokens, the end token included if it came, and the trace of how they came about."""

    tokens: list[int]
    trace: Trace


@torch.inference_mode()
def generate(
    language: LanguageModel,
    *,
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    features: torch.Tensor,
    video: slice,
    tokens_per_grid: int,
    method: Method,
    context: int | None,
    max_new_tokens: int,
    eos: Collection[int] = (),
    frames_per_grid: int = 2,
    repetition_penalty: float | None = None,
    record: bool = False,
) -> Generation:
    """Answer one prompt greedily, compressing the video's tokens while prefilling.

    Args:
        language: the decoder.
        input_ids: the prompt [N], with one placeholder per video token.
        positions: position ids [r, N], by a rule of `positions`.
        features: the video's tokens [V, d] as they enter the decoder.
        video: where the V video tokens are in the prompt.
        tokens_per_grid: tokens of one grid (two frames in the Qwen families).
        method: from `build_method`.
        context: C, tokens per layer that the cache may hold after prefill; `None` = no limit.
        max_new_tokens: at most so many tokens are decoded.
        eos: tokens that end the answer.
        frames_per_grid: frames that share a grid.
        repetition_penalty: `None` = that of the checkpoint.
        record: also return scores, kept indices, logits and the cache.

    Raises:
        UserError: a context that leaves no room for the video.
        ValueError: features, positions and prompt do not belong together.
    """
    input_ids = input_ids.reshape(-1).cpu()
    layout = Layout(positions.cpu(), video, tokens_per_grid, frames_per_grid, context)
    if features.shape[0] != layout.n_video or input_ids.shape[0] != layout.n_prompt:
        raise ValueError(
            f"{features.shape[0]} features for {layout.n_video} video tokens, "
            f"{input_ids.shape[0]} tokens for {layout.n_prompt} positions"
        )
    state = prefill(language, layout, input_ids, features, method, max_new_tokens=max_new_tokens, record=record)
    cache_length = state.cache.lengths
    tokens, logits = greedy(
        language,
        method,
        state,
        input_ids,
        next_position(layout.positions),
        max_new_tokens=max_new_tokens,
        eos=eos,
        repetition_penalty=language.repetition_penalty if repetition_penalty is None else repetition_penalty,
        record=record,
    )
    chunks = state.chunks
    ratios = [_ratio(log.budget, log.length) for log in chunks]
    recording = None
    if record:
        stacked = torch.stack(logits) if logits else torch.empty(0)
        recording = Recording([c.scores for c in chunks], [c.kept_indices for c in chunks], stacked, state.cache)
    trace = Trace(
        n_prompt=layout.n_prompt,
        n_video=layout.n_video,
        context=context,
        compressed=state.compressed,
        chunk_lengths=[c.length for c in chunks],
        chunk_budget=[_tokens(log.budget, log.length) for log in chunks],
        chunk_ratio=ratios,
        kept=[c.kept for c in chunks],
        cache_after_chunk=[c.cache_length for c in chunks],
        cache_length=cache_length,
        recording=recording,
    )
    return Generation(tokens, trace)


def _ratio(budget: float | None, length: int) -> float:
    if budget is None:
        return 1.0
    return budget / length if isinstance(budget, int) else budget


def _tokens(budget: float | None, length: int) -> int:
    if budget is None:
        return length
    return budget if isinstance(budget, int) else int(budget * length)
