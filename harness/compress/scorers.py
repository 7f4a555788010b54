"""Scorers: from the queries and keys of one layer to one score per video token of the chunk (higher = keep).

Shapes: h query heads, kv key heads, g guide tokens, c video tokens of the chunk, d head dim.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.compress.prompt import Segment

if TYPE_CHECKING:
    from harness.compress.prefill import Prefill

_BLOCK_BYTES = 64 * 2**20  # most that the attention weights of one block of queries may take


@dataclass(frozen=True)
class LayerView:
    """What a scorer sees of one layer while a chunk passes it."""

    guide_queries: torch.Tensor  # [h, g, d]
    chunk_queries: torch.Tensor  # [h, c, d]
    chunk_keys: torch.Tensor  # [kv, c, d]
    scale: float  # of the attention logits
    layer: int
    segment: Segment
    run: Prefill

    def unrotated(self) -> LayerView:
        """The same before rotation."""
        language, ids, chunk = self.run.language, self.run.ids[self.layer], self.chunk_queries.shape[1]
        return dataclasses.replace(
            self,
            guide_queries=language.unrotate(self.guide_queries, ids[:, ids.shape[1] - self.guide_queries.shape[1] :]),
            chunk_queries=language.unrotate(self.chunk_queries, ids[:, :chunk]),
            chunk_keys=language.unrotate(self.chunk_keys, ids[:, :chunk]),
        )


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
    total = torch.zeros((heads, length) if rounded else (length,), dtype=torch.float32, device=keys.device)
    block = max(1, _BLOCK_BYTES // (4 * heads * length))
    transposed = keys.transpose(1, 2)
    for start in range(0, count, block):
        part = queries[:, start : start + block].reshape(groups, -1, dim)  # heads of one group share their keys
        weights = torch.softmax(part * scale @ transposed, dim=-1, dtype=torch.float32)
        if rounded:
            total += weights.to(queries.dtype).view(heads, -1, length).float().sum(dim=1)
        else:
            total += weights.sum(dim=(0, 1))
    return total.to(queries.dtype).mean(dim=0) if rounded else total / heads


def guide_attention(view: LayerView) -> torch.Tensor:
    """AdaReTaKe (eq. 10): attention from the guide to the chunk's video tokens only. One vector for all key heads.

    Computed from float32 states, because bfloat16 logits of a few hundred are off by whole units.
    """
    return attention_received(view.guide_queries.float(), view.chunk_keys.float(), view.scale)
