"""Tiny random LLaVA-OneVision checkpoints, saved as any other checkpoint is."""

from __future__ import annotations

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from harness.models.convert.llava_video import IMAGE_TOKEN, VIDEO_TOKEN, own_processor


def tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    built = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", IMAGE_TOKEN, VIDEO_TOKEN)
    built.add_special_tokens([AddedToken(t, special=True) for t in special])
    return PreTrainedTokenizerFast(tokenizer_object=built, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def checkpoint(folder, *, side: int, layers: int, seed: int) -> str:
    """A tiny random LLaVA-OneVision folder whose frames have `side` patches a side."""
    torch.manual_seed(seed)
    words = tokenizer()
    vision = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "patch_size": 14, "image_size": side * 14 + 6, "vision_use_head": False,
    }  # fmt: skip
    text = Qwen2Config(
        vocab_size=272, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, initializer_range=0.2,
    )  # fmt: skip
    config = LlavaOnevisionConfig(
        text_config=text,
        vision_config=SiglipVisionConfig(**vision),
        image_token_index=words.convert_tokens_to_ids(IMAGE_TOKEN),
        video_token_index=words.convert_tokens_to_ids(VIDEO_TOKEN),
    )
    model = LlavaOnevisionForConditionalGeneration(config)
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=words.eos_token_id)
    model.save_pretrained(folder)
    own_processor(words, vision).save_pretrained(folder)
    return str(folder)
