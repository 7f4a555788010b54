"""Tiny random checkpoints of models that score frames: CLIP and BLIP, saved as any other checkpoint is."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_clip(folder: Path) -> Path:
    """A CLIP that reads letters and sees pictures of 32 x 32."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    letters = string.ascii_lowercase + string.digits + "?.:,"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)
    text = {**TOWER, "vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 77}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model: Any = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    return _saved(folder, model, CLIPProcessor(CLIPImageProcessor(**_size()), tokenizer))


def save_blip(folder: Path) -> Path:
    """A BLIP that matches pictures of 32 x 32 with texts."""
    from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval, BlipImageProcessor, BlipProcessor

    letters = string.ascii_lowercase + string.digits + "?.:,"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=64)
    text = {**TOWER, "vocab_size": len(words), "encoder_hidden_size": 16, "max_position_embeddings": 64}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16, image_text_hidden_size=16)
    model: Any = BlipForImageTextRetrieval(config)
    return _saved(folder, model, BlipProcessor(BlipImageProcessor(**_size()), tokenizer))


def _size() -> dict[str, Any]:
    return {"size": {"height": 32, "width": 32}, "do_center_crop": False}


def _saved(folder: Path, model: Any, processor: Any) -> Path:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.3)  # small random weights see hardly a difference
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
