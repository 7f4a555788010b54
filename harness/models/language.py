"""The decoder of a transformers model, as compression needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from harness.compress.attention import Kernel, KeysCached, Observer, attached
from harness.compress.cache import CompressedCache
from harness.compress.language import Places, Reduce
from harness.late import torch

_TABLES = 4  # rotations remembered: those of a chunk before and behind squeezing, on two devices
_ALL = slice(None)


def rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """States [..., d] turned by angles of those cosines and sines, of which either half repeats the other."""
    half = states.shape[-1] // 2
    turned = states * cos
    turned[..., :half] -= states[..., half:] * sin[..., :half]
    turned[..., half:] += states[..., :half] * sin[..., half:]
    return turned


class Decoder:
    """A transformers text model and its output head, called one segment at a time (see `compress.language`).

    Args:
        text_model: the module that maps `inputs_embeds` to hidden states.
        head: maps a hidden state to logits.
        backend: attention backend, one of `compress.attention.BACKENDS`, or a kernel.
        rows: rows of position ids (3 for M-RoPE, 1 otherwise).
        repetition_penalty: from the checkpoint's generation config.
        embed: embeds text tokens; the model's input embedding if not given.
    """

    def __init__(
        self,
        text_model: Any,
        head: Callable[[torch.Tensor], torch.Tensor],
        *,
        backend: str | Kernel,
        rows: int,
        repetition_penalty: float = 1.0,
        embed: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.text_model, self.head, self.backend, self.rows = text_model, head, backend, rows
        self.repetition_penalty = repetition_penalty
        self.num_layers = len(text_model.layers)
        table = text_model.get_input_embeddings()
        self.device, self.dtype = table.weight.device, table.weight.dtype
        self._embed = embed or table
        self._tables: list[tuple[torch.Tensor, tuple[torch.device, torch.dtype], torch.Tensor, torch.Tensor]] = []

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
        between: Reduce | None = None,
        added: Sequence[torch.Tensor] = (),
        added_at: torch.Tensor | None = None,
        output: bool = True,
    ) -> torch.Tensor | None:
        ids = self._batched(positions, embeds.device)
        inputs = _LayerInputs(self, layer_positions, between, added, added_at)
        with suppress(KeysCached), attached(self.text_model.config, self.backend), inputs.hooked():
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
            last: torch.Tensor = result.last_hidden_state[0, -1]
            return last
        return None

    def queries_and_keys(
        self, layer: int, hidden: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        module = self.text_model.layers[layer]
        attention, normed = module.self_attn, module.input_layernorm(hidden)
        states = []
        for project, norm in ((attention.q_proj, "q_norm"), (attention.k_proj, "k_norm")):
            heads = project(normed).unflatten(-1, (-1, attention.head_dim))
            heads = getattr(attention, norm)(heads) if hasattr(attention, norm) else heads
            states.append(self.rotate(heads.transpose(0, 1), positions))
        return states[0], states[1], float(attention.scaling)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(hidden).float()

    def rotate(self, states: torch.Tensor, positions: torch.Tensor, at: Places = _ALL) -> torch.Tensor:
        cos, sin = self._cos_sin(states, positions)
        return rotated(states, cos[at], sin[at])

    def unrotate(self, states: torch.Tensor, positions: torch.Tensor, at: Places = _ALL) -> torch.Tensor:
        # The embedding may scale as well as rotate (YaRN), so its inverse is the opposite rotation over scale squared.
        cos, sin = self._cos_sin(states, positions)
        square = float(getattr(self.text_model.rotary_emb, "attention_scaling", 1.0)) ** 2
        turned = rotated(states, cos[at], -sin[at])
        return turned if square == 1 else turned / square

    def _batched(self, positions: torch.Tensor, device: torch.device) -> torch.Tensor:
        ids = positions.to(device, non_blocking=True)
        return ids[:, None] if self.rows > 1 else ids  # [r, 1, n] for M-RoPE, [1, n] otherwise

    def _cos_sin(self, states: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for ids, like, cos, sin in self._tables:
            if ids is positions and like == (states.device, states.dtype):
                return cos, sin
        cos, sin = self.text_model.rotary_emb(states, self._batched(positions, states.device))
        # Where layers are spread over devices, the tables come back on the device of the rotary module.
        cos, sin = (mrope_rows(table.to(states.device), self.text_model)[0] for table in (cos, sin))
        self._tables = [(positions, (states.device, states.dtype), cos, sin), *self._tables[: _TABLES - 1]]
        return cos, sin


class _LayerInputs:
    """What changes a layer's input: ids of its own, features added to some tokens, tokens dropped or merged."""

    def __init__(
        self,
        decoder: Decoder,
        layer_positions: list[torch.Tensor] | None,
        between: Reduce | None,
        added: Sequence[torch.Tensor],
        added_at: torch.Tensor | None,
    ) -> None:
        self._decoder, self._ids, self._between = decoder, layer_positions, between
        self._added, self._added_at = added, added_at
        self._alive: torch.Tensor | None = None  # tokens that are left, once some are not

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Within the context each layer gets its own input; the hooks are removed in any case."""
        handles = []
        try:
            if self._ids is not None or self._between is not None or self._added:
                layers = self._decoder.text_model.layers
                handles = [
                    layer.register_forward_pre_hook(self._of_layer(index), with_kwargs=True)
                    for index, layer in enumerate(layers)
                ]
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _of_layer(self, layer: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def change(
            _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            hidden = args[0] if args else kwargs["hidden_states"]
            embeddings = kwargs["position_embeddings"]
            if 0 < layer <= len(self._added):
                hidden = self._plus(hidden, self._added[layer - 1])
            if self._between is not None and (reduced := self._between(layer, hidden[0])) is not None:
                hidden, self._alive = reduced[0][None], reduced[1]
            if self._ids is not None:
                ids = self._decoder._batched(self._ids[layer], hidden.device)
                embeddings = self._decoder.text_model.rotary_emb(hidden, ids)
            if self._alive is not None:
                alive = self._alive.to(hidden.device)
                embeddings = tuple(table.to(hidden.device).index_select(-2, alive) for table in embeddings)
            kwargs = {**kwargs, "position_embeddings": embeddings}
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        return change

    def _plus(self, hidden: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        if self._alive is not None or self._added_at is None:
            raise ValueError("tokens cannot be dropped before the layers that features are still added behind")
        hidden = hidden.clone()
        at = self._added_at.to(hidden.device)
        hidden[0, at] += added.to(hidden.device, hidden.dtype, non_blocking=True)
        return hidden


def mrope_rows(table: torch.Tensor, text_model: Any) -> torch.Tensor:
    """cos or sin [b, n, d] from what a rotary module returns: that, or [3, b, n, d] in older transformers.

    Older modules return one table per row of ids and leave choosing the sections to the attention layer.
    """
    if table.ndim == 3:
        return table
    section = text_model.config.rope_parameters["mrope_section"] * 2
    return torch.cat([part[i % len(part)] for i, part in enumerate(table.split(section, dim=-1))], dim=-1)
