"""A key-value cache whose layers, and heads, may differ in length and from whose end tokens can be evicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from harness.late import torch

Kept: TypeAlias = "torch.Tensor | Sequence[torch.Tensor]"
"""Indices [k], ascending, of tokens to keep: for all heads of a layer, or one tensor per key-value head."""

NewBuffer: TypeAlias = "Callable[[torch.Tensor, int], torch.Tensor]"
"""(states [1, h, n, d], capacity) -> an empty [1, h, capacity, d] for states of their kind, wherever it is to be."""


@dataclass(frozen=True)
class Stored:
    """A copy of some cached tokens of one layer, wherever it waits.

    Attributes:
        keys: rotated [kv heads, n, head dim].
        values: [kv heads, n, head dim].
        positions: ids [r, n]; `None` where the cache tracks none.
    """

    keys: torch.Tensor
    values: torch.Tensor
    positions: torch.Tensor | None


class CompressedCache:
    """Keys and values per layer, each layer on its own device and of its own length.

    It has the two methods that attention layers of transformers call on a cache (`update`, `get_seq_length`). Tokens
    are written into a buffer that is reserved once, so neither a chunk nor a decoded token copies the whole cache. A
    layer in which heads keep different numbers of tokens is held head by head from then on.

    Args:
        num_layers: layers of the language model.
        reserve: tokens per layer to make room for at first use; a layer that needs more at least doubles.
        track_positions: keep the position ids of every cached token (position reforging needs them).
        new_buffer: makes the buffers; beside the states if not given.
    """

    def __init__(
        self,
        num_layers: int,
        *,
        reserve: int = 0,
        track_positions: bool = False,
        new_buffer: NewBuffer | None = None,
    ) -> None:
        self.num_layers = num_layers
        self.track_positions = track_positions
        self._layers: list[_Heads] = [_Heads(reserve, new_buffer or _beside) for _ in range(num_layers)]
        self._positions: list[torch.Tensor | None] = [None] * num_layers

    @property
    def lengths(self) -> list[float]:
        """Cached tokens per layer [L]; where heads differ, their mean (a whole number if it is one)."""
        return [mean(self.head_lengths(layer)) for layer in range(self.num_layers)]

    @property
    def ragged(self) -> bool:
        """Whether heads of some layer differ in length."""
        return any(len(set(self.head_lengths(layer))) > 1 for layer in range(self.num_layers))

    def head_lengths(self, layer: int) -> list[int]:
        """Cached tokens of each key-value head of a layer; one number while all heads are held together."""
        return self._layers[layer].lengths

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Cached tokens of the longest head of one layer."""
        return max(self.head_lengths(layer_idx))

    def keys(self, layer: int) -> torch.Tensor:
        """Cached keys [kv heads, length, head dim] of a layer whose heads are of one length, rotated; a view if it can.

        Raises:
            ValueError: the heads differ in length; see `head_keys`.
        """
        return self._layers[layer].together(0)

    def values(self, layer: int) -> torch.Tensor:
        """Cached values [kv heads, length, head dim]; as `keys`."""
        return self._layers[layer].together(1)

    def head_keys(self, layer: int, head: int) -> torch.Tensor:
        """Cached keys [length, head dim] of one key-value head, rotated; a view."""
        return self._layers[layer].head(0, head)

    def head_values(self, layer: int, head: int) -> torch.Tensor:
        """Cached values [length, head dim] of one key-value head; a view."""
        return self._layers[layer].head(1, head)

    def positions(self, layer: int) -> torch.Tensor:
        """Position ids [r, length] of the cached tokens, where the layer is; only with `track_positions`."""
        ids = self._positions[layer]
        if ids is None:
            raise ValueError("this cache does not track positions, or its heads keep different tokens")
        return ids

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_args: object, **_kwargs: object
    ) -> tuple[torch.Tensor | list[torch.Tensor], torch.Tensor | list[torch.Tensor]]:
        """Append [1, kv heads, n, head dim] to a layer.

        Returns:
            All its keys and values (views) [1, kv heads, length, head dim]; of a layer held head by head, lists of
            [1, 1, length, head dim], which `attention` knows how to read.
        """
        layer = self._layers[layer_idx]
        layer.append(keys, values)
        return layer.states(0), layer.states(1)

    def append_positions(self, layer: int, ids: torch.Tensor) -> None:
        """Record the ids [r, n] of the tokens just appended to a layer."""
        if self.track_positions and not self._layers[layer].split:
            old, ids = self._positions[layer], ids.to(self._layers[layer].device, non_blocking=True)
            self._positions[layer] = ids if old is None else torch.cat((old, ids), dim=1)

    def change_positions(self, layer: int, ids: torch.Tensor) -> None:
        """Record other ids [r, n] for the last n tokens of a layer."""
        if (old := self._positions[layer]) is not None:
            self._positions[layer] = torch.cat((old[:, : old.shape[1] - ids.shape[1]], ids.to(old.device)), dim=1)

    def last_ids(self, row: int) -> list[int]:
        """The id in one row of each layer's last token [L]; -1 of an empty layer. Waits for the device once."""
        if not self.get_seq_length(0):
            return [-1] * self.num_layers
        lasts = [self.positions(layer)[row, -1] for layer in range(self.num_layers)]
        found: list[int] = torch.stack([last.to(lasts[0].device) for last in lasts]).tolist()
        return found

    def drop_last(self, count: int) -> None:
        """Remove the last `count` tokens of every layer."""
        for layer in range(self.num_layers):
            self._layers[layer].drop_last(count)
            if (ids := self._positions[layer]) is not None:
                self._positions[layer] = ids[:, : ids.shape[1] - count]

    def keep_of_last(self, layer: int, count: int, kept: Kept) -> None:
        """Of the last `count` tokens of a layer keep those at `kept` (0 = the first of the `count`).

        With one tensor per head the layer is held head by head from then on, and has no position ids any more.
        """
        if not isinstance(kept, torch.Tensor) and len(kept) == 1:  # one head: it is all heads
            kept = kept[0]
        if isinstance(kept, torch.Tensor):
            if kept.numel() == count:
                return
            if (ids := self._positions[layer]) is not None:
                start = ids.shape[1] - count
                self._positions[layer] = torch.cat((ids[:, :start], ids[:, start:][:, kept.to(ids.device)]), dim=1)
        else:
            self._positions[layer] = None
        self._layers[layer].keep_of_last(count, kept)

    def store(self, layer: int, tokens: slice, device: torch.device | str = "cpu") -> Stored:
        """A copy of some tokens of a layer, to wait on `device`."""
        ids = self._positions[layer]
        keys, values = (state[:, tokens].to(device, copy=True) for state in (self.keys(layer), self.values(layer)))
        return Stored(keys, values, None if ids is None else ids[:, tokens].to(device, copy=True))

    def append(self, layer: int, stored: Stored, device: torch.device) -> None:
        """Put stored tokens behind those of a layer, which is on `device`."""
        self.update(stored.keys.to(device)[None], stored.values.to(device)[None], layer)
        if stored.positions is not None:
            self.append_positions(layer, stored.positions)

    def replace(self, layer: int, tokens: slice, stored: Stored) -> None:
        """Put stored tokens where some of a layer's tokens are; the layer may become longer or shorter."""
        keys, values, ids = self.keys(layer), self.values(layer), self._positions[layer]
        states = []
        for old, new in ((keys, stored.keys), (values, stored.values)):
            new = new.to(old.device, old.dtype, non_blocking=True)
            states.append(torch.cat((old[:, : tokens.start], new, old[:, tokens.stop :]), dim=1)[None])
        self._layers[layer].clear()
        self._layers[layer].append(*states)
        if ids is not None and stored.positions is not None:
            self._positions[layer] = torch.cat(
                (ids[:, : tokens.start], stored.positions.to(ids.device), ids[:, tokens.stop :]), dim=1
            )


class _Heads:
    """One layer: one buffer [1, kv heads, capacity, head dim], or [1, 1, capacity, head dim] per head."""

    def __init__(self, reserve: int, new_buffer: NewBuffer) -> None:
        self._reserve, self._new_buffer = reserve, new_buffer
        self._buffers: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])  # keys, values
        self.lengths = [0]

    @property
    def split(self) -> bool:
        """Whether it is held head by head."""
        return len(self.lengths) > 1

    @property
    def device(self) -> torch.device:
        """Where it is, once something is in it."""
        return self._buffers[0][0].device

    def clear(self) -> None:
        self.lengths = [0] * len(self.lengths)

    def states(self, which: int) -> torch.Tensor | list[torch.Tensor]:
        parts = [buffer[:, :, :length] for buffer, length in zip(self._buffers[which], self.lengths, strict=True)]
        return parts if self.split else parts[0]

    def together(self, which: int) -> torch.Tensor:
        states = self.states(which)
        if isinstance(states, torch.Tensor):
            return states[0]
        if len(set(self.lengths)) > 1:
            raise ValueError(f"the heads of this layer hold {self.lengths} tokens")
        return torch.cat(states, dim=1)[0]

    def head(self, which: int, head: int) -> torch.Tensor:
        states = self.states(which)
        return states[0, head] if isinstance(states, torch.Tensor) else states[head][0, 0]

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        count = keys.shape[2]
        for buffers, new in zip(self._buffers, (keys, values), strict=True):
            parts = new.split(1, dim=1) if self.split else (new,)
            for i, part in enumerate(parts):
                stop = self.lengths[i] + count
                if len(buffers) <= i:
                    buffers.append(self._new_buffer(part, max(stop, self._reserve)))
                elif (capacity := buffers[i].shape[2]) < stop:
                    used = buffers[i][:, :, : self.lengths[i]]
                    buffers[i] = self._new_buffer(part, max(stop, 2 * capacity))
                    buffers[i][:, :, : self.lengths[i]] = used
                buffers[i][:, :, self.lengths[i] : stop] = part
        self.lengths = [length + count for length in self.lengths]

    def drop_last(self, count: int) -> None:
        self.lengths = [length - count for length in self.lengths]

    def keep_of_last(self, count: int, kept: Kept) -> None:
        if not isinstance(kept, torch.Tensor) and not self.split:
            for buffers in self._buffers:
                buffers[:] = [part.clone() for part in buffers[0].split(1, dim=1)]
            self.lengths = self.lengths * len(self._buffers[0])
        for i, start in enumerate([length - count for length in self.lengths]):
            chosen = kept if isinstance(kept, torch.Tensor) else kept[i]
            stop = start + chosen.numel()
            for buffers in self._buffers:
                buffers[i][:, :, start:stop] = buffers[i].index_select(2, chosen.to(buffers[i].device) + start)
            self.lengths[i] = stop


def mean(lengths: Sequence[float]) -> float:
    """Of numbers of tokens; whole if it is."""
    whole, rest = divmod(sum(lengths), len(lengths))
    return sum(lengths) / len(lengths) if rest else whole


def _beside(like: torch.Tensor, capacity: int) -> torch.Tensor:
    return like.new_empty(*like.shape[:2], capacity, like.shape[3])
