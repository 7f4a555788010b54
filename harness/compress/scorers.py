"""Scorers: from the queries and keys of one layer to one score per video token of the chunk (higher = keep).

Shapes: h query heads, kv key heads, g guide tokens, c video tokens of the chunk, d head dim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.compress.attention import Heads
from harness.compress.cache import CompressedCache
from harness.compress.language import Places
from harness.compress.prompt import Segment
from harness.errors import QuestionError, UserError
from harness.late import torch

if TYPE_CHECKING:
    from harness.compress.prefill import Prefill


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


TRAP = (
    "a method that evicts only after the question was prefilled cannot change the first token, and the letter that "
    "answers a question is the first token"
)


def trapped(what: str, instead: str) -> UserError:
    """The error of a setting, or of a method, that evicts too late: what it is, and what to do instead."""
    return UserError(f"{what}: {TRAP}; {instead}")


def slots(cache: CompressedCache) -> list[list[int]]:
    """Slots of every layer and head [L][kv], to be compared later."""
    return [list(cache.head_lengths(layer)) for layer in range(cache.num_layers)]


def check_nothing_evicted(method: str, behind_question: list[list[int]], cache: CompressedCache) -> None:
    """Raise UserError where a method changed the cache between the question and the first token."""
    if slots(cache) != behind_question:
        raise trapped(f"method {method} evicts behind the question", "evict in before_question, or behind every chunk")
