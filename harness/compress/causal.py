"""Attention as the model itself computes it, for methods that rank tokens by it: causal, over all that is cached.

Shapes: h query heads, kv key heads, n tokens that pass, m keys of which theirs are the last n, d head dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.compress.attention import Heads
from harness.compress.scorers import LayerView
from harness.late import torch

_BLOCK_BYTES = 64 * 2**20  # most that the weights of one block of queries may take


def together(keys: Heads) -> torch.Tensor:
    """Keys [kv, m, d] of heads that are equally long."""
    return keys[0] if isinstance(keys, torch.Tensor) else torch.cat([head[0] for head in keys])


def causal_weights(
    queries: torch.Tensor, keys: torch.Tensor, scale: float, rows: Sequence[int]
) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
    """Attention weights of some queries, block by block, so that those of all never exist at once.

    Computed from float32 states, for bfloat16 logits of a few hundred are off by whole units.

    Args:
        queries: [h, n, d].
        keys: [kv, m, d], kv dividing h; query i sees the first m - n + i + 1 of them.
        scale: factor on the logits.
        rows: which of the n queries.

    Yields:
        Some of the rows [b], and their weights [kv, h / kv, b, m].
    """
    (heads, n, dim), (groups, m, _) = queries.shape, keys.shape
    block = max(1, _BLOCK_BYTES // (4 * heads * m))
    transposed, places = keys.float().transpose(1, 2), torch.arange(m, device=keys.device)
    for start in range(0, len(rows), block):
        of_block = rows[start : start + block]
        index = torch.tensor(of_block, device=queries.device)
        asking = queries[:, index].float().reshape(groups, -1, dim)  # heads of one group share their keys
        logits = (asking @ transposed * scale).view(groups, heads // groups, len(of_block), m)
        logits = logits.masked_fill(places > (m - n + index)[:, None], -torch.inf)
        yield of_block, logits.softmax(dim=-1)


def video_columns(view: LayerView) -> torch.Tensor:
    """Where the chunk's video tokens [c] are among all keys of the layer."""
    assert view.context is not None
    n = view.queries.shape[1]
    before = view.context.shape[2] if isinstance(view.context, torch.Tensor) else view.context[0].shape[2]
    if view.places is None:
        return torch.arange(before - n, before - view.n_guide, device=view.queries.device)
    return view.places.to(view.queries.device) + (before - n)


def received(view: LayerView, rows: Sequence[int], *, per_head: bool = False) -> torch.Tensor:
    """Attention that each video token of the chunk gets from some of the passing tokens, by their number.

    Softmax over all that a query sees, mean over the queries, mean over query heads: [c]; or `per_head`, the mean over
    the query heads of each key head: [kv, c].
    """
    assert view.context is not None
    columns = video_columns(view)
    total = torch.zeros(view.keys.shape[0], len(columns), device=view.queries.device)
    for _, weights in causal_weights(view.queries, together(view.context), view.scale, rows):
        total += weights.index_select(-1, columns).sum(2).mean(1)
    total /= max(1, len(rows))
    return total if per_head else total.mean(0)


def guide_rows(view: LayerView) -> range:
    """The guide's tokens among those that pass."""
    n = view.queries.shape[1]
    return range(n - view.n_guide, n)
