"""The LLaVA-OneVision adapter against the stock model, on tiny random models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_llava import checkpoint
from transformers import Qwen2Config

from harness.compress.method import build_method
from harness.errors import UserError
from harness.models.llava_onevision import LlavaOnevision

FRAMES = 13
CONTEXT = 130  # the text alone has 90 tokens
QUESTION = "What happens?\nA. this.\nB. that."


@pytest.fixture(scope="module", params=[(6, 3, 0), (5, 2, 1)], ids=["even side", "odd side"])
def adapter(request, tmp_path_factory) -> LlavaOnevision:
    side, layers, seed = request.param
    folder = checkpoint(tmp_path_factory.mktemp("llava"), side=side, layers=layers, seed=seed)
    return LlavaOnevision.load(folder, device="cpu")


def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (FRAMES, 50, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def features(adapter):
    video = frames()
    return adapter.encode(iter([video[:5], video[5:6], video[6:]]), FRAMES, 1.0)


def answer(adapter, features, *, context, record=False, new=6, **options):
    method = build_method("adaretake", chunk_frames=3, **options)
    prompt = adapter.prompt(QUESTION, features)
    return prompt, adapter.answer(features, QUESTION, method, context, max_new_tokens=new, record=record)


@torch.inference_mode()
def stock_logits(adapter) -> tuple[torch.Tensor, torch.Tensor]:
    """(input ids [N], logits [N, v]) of one full pass of the stock model over the processor's own inputs."""
    turn = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}
    chat = adapter.processor.apply_chat_template([turn], add_generation_prompt=True)
    inputs = adapter.processor(text=chat, videos=[frames()], return_tensors="pt")
    return inputs["input_ids"][0], adapter.model(**inputs).logits[0]


def test_prompt_is_that_of_the_processor(adapter, features):
    prompt = adapter.prompt(QUESTION, features)
    assert torch.equal(prompt.input_ids, stock_logits(adapter)[0])
    pad = adapter.model.config.video_token_id
    assert (prompt.input_ids[prompt.video] == pad).all()
    assert prompt.input_ids[prompt.video_stop] == pad and prompt.input_ids[prompt.video_stop + 1] != pad


def test_a_frame_is_its_patches_pooled_to_half_the_side(adapter, features):
    n = adapter.side**2
    assert features.features.shape == (FRAMES * n, 32)
    assert features.grid == (FRAMES, adapter.side, adapter.side) and features.tokens_per_grid == n


@pytest.mark.parametrize("size", [1, 4, 100])
def test_windows_do_not_change_features(adapter, features, size, monkeypatch):
    monkeypatch.setattr(adapter, "window", size)
    again = adapter.encode(iter(np.split(frames(), [1, 2, 9])), FRAMES, 1.0)
    torch.testing.assert_close(again.features, features.features, atol=1e-6, rtol=0)


def test_chunked_prefill_without_compression_is_one_full_pass(adapter, features):
    _, generation = answer(adapter, features, context=None, record=True, new=1)
    _, logits = stock_logits(adapter)
    assert len(generation.trace.chunk_lengths) == 5
    torch.testing.assert_close(generation.trace.recording.logits[0], logits[-1].float(), atol=1e-4, rtol=0)


def test_tokens_are_those_of_stock_greedy_generation(adapter, features):
    _, generation = answer(adapter, features, context=None)
    turn = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}
    chat = adapter.processor.apply_chat_template([turn], add_generation_prompt=True)
    inputs = adapter.processor(text=chat, videos=[frames()], return_tensors="pt")
    whole = adapter.model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert generation.tokens == whole[0, inputs["input_ids"].shape[1] :].tolist()


def test_a_context_larger_than_the_prompt_is_the_identity(adapter, features):
    prompt, full = answer(adapter, features, context=None, record=True)
    _, large = answer(adapter, features, context=len(prompt.input_ids), record=True)
    assert not large.trace.compressed and large.tokens == full.tokens
    assert torch.equal(large.trace.recording.logits, full.trace.recording.logits)


@pytest.mark.parametrize(("temporal", "layers"), [(True, True), (True, False), (False, True), (False, False)])
def test_the_cache_holds_exactly_the_budget(adapter, features, temporal, layers):
    prompt, generation = answer(adapter, features, context=CONTEXT, temporal=temporal, layers=layers)
    trace = generation.trace
    assert trace.compressed and len(prompt.input_ids) > CONTEXT
    assert sum(trace.cache_length) == CONTEXT * adapter.language.num_layers
    assert all(length % features.tokens_per_grid == 0 for length in trace.chunk_lengths)
    assert sum(trace.chunk_lengths) == FRAMES * features.tokens_per_grid


def test_the_newline_is_text_and_stays(adapter, features):
    text = len(adapter.prompt(QUESTION, features).input_ids) - len(features.features)
    _, generation = answer(adapter, features, context=text + 5, record=True, new=1)
    kept = [sum(layer) for layer in zip(*generation.trace.kept, strict=True)]
    assert sum(kept) == 5 * adapter.language.num_layers  # of the video; the text, newline included, is whole
    assert generation.trace.cache_length == [text + n for n in kept]
    cached = generation.trace.recording.cache.positions(0)[0].tolist()
    prompt = adapter.prompt(QUESTION, features)
    assert prompt.video_stop in cached
    newline = adapter.language.embed(prompt.input_ids[prompt.video_stop :][:1])[0]
    assert torch.equal(newline, adapter.model.model.image_newline)


def test_eager_attention_gives_the_same(adapter, features):
    _, fused = answer(adapter, features, context=CONTEXT, record=True)
    backend = adapter.language.backend
    adapter.language.backend = "eager"
    try:
        _, plain = answer(adapter, features, context=CONTEXT, record=True)
    finally:
        adapter.language.backend = backend
    assert backend == "sdpa" and plain.trace.cache_length == fused.trace.cache_length
    torch.testing.assert_close(plain.trace.recording.logits, fused.trace.recording.logits, atol=1e-4, rtol=0)


def test_release_2025_exists_with_reforge_only(adapter, features):
    with pytest.raises(UserError, match="method.reforge=true"):
        answer(adapter, features, context=150, semantics="release_2025")
    _, generation = answer(adapter, features, context=150, semantics="release_2025", reforge=True)
    assert generation.trace.compressed


def test_release_2026_does_not_exist(adapter):
    with pytest.raises(UserError, match="release_2026 does not exist for llava_onevision"):
        build_method("adaretake", semantics="release_2026").for_family(adapter.family)


def test_a_placeholder_in_the_question_is_text(adapter, features):
    prompt = adapter.prompt("What is <video>?", features)
    pad = adapter.model.config.video_token_id
    assert prompt.input_ids.tolist().count(pad) == prompt.n_video + 1  # and the newline


def test_another_family_is_refused(tmp_path):
    Qwen2Config().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="qwen2 model"):
        LlavaOnevision.load(str(tmp_path), device="cpu")


def test_yarn_reaches_the_rotary_embedding(tmp_path):
    folder = checkpoint(tmp_path, side=4, layers=1, seed=2)
    scaled = LlavaOnevision.load(folder, device="cpu", yarn_factor=4.0).language.text_model.rotary_emb
    assert scaled.attention_scaling == pytest.approx(0.1 * np.log(4) + 1)


def test_frames_that_are_missing_are_an_error(adapter):
    with pytest.raises(ValueError, match="13 frames were announced"):
        adapter.encode(iter([frames()[:4]]), FRAMES, 1.0)
