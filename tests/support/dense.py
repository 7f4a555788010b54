"""A slow second derivation of chunked eviction: one dense pass over everything that ever passes, behind masks.

The sequence is text, chunk, guide, chunk, guide, ..., text. What was evicted, and a guide once its chunk is judged, is
masked for all that follow, in each layer and head on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tiny_models import Sample

from harness.models.language import Decoder


@dataclass
class Layer:
    """One layer of a dense pass over n tokens: attention weights [h, n, n], rotated queries and keys, values."""

    weights: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


@torch.inference_mode()
def dense(
    model: Any, embeds: torch.Tensor, ids: torch.Tensor, visible: torch.Tensor
) -> tuple[list[Layer], torch.Tensor]:
    """Layers, and logits [n, v], of tokens [n, d] with ids [r, n]; query i of head h sees key j by [L, h, n, n].

    The ids may be those of each layer [L].
    """
    text = model.model.language_model
    of_layer = [ids] * len(text.layers) if isinstance(ids, torch.Tensor) else ids
    language = Decoder(text, model.lm_head, backend="eager", rows=of_layer[0].shape[0])
    hidden, layers = embeds, []
    for module, seen, ids in zip(text.layers, visible, of_layer, strict=True):
        attention, normed = module.self_attn, module.input_layernorm(hidden)
        states = [p(normed) for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
        query, key, value = (s.unflatten(-1, (-1, attention.head_dim)).transpose(0, 1) for s in states)
        query, key = language.rotate(query, ids), language.rotate(key, ids)
        groups = query.shape[0] // key.shape[0]
        logits = torch.einsum("hid,hjd->hij", query, key.repeat_interleave(groups, 0)) / attention.head_dim**0.5
        weights = logits.masked_fill(~seen, -torch.inf).softmax(-1)
        layers.append(Layer(weights, query, key, value))
        mixed = torch.einsum("hij,hjd->hid", weights, value.repeat_interleave(groups, 0))
        hidden = hidden + attention.o_proj(mixed.transpose(0, 1).flatten(1))
        hidden = hidden + module.mlp(module.post_attention_layernorm(hidden))
    return layers, model.lm_head(text.norm(hidden))


@dataclass
class Chunk:
    """What a rule sees: the layers of the pass up to the guide behind the chunk; where its tokens and the guide are.

    Attributes:
        layers: of the tokens up to the guide.
        video: places [c] of the chunk's tokens.
        guide: places [g] of the guide.
        alive: [L, h, n] what the chunk and the guide may see.
        number: of the chunk.
        last: whether it is the last one.
    """

    layers: list[Layer]
    video: torch.Tensor
    guide: torch.Tensor
    alive: torch.Tensor
    number: int
    last: bool


Rule = Callable[[Chunk], Any]
"""-> kept indices of the chunk: [L] tensors, or [L][h] tensors per query head."""


def evicted(model: Any, sample: Sample, grids_per_chunk: int, rule: Rule) -> tuple[list[Any], torch.Tensor]:
    """What a rule keeps of every chunk, and the logits [v] of the prompt's last token."""
    config = model.config.get_text_config()
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    n, size = sample.tokens_per_grid, grids_per_chunk * sample.tokens_per_grid
    positions = sample.positions()
    behind = torch.arange(sample.video.stop, sample.n_prompt)
    words = model.get_input_embeddings()(sample.input_ids).detach().clone()
    words[sample.video] = sample.features
    places, ids = torch.arange(sample.video.start), positions[:, : sample.video.start]
    gone = torch.zeros(layers, heads, len(places), dtype=torch.bool)  # for all that follows

    def passed(extra: torch.Tensor, extra_ids: torch.Tensor) -> tuple[list[Layer], torch.Tensor]:
        order, total = torch.cat((places, extra)), len(places) + len(extra)
        seen = torch.ones(total, total, dtype=torch.bool).tril().repeat(layers, heads, 1, 1)
        for place, since in enumerate(until):
            seen[:, :, since:, place] &= ~gone[:, :, place, None]
        return dense(model, words[order], torch.cat((ids, extra_ids), 1), seen)

    until: list[int] = [0] * len(places)  # from which token on `gone` holds
    kept_of_all = []
    starts = range(sample.video.start, sample.video.stop, size)
    for number, start in enumerate(starts):
        video = torch.arange(start, min(start + size, sample.video.stop))
        moved = positions[:, behind] - positions[0, behind[0]] + positions[:, video].max() + 1
        found, _ = passed(torch.cat((video, behind)), torch.cat((positions[:, video], moved), 1))
        first = len(places)
        at = first + torch.arange(len(video))
        chunk = Chunk(
            found, at, first + len(video) + torch.arange(len(behind)), ~gone, number, number == len(starts) - 1
        )
        kept = rule(chunk)
        kept_of_all.append(kept)
        new = torch.ones(layers, heads, len(video) + len(behind), dtype=torch.bool)
        for layer in range(layers):
            for head in range(heads):
                of_head = kept[layer] if isinstance(kept[layer], torch.Tensor) else kept[layer][head]
                new[layer, head, of_head] = False
        gone = torch.cat((gone, new), -1)
        places = torch.cat((places, video, behind))
        ids = torch.cat((ids, positions[:, video], moved), 1)
        until += [len(places)] * (len(video) + len(behind))
    assert n * sample.grid[0] == sample.n_video
    _, logits = passed(behind, positions[:, behind])
    return kept_of_all, logits[-1]


def best(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the highest scores, ascending, the slow way: of equal ones the first."""
    order = sorted(range(len(scores)), key=lambda i: (-float(scores[i]), i))
    return torch.tensor(sorted(order[:count]), dtype=torch.long)


def even_budgets(sample: Sample, context: int, grids_per_chunk: int) -> list[int]:
    """Budgets in proportion to length, by hand: rounded down, then one more for the largest remainders."""
    size = grids_per_chunk * sample.tokens_per_grid
    lengths = [min(size, sample.n_video - start) for start in range(0, sample.n_video, size)]
    total = context - (sample.n_prompt - sample.n_video)
    budgets = [total * length // sample.n_video for length in lengths]
    order = sorted(range(len(lengths)), key=lambda i: (-(total * lengths[i] % sample.n_video), i))
    for i in order[: total - sum(budgets)]:
        budgets[i] += 1
    return budgets
