"""The toy's checkpoint: a Qwen2.5-VL small enough to commit, saved as any other checkpoint is."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from toy_training.tokens import build_tokenizer

HIDDEN = 128


NOT_IN_OLDER = ("cap_pixels_per_frame", "max_video_tokens")
"""Settings of the video processor that older supported transformers refuse to load; the adapter sets the first."""


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """A four-layer Qwen2.5-VL.

    The first half of a head's rotary pairs turns with time; the rows and columns get slow pairs,
    which barely turn over a whole video: there, content is matched at any distance.
    """
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": -(-len(tokenizer) // 16) * 16,
        "hidden_size": HIDDEN,
        "intermediate_size": 3 * HIDDEN,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 4, 4]},
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "window_size": 112,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_model(seed: int, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained toy model in float32.

    The queries of the first key-value head start equal to its keys: like finds like from the first
    step on, which shortens the plateau before a word in a question finds the feature that shows it.
    """
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration._from_config(
        build_config(tokenizer), attn_implementation="sdpa", dtype=torch.float32
    )
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        head = attention.head_dim
        with torch.no_grad():
            torch.nn.init.orthogonal_(attention.k_proj.weight[:head])
            for i in range(attention.num_key_value_groups):
                attention.q_proj.weight[i * head : (i + 1) * head] = attention.k_proj.weight[:head]
    return model


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """Qwen's processor; frames down to one merged token (28 x 28 pixels) are not scaled up."""
    size = {"shortest_edge": 28 * 28, "longest_edge": 16384 * 28 * 28}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        video_processor=Qwen2VLVideoProcessor(size=size, do_sample_frames=False),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )


def save(model: Qwen2_5_VLForConditionalGeneration, target: Path) -> None:
    """Write model, processor and tokenizer under `target`."""
    tokenizer = build_tokenizer()
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=model.config.text_config.bos_token_id,
        eos_token_id=model.config.text_config.eos_token_id,
        pad_token_id=model.config.text_config.pad_token_id,
    )
    model.save_pretrained(target)
    build_processor(tokenizer).save_pretrained(target)
    path = target / "processor_config.json"
    settings = json.loads(path.read_text())
    for key in NOT_IN_OLDER:
        settings["video_processor"].pop(key, None)
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
