"""Until something is evicted, equal tokens at equal ids give equal queries, keys and values, whatever the method.

So the passes up to the first eviction are run once for all methods that answer one question after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from harness.compress.attention import Observer
from harness.compress.cache import CompressedCache
from harness.late import torch

Forward: TypeAlias = "Callable[..., torch.Tensor | None]"


@dataclass
class Pass:
    """What one pass put into the cache, and what it showed to an observer; n tokens, by layer [L].

    Attributes:
        queries: [h, n, d] after rotation; none where nobody looked.
        keys: [kv, n, d] after rotation.
        values: [kv, n, d].
        scale: of the attention logits.
    """

    queries: list[torch.Tensor]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    scale: float

    def again(self, cache: CompressedCache, observer: Observer | None) -> None:
        """Append it to a cache, and show it."""
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            cached, _ = cache.update(keys[None], values[None], layer)
            if observer is not None:
                observer(layer, self.queries[layer], cached, self.scale)


def passes_of(memo: dict[Any, Any], input_ids: torch.Tensor, *, repeats: bool) -> dict[Any, Pass] | None:
    """The passes known of a prompt [N], to be read and added to; `None` where there is nothing to read or to keep.

    Only those of one prompt are held, and not beyond its last method.

    Args:
        memo: of the video.
        input_ids: on the host.
        repeats: whether the prompt will come again.
    """
    name = input_ids.numpy().tobytes()
    of, passes = memo.pop("first_passes", (None, {}))
    if of != name:
        passes = {}
    if repeats:
        memo["first_passes"] = name, passes
    return passes if repeats or passes else None


def once(forward: Forward, passes: dict[Any, Pass], key: Any) -> Forward:
    """`LanguageModel.forward` for a pass without output: not run where `passes` has it under `key`."""

    def run(
        embeds: torch.Tensor,
        positions: torch.Tensor,
        cache: CompressedCache,
        observer: Observer | None = None,
        **options: Any,
    ) -> None:
        if (known := passes.get(key)) is not None:
            known.again(cache, observer)
            return
        queries: list[torch.Tensor] = []
        scales: list[float] = []

        def looking(layer: int, query: torch.Tensor, cached: Any, scale: float) -> None:
            queries.append(query)
            scales.append(scale)
            if observer is not None:
                observer(layer, query, cached, scale)

        forward(embeds, positions, cache, None if observer is None else looking, **options)
        n, layers = positions.shape[1], range(cache.num_layers)
        keys = [cache.keys(layer)[:, -n:].clone() for layer in layers]
        values = [cache.values(layer)[:, -n:].clone() for layer in layers]
        passes[key] = Pass(queries, keys, values, scales[0] if scales else 1.0)

    return run
