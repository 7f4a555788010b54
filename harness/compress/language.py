"""What compression needs of a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from harness.compress.attention import Observer
from harness.compress.cache import CompressedCache

Reduce = Callable[[int, torch.Tensor], "tuple[torch.Tensor, torch.Tensor] | None"]
"""(layer, its input [m, d]) -> fewer states [k, d] and which tokens of the segment they stand for [k]; or `None`."""


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

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits [vocabulary], float32, of one hidden state [d]."""

    def rotate(self, states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Apply the rotary embedding of ids [r, n] to states [h, n, d]."""

    def unrotate(self, states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Undo `rotate`."""
