"""The toy's forward pass for training: the checkpoint's own weights, many clips at once.

Transformers encodes one frame after another; with equal frames, one batch does the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRMSNorm, apply_rotary_pos_emb_vision

from harness.models.language import mrope_rows
from toy_training.episodes import Batch, attention_mask

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])
PATCH, MERGE, TEMPORAL = 14, 2, 2


def fuse_norms(model: nn.Module) -> None:
    """Let every RMSNorm of `model` run as one kernel: a third less time per step on a CPU."""

    def forward(norm: Qwen2_5_VLRMSNorm) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda states: rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon)

    for module in model.modules():
        if isinstance(module, Qwen2_5_VLRMSNorm):
            module.forward = forward(module)


def patches(frames: np.ndarray) -> torch.Tensor:
    """uint8 frames [f, H, W, 3] as the processor's patches, float [f / 2, H * W / 196, 1176]."""
    f, height, width, _ = frames.shape
    rows, columns = height // PATCH // MERGE, width // PATCH // MERGE
    cut = torch.from_numpy(frames).view(f // TEMPORAL, TEMPORAL, rows, MERGE, PATCH, columns, MERGE, PATCH, 3)
    pixels = cut.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(f // TEMPORAL, rows * columns * MERGE**2, 3, -1)
    scale, shift = 1 / (255 * STD), MEAN / STD
    return pixels.float().mul_(scale[:, None]).sub_(shift[:, None]).flatten(2)


def patch_angles(side: int, size: int) -> torch.Tensor:
    """Rotary angles [side * side, size] of a square frame's patches, in the processor's order: merged patches together.

    A quarter of a head's pairs turns with the row, a quarter with the column; both halves of the head alike.
    """
    line = torch.arange(side).view(side // MERGE, MERGE)
    shape = (side // MERGE, side // MERGE, MERGE, MERGE)
    rows, columns = line[:, None, :, None].expand(shape), line[None, :, None, :].expand(shape)
    where = torch.stack((rows, columns), dim=-1).view(-1, 2)
    speed = 1 / 10000.0 ** (torch.arange(0, size // 2, 2) / (size // 2))
    return (where[..., None] * speed).flatten(1).repeat(1, 2)


def encode(model: Qwen2_5_VLForConditionalGeneration, grids: torch.Tensor, side: int) -> torch.Tensor:
    """Patches [g, side * side, 1176] of square frames to video features [g, side * side / 4, hidden].

    Valid while a frame is no larger than one attention window (eight patches a side).
    """
    visual = model.model.visual
    g, p, _ = grids.shape
    states = visual.patch_embed(grids.flatten(0, 1)).view(g, p, -1)
    angles = patch_angles(side, visual.blocks[0].attn.head_dim).to(states.device)
    cos, sin = angles.cos(), angles.sin()
    for block in visual.blocks:
        attention = block.attn
        q, k, v = attention.qkv(block.norm1(states)).view(g, p, 3, attention.num_heads, -1).unbind(2)
        q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
        mixed = scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
        states = states + attention.proj(mixed.transpose(1, 2).reshape(g, p, -1))
        states = states + block.mlp(block.norm2(states))
    return visual.merger(states.flatten(0, 1)).view(g, p // MERGE**2, -1)


@dataclass(frozen=True)
class Outcome:
    """Of a packed batch: hidden states [b, n, hidden], those that entered each layer, and the video
    features [b, v, hidden]."""

    states: torch.Tensor
    entered: tuple[torch.Tensor, ...]
    video: torch.Tensor


def forward(model: Qwen2_5_VLForConditionalGeneration, batch: Batch) -> Outcome:
    """Run a packed batch through the whole model."""
    device = model.device
    b = len(batch.frames)
    side = batch.frames.shape[2] // PATCH
    video = encode(model, patches(batch.frames.reshape(-1, *batch.frames.shape[2:])).to(device), side)
    video = video.reshape(b, -1, video.shape[-1])
    embeds = model.get_input_embeddings()(batch.input_ids.to(device))
    at = (batch.input_ids == model.config.video_token_id).to(device)[..., None]
    embeds = embeds.masked_scatter(at, video.to(embeds.dtype))
    outputs = model.model.language_model(
        inputs_embeds=embeds,
        position_ids=batch.positions.transpose(0, 1).to(device),
        attention_mask={"full_attention": attention_mask(batch.groups).to(device)},
        use_cache=False,
        output_hidden_states=True,
    )
    return Outcome(outputs.last_hidden_state, outputs.hidden_states, video)


def attention(
    model: Qwen2_5_VLForConditionalGeneration,
    batch: Batch,
    layer: int,
    entered: torch.Tensor,
    rows: torch.Tensor,
    key_value_head: int,
) -> torch.Tensor:
    """Log attention [b, heads, m, n] of the query heads of one key-value head.

    `entered` [b, n, hidden] are the states that enter the layer, `rows` [b, m] the places that look.
    """
    language = model.model.language_model
    block = language.layers[layer]
    own = block.self_attn
    size, heads = own.head_dim, own.num_key_value_groups
    normed = block.input_layernorm(entered)
    tables = language.rotary_emb(entered, batch.positions.transpose(0, 1).to(entered.device))
    cos, sin = (mrope_rows(table, language) for table in tables)
    looking = rows[..., None]

    def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, dim=-1)
        return x * cos[:, None] + torch.cat((-right, left), dim=-1) * sin[:, None]

    k = own.k_proj(normed)[..., key_value_head * size : (key_value_head + 1) * size]
    q = own.q_proj(normed.take_along_dim(looking, 1))[..., key_value_head * heads * size :][..., : heads * size]
    q = rotate(
        q.unflatten(-1, (heads, size)).transpose(1, 2), cos.take_along_dim(looking, 1), sin.take_along_dim(looking, 1)
    )
    logits = q @ rotate(k[:, None], cos, sin).transpose(-1, -2) * own.scaling
    allowed = attention_mask(batch.groups)[:, 0].to(rows.device).take_along_dim(looking, 1)
    return logits.masked_fill(~allowed[:, None], -torch.inf).log_softmax(-1)
