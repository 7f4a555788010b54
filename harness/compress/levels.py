"""Compressors without training or question: a chunk becomes so many slots, which later chunks attend to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.evict import ChunkEvictor
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.scorers import LayerView, attention_received
from harness.late import torch


@dataclass(frozen=True)
class Level(ChunkEvictor):
    """A prefill in which each chunk keeps the slots [K] given for its video tokens, and all of its text.

    As it stands here the tokens kept are those that get most attention from their own chunk (as ReTaKe's PivotKV).
    """

    uses_guide: ClassVar[bool] = False
    sees_question: ClassVar[bool] = False
    reusable: ClassVar[bool] = True

    slots: tuple[int, ...] = ()

    @property
    def tracks_positions(self) -> bool:
        return True

    def compresses(self, prompt: Prompt) -> bool:
        return True

    def budgets(self, run: Prefill, lengths: Sequence[int]) -> list[int]:
        return list(self.slots)

    def score(self, view: LayerView) -> torch.Tensor:
        return attention_received(view.chunk_queries.float(), view.chunk_keys.float(), view.scale)


@dataclass(frozen=True)
class PooledLevel(Level):
    """Averages runs of tokens: keys from before rotation, which are then rotated by the mean of their ids, and values.

    So does Video-XL-2 (arXiv 2506.19225) with runs of four.
    """

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        if segment.chunk is None:
            return super().feed(run, segment)
        run.forward(segment)
        count = self.slots[segment.chunk]
        if count < segment.n_video:
            self._pool(run, segment, shares(run, segment, count))
        return None

    def _pool(self, run: Prefill, segment: Segment, weights: torch.Tensor) -> None:
        cache, n = run.cache, segment.length
        old = run.prompt.positions[:, segment.tokens]
        new = old.float() @ weights.T
        for layer in range(cache.num_layers):
            keys, values = cache.keys(layer)[:, -n:], cache.values(layer)[:, -n:]
            of_layer = weights.to(keys.device)
            content = of_layer @ run.language.unrotate(keys.float(), old)
            keys[:, : len(weights)] = run.language.rotate(content, new).to(keys.dtype)
            values[:, : len(weights)] = (of_layer @ values.float()).to(values.dtype)
            cache.keep_of_last(layer, n, torch.arange(len(weights)))
            cache.change_positions(layer, new)


def shares(run: Prefill, segment: Segment, count: int) -> torch.Tensor:
    """What each token of a segment contributes to each of its slots [s, n] when its video tokens are averaged.

    The video tokens make `count` runs, as equal as can be; a token of text is a slot of its own.
    """
    places = run.places(segment)
    groups = torch.arange(len(places)) * count // len(places)
    first = torch.arange(segment.length)  # of each token, the first token of its slot
    first[places] = places[torch.searchsorted(groups, groups)]
    slot = torch.unique(first, return_inverse=True)[1]
    member = torch.nn.functional.one_hot(slot).T.float()
    return member / member.sum(dim=1, keepdim=True)


COMPRESSORS: Mapping[str, type[Level]] = {"pooled": PooledLevel, "self_attention": Level}
