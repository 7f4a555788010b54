"""A key-value cache whose layers may differ in length and from whose end tokens can be evicted."""

from __future__ import annotations

import torch

_SLACK = 256  # tokens of room added whenever a layer outgrows its buffer


class CompressedCache:
    """Keys and values [1, kv heads, length, head dim] per layer, each layer on its own device and of its own length.

    It has the two methods that attention layers of transformers call on a cache (`update`, `get_seq_length`). Tokens
    are written into a buffer that is reserved once, so neither a chunk nor a decoded token copies the whole cache.

    Args:
        num_layers: layers of the language model.
        reserve: tokens per layer to make room for at first use; a layer that needs more grows.
        track_positions: keep the position ids of every cached token (position reforging needs them).
    """

    def __init__(self, num_layers: int, *, reserve: int = 0, track_positions: bool = False) -> None:
        self.num_layers = num_layers
        self.track_positions = track_positions
        self._reserve = reserve
        self._keys: list[torch.Tensor | None] = [None] * num_layers
        self._values: list[torch.Tensor | None] = [None] * num_layers
        self._lengths = [0] * num_layers
        self._positions: list[torch.Tensor | None] = [None] * num_layers

    @property
    def lengths(self) -> list[int]:
        """Cached tokens per layer [L]."""
        return list(self._lengths)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Cached tokens of one layer."""
        return self._lengths[layer_idx]

    def keys(self, layer: int) -> torch.Tensor:
        """Cached keys [kv heads, length, head dim] of a layer, rotated; a view."""
        return self._keys[layer][0, :, : self._lengths[layer]]

    def values(self, layer: int) -> torch.Tensor:
        """Cached values [kv heads, length, head dim] of a layer; a view."""
        return self._values[layer][0, :, : self._lengths[layer]]

    def positions(self, layer: int) -> torch.Tensor:
        """Position ids [r, length] of the cached tokens on the host; only with `track_positions`."""
        if self._positions[layer] is None:
            raise ValueError("this cache does not track positions")
        return self._positions[layer]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_args: object, **_kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append [1, kv heads, n, head dim] to a layer; returns all its keys and values (views)."""
        start, stop = self._lengths[layer_idx], self._lengths[layer_idx] + keys.shape[2]
        if self._keys[layer_idx] is None or self._keys[layer_idx].shape[2] < stop:
            capacity = max(stop + _SLACK, self._reserve)
            self._keys[layer_idx] = _grown(self._keys[layer_idx], keys, start, capacity)
            self._values[layer_idx] = _grown(self._values[layer_idx], values, start, capacity)
        self._keys[layer_idx][:, :, start:stop] = keys
        self._values[layer_idx][:, :, start:stop] = values
        self._lengths[layer_idx] = stop
        return self._keys[layer_idx][:, :, :stop], self._values[layer_idx][:, :, :stop]

    def append_positions(self, layer: int, ids: torch.Tensor) -> None:
        """Record the ids [r, n] (host) of the tokens just appended to a layer."""
        if self.track_positions:
            old = self._positions[layer]
            self._positions[layer] = ids if old is None else torch.cat((old, ids), dim=1)

    def drop_last(self, count: int) -> None:
        """Remove the last `count` tokens of every layer."""
        for layer in range(self.num_layers):
            self._lengths[layer] -= count
            if self._positions[layer] is not None:
                self._positions[layer] = self._positions[layer][:, : self._lengths[layer]]

    def keep_of_last(self, layer: int, count: int, kept: torch.Tensor) -> None:
        """Of the last `count` tokens of a layer keep those at `kept` [k] (ascending, 0 = the first of the `count`)."""
        if kept.numel() == count:
            return
        start = self._lengths[layer] - count
        stop = start + kept.numel()
        index = kept.to(self._keys[layer].device) + start
        for buffer in (self._keys[layer], self._values[layer]):
            buffer[:, :, start:stop] = buffer.index_select(2, index)
        if self._positions[layer] is not None:
            old = self._positions[layer]
            self._positions[layer] = torch.cat((old[:, :start], old[:, start:][:, kept.cpu()]), dim=1)
        self._lengths[layer] = stop


def _grown(old: torch.Tensor | None, like: torch.Tensor, used: int, capacity: int) -> torch.Tensor:
    buffer = like.new_empty(*like.shape[:2], capacity, like.shape[3])
    if used:
        buffer[:, :, :used] = old[:, :, :used]
    return buffer
