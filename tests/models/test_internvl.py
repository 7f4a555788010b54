"""The InternVL adapter on a tiny random checkpoint, against transformers' own processing and decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stock_parity import (
    QUESTION,
    StockParity,
    check_fills_the_context,
    processed,
    sharpened,
)
from tiny_llava import tokenizer
from tokenizers import AddedToken

from harness.models.families import open_model
from harness.models.features import VideoFeatures
from harness.models.internvl import InternVL

COUNT = 6
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'video' %}<video>\n"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def save_tiny_internvl(target: Path) -> Path:
    from transformers import (
        GenerationConfig,
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    words = tokenizer()
    marks = {
        "start_image_token": "<img>", "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
    }  # fmt: skip
    words.add_tokens([AddedToken(token, special=True) for token in marks.values()], special_tokens=True)
    for name, token in marks.items():
        words.init_kwargs[name] = token
        words.init_kwargs.setdefault("extra_special_tokens", {})[name] = token
        setattr(words, name, token)
        setattr(words, f"{name}_id", words.convert_tokens_to_ids(token))
    config = InternVLConfig(
        text_config={
            "model_type": "qwen3", "vocab_size": 288, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8,
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        },
        vision_config={
            "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [56, 56], "patch_size": [14, 14],
        },
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = InternVLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=words.eos_token_id)
    model.save_pretrained(target)
    size = {"height": 56, "width": 56}
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size),
        video_processor=InternVLVideoProcessor(size=size),
        tokenizer=words,
        image_seq_length=4,
        chat_template=TEMPLATE,
    ).save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> InternVL:
    opened = open_model(str(save_tiny_internvl(tmp_path_factory.mktemp("model"))), device="cpu")
    assert isinstance(opened, InternVL)
    sharpened(opened)
    return opened


def frames(count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 60, 84, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def video(adapter: InternVL) -> VideoFeatures:
    return adapter.encode(frames(), second_per_grid=1.0, keep_attention=True)


@pytest.fixture(scope="module")
def stock(adapter: InternVL) -> Any:
    return processed(adapter, frames())


class TestStockParity(StockParity):
    pass


def test_every_frame_stands_behind_its_number(adapter: InternVL, video: VideoFeatures) -> None:
    prompt = adapter.prompt(QUESTION, video)
    assert prompt.grid_lengths == (4,) * COUNT and prompt.n_video == 4 * COUNT
    assert "\nFrame6: " in adapter.tokenizer.decode(prompt.input_ids)


@pytest.mark.parametrize("window", [1, 4])
def test_features_do_not_depend_on_windows(
    adapter: InternVL, video: VideoFeatures, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(InternVL, "window", window)
    found = adapter.encode(frames(), second_per_grid=1.0)
    assert found.grid == video.grid == (COUNT, 2, 2)
    assert torch.allclose(found.features, video.features, atol=1e-5)


METHODS = ["adaretake", "snapkv", "streaming", "vidcom2", "flashvid", "holitom", "fastvid", "flexselect"]


@pytest.mark.parametrize("name", METHODS)
def test_methods_fill_the_context_exactly(adapter: InternVL, video: VideoFeatures, name: str) -> None:
    check_fills_the_context(adapter, video, name)


def test_attention_of_the_tower_is_that_of_its_last_layer(adapter: InternVL, video: VideoFeatures) -> None:
    plain = adapter.encode(frames(), second_per_grid=1.0)
    assert torch.equal(plain.features, video.features) and plain.attention is None
    adapter.model.set_attn_implementation({"vision_config": "eager"})
    pixels = torch.from_numpy(frames()).permute(0, 3, 1, 2)
    batch = adapter.processor.video_processor(videos=[pixels], do_sample_frames=False, return_tensors="pt")
    with torch.inference_mode():
        tower = adapter.model.model.vision_tower(batch["pixel_values_videos"][0], output_attentions=True)
    weights = tower.attentions[-1].mean((1, 2))[:, 1:]  # without the class token
    of_token = weights.view(COUNT, 2, 2, 2, 2).mean((2, 4)).flatten()  # rows and columns of two patches each
    assert video.attention is not None and torch.allclose(video.attention, of_token, atol=1e-6)
    marked = torch.zeros(1, 4, 4, 1)
    marked[0, 2:, :2] = 1  # the patches of the third token
    assert adapter.model.model.pixel_shuffle(marked).view(4, 4).sum(1).tolist() == [0, 0, 4, 0]
