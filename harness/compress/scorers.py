"""Scorers: from the queries and keys of one layer to one score per video token of the chunk (higher = keep).

Shapes: h query heads, kv key heads, g guide tokens, c video tokens of the chunk, d head dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

_BLOCK_BYTES = 64 * 2**20  # most that the attention weights of one block of queries may take


@dataclass(frozen=True)
class LayerView:
    """What a scorer sees of one layer while a chunk passes it."""

    guide_queries: torch.Tensor  # [h, g, d]
    chunk_queries: torch.Tensor  # [h, c, d]
    chunk_keys: torch.Tensor  # [kv, c, d]
    scale: float  # of the attention logits
    layer: int
    chunk: int
    marked: torch.Tensor | None = None  # [c] bool, on the host; tokens that the method marked beforehand


Scorer = Callable[[LayerView], torch.Tensor]  # -> [c], float32


def attention_received(queries: torch.Tensor, keys: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention mass [c] that each key gets: softmax over the c keys, summed over queries, mean over query heads.

    Computed in blocks of queries, so that the float32 weights of all heads, queries and keys never exist at once.

    Args:
        queries: [h, q, d].
        keys: [kv, c, d], kv dividing h.
        scale: factor on the logits.
    """
    (heads, count, dim), (groups, length, _) = queries.shape, keys.shape
    total = torch.zeros(length, dtype=torch.float32, device=keys.device)
    block = max(1, _BLOCK_BYTES // (4 * heads * length))
    transposed = keys.transpose(1, 2)
    for start in range(0, count, block):
        part = queries[:, start : start + block].reshape(groups, -1, dim)  # heads of one group share their keys
        total += torch.softmax(part * scale @ transposed, dim=-1, dtype=torch.float32).sum(dim=(0, 1))
    return total / heads


def guide_attention(view: LayerView) -> torch.Tensor:
    """AdaReTaKe (eq. 10): attention from the guide to the chunk's video tokens only. One vector for all key heads."""
    return attention_received(view.guide_queries, view.chunk_keys, view.scale)
