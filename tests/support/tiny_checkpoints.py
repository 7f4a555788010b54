"""Tiny random checkpoints of each Qwen family, saved as any other checkpoint is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

HIDDEN = 32


def save_tiny(family: str, target: Path, *, seed: int = 0, layers: int = 2, penalty: float | None = None) -> Path:
    """Write a random model of `family` with processor and tokenizer under `target`."""
    import transformers
    from toy_training.tokens import build_tokenizer
    from transformers import GenerationConfig, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    tokenizer = build_tokenizer()
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": -(-len(tokenizer) // 16) * 16,
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
    }
    special = {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }
    if family == "qwen2_5_vl":
        vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": HIDDEN}
        vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
        config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **special)
        model_class, processor_class = transformers.Qwen2_5_VLForConditionalGeneration, transformers.Qwen2_5_VLProcessor
    elif family == "qwen3_vl":
        vision = {"depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": HIDDEN}
        vision |= {"patch_size": 14, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        text |= {"head_dim": 8}
        text["rope_parameters"] |= {"mrope_section": [2, 1, 1], "mrope_interleaved": True}
        config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **special)
        model_class, processor_class = transformers.Qwen3VLForConditionalGeneration, transformers.Qwen3VLProcessor
        video_processor = transformers.Qwen3VLVideoProcessor(patch_size=14, do_sample_frames=False)
    else:
        vision = {"depth": 2, "embed_dim": 16, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 2}
        config = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, **special)
        model_class, processor_class = transformers.Qwen2VLForConditionalGeneration, transformers.Qwen2VLProcessor
    size = {"shortest_edge": 28 * 28, "longest_edge": 16384 * 28 * 28}
    if family != "qwen3_vl":
        video_processor = Qwen2VLVideoProcessor(size=size, do_sample_frames=False)
    torch.manual_seed(seed)
    model: Any = model_class._from_config(config, dtype=torch.float32)
    options = {} if penalty is None else {"repetition_penalty": penalty}
    model.generation_config = GenerationConfig(eos_token_id=[token("<|im_end|>"), token("<|endoftext|>")], **options)
    model.save_pretrained(target)
    processor_class(
        image_processor=Qwen2VLImageProcessor(size=size),
        video_processor=video_processor,
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    ).save_pretrained(target)
    return target
