"""What an adapter must do like transformers' own processing and decoding; a family's test file inherits these tests.

It has the fixtures `adapter`, `video` (encoded) and `stock`: what transformers' processor makes of prompt and frames.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.compress.method import build_method
from harness.models.adapter import Adapter
from harness.models.features import VideoFeatures

QUESTION = "which colour ?"


def sharpened(adapter: Adapter) -> Adapter:
    """Random weights attend almost evenly; larger ones make order and place matter."""
    with torch.no_grad():
        for name, weight in adapter.model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(12)
    return adapter


def processed(adapter: Adapter, frames: Any, *, replace: tuple[str, str] = ("", ""), **options: Any) -> Any:
    """The question about frames uint8 [T, height, width, 3] as transformers' chat template and processor have it."""
    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}
    chat = adapter.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    chat = chat.replace(*replace) if replace[0] else chat
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return adapter.processor(text=[chat], videos=[pixels], return_tensors="pt", **options)


class StockParity:
    """A test file has these tests by a class of its own below this one."""

    def test_the_prompt_is_the_processors(self, adapter: Adapter, video: VideoFeatures, stock: Any) -> None:
        assert torch.equal(adapter.prompt(QUESTION, video).input_ids, stock["input_ids"][0])

    @pytest.mark.parametrize("chunk_frames", [1, 2, 4, 400])
    def test_chunked_prefill_is_one_pass_of_the_stock_model(
        self, adapter: Adapter, video: VideoFeatures, stock: Any, chunk_frames: int
    ) -> None:
        with torch.inference_mode():
            logits = adapter.model(**stock).logits[0, -1]
        method = build_method("none", chunk_frames=chunk_frames)
        ours = adapter.answer(video, QUESTION, method, max_new_tokens=1, record=True).trace.recording
        assert ours is not None and torch.allclose(ours.logits[0], logits, atol=1e-4)

    def test_tokens_are_those_of_greedy_decoding(self, adapter: Adapter, video: VideoFeatures, stock: Any) -> None:
        theirs = adapter.model.generate(**stock, max_new_tokens=12, do_sample=False)[0, stock["input_ids"].shape[1] :]
        ours = adapter.answer(video, QUESTION, build_method("none", chunk_frames=4), max_new_tokens=12)
        assert ours.tokens == theirs.tolist()


def check_fills_the_context(adapter: Adapter, video: VideoFeatures, name: str, **options: Any) -> None:
    """A method under the text and ten tokens of the video keeps exactly these, mean over layers."""
    context = adapter.prompt(QUESTION, video).n_text + 10
    method = build_method(name, chunk_frames=4, **options)
    trace = adapter.answer(video, QUESTION, method, context, max_new_tokens=2).trace
    assert sum(trace.cache_length) == adapter.language.num_layers * context
