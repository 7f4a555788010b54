"""What a converted LLaVA-Video needs beside its weights: configuration, tokenizer and processor."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import (
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerBase,
    Qwen2Config,
    SiglipVisionConfig,
)

from harness.errors import UserError
from harness.late import torch

SIGLIP_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,  # the published models drop the last of the tower's 27 layers
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 384,
    "vision_use_head": False,
}
"""google/siglip-so400m-patch14-384 as LLaVA-Video uses it; the checkpoints' own config.json does not hold it."""

IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<video>"

CHAT_TEMPLATE = """\
{%- if messages[0].role != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content if part.type == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}
{%- for part in message.content if part.type == 'video' -%}{{ '<video>\\n' }}{%- endfor -%}
{%- for part in message.content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""
"""The conversation that LLaVA-Video was trained on: Qwen's turns, what is seen before what is said."""

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges*", "added_tokens*", "special_tokens*")


def model_config(
    text: Mapping[str, Any], vision: Mapping[str, Any], *, tied: bool, dtype: torch.dtype, image_id: int, video_id: int
) -> LlavaOnevisionConfig:
    """The configuration of the converted model.

    Args:
        text: the language model's fields, from a `config.json` that may hold others too.
        vision: fields of the SigLIP tower.
        tied: the checkpoint has no output head of its own.
        dtype: of the weights, recorded so that loading keeps it.
        image_id, video_id: ids of the placeholder tokens.
    """
    known = (set(Qwen2Config().to_dict()) | {"rope_theta", "rope_scaling"}) - {"model_type", "transformers_version"}
    fields = {key: value for key, value in text.items() if key in known and value is not None}
    for key in ("architectures", "dtype", "tie_word_embeddings"):
        fields.pop(key, None)
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**fields, tie_word_embeddings=tied, dtype=dtype).to_dict(),
        vision_config=SiglipVisionConfig(**{**vision, "vision_use_head": False}, dtype=dtype).to_dict(),
        image_token_index=image_id,
        video_token_index=video_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=tied,
        dtype=dtype,
    )
    config.architectures = ["LlavaOnevisionForConditionalGeneration"]
    return config


def source_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The checkpoint's own tokenizer with the two placeholder tokens.

    It is read apart from the checkpoint's `config.json`, whose model type transformers does not know.

    Raises:
        UserError: the folder has none.
    """
    with tempfile.TemporaryDirectory() as apart:
        for pattern in TOKENIZER_FILES:
            for file in folder.glob(pattern):
                shutil.copy(file, apart)
        try:
            tokenizer = AutoTokenizer.from_pretrained(apart)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{folder} has no tokenizer that transformers can read ({type(error).__name__}); give a processor: "
                "--processor llava-hf/llava-onevision-qwen2-7b-ov-hf"
            ) from error
    tokenizer.add_tokens([IMAGE_TOKEN, VIDEO_TOKEN], special_tokens=True)
    return tokenizer


def own_processor(tokenizer: PreTrainedTokenizerBase, vision: Mapping[str, Any]) -> LlavaOnevisionProcessor:
    """A processor that feeds the tower as SigLIP was trained: square frames, values from -1 to 1."""
    side = vision["image_size"]
    how: dict[str, Any] = {"size": {"height": side, "width": side}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(**how),
        video_processor=LlavaOnevisionVideoProcessor(**how),
        tokenizer=tokenizer,
        num_image_tokens=(side // vision["patch_size"]) ** 2,
        vision_feature_select_strategy="full",
        image_token=IMAGE_TOKEN,
        video_token=VIDEO_TOKEN,
        chat_template=CHAT_TEMPLATE,
    )


def generation_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Greedy decoding that ends where a turn or the text ends."""
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    ends = [i for i in ends if i is not None and i != tokenizer.unk_token_id]
    pad = tokenizer.pad_token_id
    return GenerationConfig(
        do_sample=False,
        eos_token_id=ends or tokenizer.eos_token_id,
        pad_token_id=ends[-1] if pad is None and ends else pad,
    )


def read_config(path: Path) -> dict[str, Any]:
    """A `config.json`. Raises UserError when it is missing or not a JSON object."""
    try:
        fields = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give one with --text-config FILE") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{path} must hold a JSON object")
    return fields


def given_processor(folder: Path) -> LlavaOnevisionProcessor:
    """Another LLaVA-OneVision's processor. Raises UserError when the folder holds none."""
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"--processor {folder} cannot be loaded: {error}") from error
    if not isinstance(processor, LlavaOnevisionProcessor):
        raise UserError(f"--processor {folder} is a {type(processor).__name__}, a LlavaOnevisionProcessor is needed")
    return processor
