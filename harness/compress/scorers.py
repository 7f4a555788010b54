"""Scorers: from the queries and keys of one layer to one score per video token of the chunk (higher = keep).

Shapes: h query heads, kv key heads, g guide tokens, c video tokens of the chunk, d head dim.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.compress.attention import Heads
from harness.compress.language import Places
from harness.compress.prompt import Segment
from harness.errors import QuestionError
from harness.late import torch

if TYPE_CHECKING:
    from harness.compress.prefill import Prefill

_BLOCK_BYTES = 64 * 2**20  # most that the attention weights of one block of queries may take


@dataclass(frozen=True)
class LayerView:
    """What a scorer sees of one layer while a chunk passes it, its guide behind it. n tokens pass, text included.

    Attributes:
        queries: [h, n, d].
        keys: [kv, n, d].
        n_guide: g, how many of the n are the guide's.
        places: [c] on the host, where the video's tokens are among those of the chunk; `None` = it has no others.
        scale: of the attention logits.
        layer: its number.
        segment: the chunk.
        run: the prompt on its way.
        context: all keys [1, kv, m, d] of the layer, those of earlier chunks too; what passes now stands at the end.
        rotated: whether the states below are as they attend, or as they were before rotation.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    n_guide: int
    places: torch.Tensor | None
    scale: float
    layer: int
    segment: Segment
    run: Prefill
    context: Heads | None = None
    rotated: bool = True

    @property
    def guide_queries(self) -> torch.Tensor:
        """[h, g, d]."""
        return self._of(self.queries, slice(self.queries.shape[1] - self.n_guide, self.queries.shape[1]))

    @property
    def chunk_queries(self) -> torch.Tensor:
        """[h, c, d]."""
        return self._of(self.queries, self._of_video)

    @property
    def chunk_keys(self) -> torch.Tensor:
        """[kv, c, d]."""
        return self._of(self.keys, self._of_video)

    def unrotated(self) -> LayerView:
        """The same before rotation."""
        return dataclasses.replace(self, rotated=False)

    @property
    def _of_video(self) -> Places:
        if self.places is None:
            return slice(0, self.queries.shape[1] - self.n_guide)
        return self.places.to(self.queries.device)

    def _of(self, states: torch.Tensor, at: Places) -> torch.Tensor:
        states = states[:, at]
        return states if self.rotated else self.run.language.unrotate(states, self.run.ids[self.layer], at)


def attention_received(
    queries: torch.Tensor, keys: torch.Tensor, scale: float, *, rounded: bool = False
) -> torch.Tensor:
    """Attention mass [c] that each key gets: softmax over the c keys, summed over queries, mean over query heads.

    The softmax is float32 whatever the states are. Computed in blocks of queries, so that the weights of all heads,
    queries and keys never exist at once.

    Args:
        queries: [h, q, d].
        keys: [kv, c, d], kv dividing h.
        scale: factor on the logits.
        rounded: round weights, sums and means to the number format of the states, as the releases do.
    """
    (heads, count, dim), (groups, length, _) = queries.shape, keys.shape
    rounded = rounded and queries.dtype != torch.float32
    total: torch.Tensor | float = 0.0
    block = max(1, _BLOCK_BYTES // (4 * heads * length))
    transposed = keys.transpose(1, 2)
    for start in range(0, count, block):
        part = queries[:, start : start + block].reshape(groups, -1, dim)  # heads of one group share their keys
        weights = torch.softmax(part * scale @ transposed, dim=-1, dtype=torch.float32)
        if rounded:
            total = total + weights.to(queries.dtype).view(heads, -1, length).float().sum(dim=1)
        else:
            total = total + weights.sum(dim=(0, 1))
    assert isinstance(total, torch.Tensor)
    return total.to(queries.dtype).mean(dim=0) if rounded else total / heads


def guide_attention(view: LayerView) -> torch.Tensor:
    """AdaReTaKe (eq. 10): attention from the guide to the chunk's video tokens only. One vector for all key heads.

    Computed from float32 states, because bfloat16 logits of a few hundred are off by whole units.
    """
    return attention_received(view.guide_queries.float(), view.chunk_keys.float(), view.scale)


def no_number(what: str) -> QuestionError:
    """The error of an answer whose scores are not all numbers."""
    return QuestionError(
        f"{what} are not all numbers, so no choice by them means anything; the model overflows in this number format: "
        "set model.dtype=float32, or check the weights with python -m harness doctor"
    )
