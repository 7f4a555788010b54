"""The decoder of a transformers model, as compression needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from harness.compress.attention import KeysCached, Observer, attached
from harness.compress.cache import CompressedCache


def _half_turned(states: torch.Tensor) -> torch.Tensor:
    first, second = states.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class Decoder:
    """A transformers text model and its output head, called one segment at a time (see `compress.language`).

    Args:
        text_model: the module that maps `inputs_embeds` to hidden states.
        head: maps a hidden state to logits.
        backend: attention backend, one of `compress.attention.BACKENDS`.
        rows: rows of position ids (3 for M-RoPE, 1 otherwise).
        repetition_penalty: from the checkpoint's generation config.
        embed: embeds text tokens; the model's input embedding if not given.
    """

    def __init__(
        self,
        text_model: nn.Module,
        head: nn.Module,
        *,
        backend: str,
        rows: int,
        repetition_penalty: float = 1.0,
        embed: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.text_model, self.head, self.backend, self.rows = text_model, head, backend, rows
        self.repetition_penalty = repetition_penalty
        self.num_layers = len(text_model.layers)
        table = text_model.get_input_embeddings()
        self.device = table.weight.device
        self._embed = embed or table

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self._embed(input_ids.to(self.device))

    def forward(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        cache: CompressedCache,
        observer: Observer | None = None,
        layer_positions: list[torch.Tensor] | None = None,
        *,
        output: bool = True,
    ) -> torch.Tensor | None:
        ids = self._batched(positions, embeds.device)
        attention = attached(self.text_model.config, self.backend)
        with suppress(KeysCached), attention, self._rotated_per_layer(layer_positions):
            result = self.text_model(
                inputs_embeds=embeds[None],
                # A mapping is taken as already prepared, so no mask is built from layers of different lengths.
                attention_mask={"full_attention": None, "sliding_attention": None},
                position_ids=ids,
                past_key_values=cache,
                use_cache=True,
                observer=observer,
                final_layer=None if output else self.num_layers - 1,
            )
            return result.last_hidden_state[0, -1]
        return None

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(hidden).float()

    def rotate(self, states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        cos, sin = self._cos_sin(states, positions)
        return (states * cos + _half_turned(states) * sin).to(states.dtype)

    def unrotate(self, states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        # The embedding may scale as well as rotate (YaRN), so its inverse is the opposite rotation over scale squared.
        cos, sin = self._cos_sin(states, positions)
        square = float(getattr(self.text_model.rotary_emb, "attention_scaling", 1.0)) ** 2
        return ((states * cos - _half_turned(states) * sin) / square).to(states.dtype)

    def _batched(self, positions: torch.Tensor, device: torch.device) -> torch.Tensor:
        ids = positions.to(device, non_blocking=True)
        return ids[:, None] if self.rows > 1 else ids  # [r, 1, n] for M-RoPE, [1, n] otherwise

    def _cos_sin(self, states: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = self.text_model.rotary_emb(states, self._batched(positions, states.device))
        return mrope_rows(cos, self.text_model)[0], mrope_rows(sin, self.text_model)[0]

    @contextmanager
    def _rotated_per_layer(self, layer_positions: list[torch.Tensor] | None) -> Iterator[None]:
        """Within the context each layer rotates by its own ids; the hooks are removed in any case."""
        handles = []
        try:
            for layer, ids in zip(self.text_model.layers, layer_positions or [], strict=False):

                def swap(
                    _module: nn.Module, args: tuple, kwargs: dict[str, Any], ids: torch.Tensor = ids
                ) -> tuple[tuple, dict[str, Any]]:
                    hidden = args[0] if args else kwargs["hidden_states"]
                    embeddings = self.text_model.rotary_emb(hidden, self._batched(ids, hidden.device))
                    return args, {**kwargs, "position_embeddings": embeddings}

                handles.append(layer.register_forward_pre_hook(swap, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()


def mrope_rows(table: torch.Tensor, text_model: nn.Module) -> torch.Tensor:
    """cos or sin [b, n, d] from what a rotary module returns: that, or [3, b, n, d] in older transformers.

    Older modules return one table per row of ids and leave choosing the sections to the attention layer.
    """
    if table.ndim == 3:
        return table
    section = text_model.config.rope_parameters["mrope_section"] * 2
    return torch.cat([part[i % len(part)] for i, part in enumerate(table.split(section, dim=-1))], dim=-1)
