"""How far the output of a compressed prompt is from that of the whole one, against the attention mass that was kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.compress.evict import ChunkEvictor, Counts
from harness.compress.method import Method, build_method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.trace import Recording
from harness.models.adapter import Adapter
from harness.models.features import VideoFeatures

SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 16)
"""Of the video's tokens that are kept."""


@dataclass(frozen=True)
class AtRandom(ChunkEvictor):
    """Scores as the paper does and evicts without regard to them: the same budget for less mass."""

    def choose(self, run: Prefill, segment: Segment, scores: list[torch.Tensor], counts: Counts) -> list[Any]:
        generator = torch.Generator().manual_seed(segment.chunk or 0)
        drawn = [torch.randperm(len(s), generator=generator) for s in scores]
        return [order[:count].sort().values.to(s.device) for order, count, s in zip(drawn, counts, scores, strict=True)]


def choices(chunk_frames: int) -> dict[str, Method]:
    """What is compared at equal budgets, every chunk in proportion to its length."""
    paper = {"chunk_frames": chunk_frames, "temporal": False}
    return {
        "pooled": build_method("adaretake", layers=True, **paper),
        "even": build_method("adaretake", layers=False, **paper),
        "at random": AtRandom(name="at random", chunk_frames=chunk_frames),
    }


def kept_mass(recording: Recording) -> list[float]:
    """Share of the guide's attention to the video that each layer kept [L], mean over the chunks."""
    shares = []
    for scores, kept in zip(recording.scores, recording.kept_indices, strict=True):
        if scores is not None and kept is not None:
            shares.append([float(s[i].sum() / s.sum()) for s, i in zip(scores, kept, strict=True)])
    return [sum(of_layer) / len(shares) for of_layer in zip(*shares, strict=True)]


def errors(
    adapter: Adapter, video: VideoFeatures, question: str, *, chunk_frames: int, shares: Sequence[float] = SHARES
) -> Iterator[dict[str, Any]]:
    """One row per budget and choice: log of the product of kept mass, and two distances to the uncompressed output.

    `logits` is the distance of the next token's logits relative to the length of the uncompressed ones; `tokens` is the
    total variation between the two distributions of the next token.
    """
    none = build_method("none", chunk_frames=chunk_frames)
    whole = _logits(adapter.answer(video, question, none, max_new_tokens=1, record=True).trace.recording)
    prompt = adapter.prompt(question, video)
    for share in shares:
        context = prompt.n_text + max(1, round(share * prompt.n_video))
        for name, method in choices(chunk_frames).items():
            trace = adapter.answer(video, question, method, context, max_new_tokens=1, record=True).trace
            assert trace.recording is not None
            if not trace.compressed:
                continue
            found = _logits(trace.recording)
            mass = kept_mass(trace.recording)
            yield {
                "choice": name,
                "share": share,
                "log_mass": sum(map(math.log, mass)),
                "logits": float((found - whole).norm() / whole.norm()),
                "tokens": float((found.softmax(0) - whole.softmax(0)).abs().sum() / 2),
            }


def _logits(recording: Recording | None) -> torch.Tensor:
    assert recording is not None
    return recording.logits[0].double()
