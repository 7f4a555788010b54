"""What compression needs of a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from harness.compress.attention import Observer
from harness.compress.cache import CompressedCache
from harness.late import torch

Places: TypeAlias = "slice | torch.Tensor"
"""Some of n tokens: a slice, or indices [k]."""

Reduce: TypeAlias = "Callable[[int, torch.Tensor], tuple[torch.Tensor, torch.Tensor] | None]"
"""(layer, its input [m, d]) -> fewer states [k, d] and which tokens of the segment they stand for [k]; or `None`."""


LayerInput: TypeAlias = "Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor] | None]"
"""(layer, hidden [m, d], alive [m]) -> hidden [k, d] and alive [k] where tokens are dropped or merged before the layer.

`alive` are the places of the tokens in what was passed, guide included; the last one must stay.
"""


class LanguageModel(Protocol):
    """The decoder of a multimodal model, one prompt at a time.

    Shapes: n tokens, d hidden size, r rows of position ids (3 for M-RoPE, 1 otherwise), h heads.
    """

    num_layers: int
    device: torch.device  # where embeddings enter
    dtype: torch.dtype  # of the embeddings
    repetition_penalty: float  # of the checkpoint's generation config; 1 = none

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [n, d] of text tokens [n], on `device`."""

    def forward(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        cache: CompressedCache,
        observer: Observer | None = None,
        layer_positions: list[torch.Tensor] | None = None,
        *,
        between: Reduce | None = None,
        added: Sequence[torch.Tensor] = (),
        added_at: torch.Tensor | None = None,
        output: bool = True,
    ) -> torch.Tensor | None:
        """Run one segment [n, d] behind what is cached; returns the last hidden state of its last token [d].

        Args:
            positions: ids [r, n].
            observer: sees each layer's queries and keys.
            layer_positions: ids [r, n] per layer, instead of `positions`.
            between: drops or merges states before a layer; from there on the segment is shorter.
            added: features [c, d] on the host, added behind layer 0, 1, ... to the tokens `added_at` [c] (deepstack).
            output: false where only the segment's keys and values are wanted; returns None, and saves most of the
                last layer.
        """

    def queries_and_keys(
        self, layer: int, hidden: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """What a layer would attend by: rotated queries [h, n, d], keys [kv, n, d] and the logit scale.

        Args:
            layer: its number.
            hidden: its input [n, hidden size].
            positions: ids [r, n].
        """

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits [vocabulary], float32, of one hidden state [d]."""

    def rotate(self, states: torch.Tensor, positions: torch.Tensor, at: Places = slice(None)) -> torch.Tensor:
        """Apply the rotary embedding of ids [r, n] to states [h, n, d], or to the states [h, k, d] of those `at`.

        What ids make is remembered by the tensor that holds them: give the same one for many layers, and never change
        it.
        """

    def unrotate(self, states: torch.Tensor, positions: torch.Tensor, at: Places = slice(None)) -> torch.Tensor:
        """Undo `rotate`."""


class Alive:
    """Passes hidden states on to a method before each layer, and notes which tokens are left from there on."""

    def __init__(self, between: LayerInput, alive: list[torch.Tensor]) -> None:
        self._between, self._alive = between, alive

    def __call__(self, layer: int, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        before = self._alive[layer]
        reduced = self._between(layer, hidden, before)
        if reduced is None:
            return None
        hidden, after = reduced[0], reduced[1].cpu()
        if len(hidden) != len(after) or not len(after) or after[-1] != before[-1]:
            raise ValueError(f"before layer {layer} {len(hidden)} states for {len(after)} tokens; the last must stay")
        self._alive[layer:] = [after] * (len(self._alive) - layer)
        return hidden, after
