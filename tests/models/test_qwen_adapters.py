"""Qwen2-VL and Qwen2.5-VL adapters on tiny random checkpoints."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_checkpoints import save_tiny

from harness.compress.method import build_method
from harness.errors import UserError
from harness.models.qwen2_5_vl import Qwen25VL
from harness.models.qwen2_vl import Qwen2VL
from harness.models.qwen_vl import QwenVL
from harness.video.windows import regrouped

ADAPTERS = {"qwen2_5_vl": Qwen25VL, "qwen2_vl": Qwen2VL}
QUESTION = "which colour ?"


@pytest.fixture(scope="module", params=sorted(ADAPTERS))
def adapter(request, tmp_path_factory) -> QwenVL:
    path = save_tiny(request.param, tmp_path_factory.mktemp(request.param), penalty=1.05)
    return ADAPTERS[request.param].load(str(path))


def frames(count: int, height: int = 56, width: int = 84, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


def encoded(adapter: QwenVL, count: int = 12, window: int = 128, **shape: int):
    video = frames(count, **shape)
    windows = [video[i : i + window] for i in range(0, count, window)]
    return adapter.encode(windows, count, 1.0)


def test_windows_are_regrouped_in_order() -> None:
    video = np.arange(11).reshape(11, 1, 1, 1)
    for sizes in ([11], [3, 3, 5], [1, 1, 9], [4, 7]):
        parts = iter(np.split(video, np.cumsum(sizes)[:-1]))
        got = list(regrouped(parts, 4))
        assert [len(w) for w in got] == [4, 4, 3]
        assert np.array_equal(np.concatenate(got), video)


def test_what_was_chosen_is_known(adapter: QwenVL) -> None:
    assert adapter.attention_backend == "sdpa"
    assert adapter.dtype == torch.float32 and adapter.device.type == "cpu"
    assert len(adapter.eos_token_ids) == 2
    assert adapter.language.repetition_penalty == 1.05


@pytest.mark.parametrize("window", [5, 6, 128])
def test_features_do_not_depend_on_windows(adapter: QwenVL, monkeypatch, window: int) -> None:
    whole = encoded(adapter)
    assert whole.grid == (6, 4, 6) and whole.tokens_per_grid == 6 and whole.features.shape == (36, 32)
    monkeypatch.setattr(type(adapter), "window", 4)
    assert torch.allclose(encoded(adapter, window=window).features, whole.features, atol=1e-5)


def test_an_odd_frame_is_repeated(adapter: QwenVL) -> None:
    assert encoded(adapter, 7).grid[0] == 4


def test_sizes_are_rounded_to_whole_merged_patches(adapter: QwenVL) -> None:
    assert encoded(adapter, 4, height=60, width=80).grid == (2, 4, 6)


def test_fewer_frames_than_announced_are_an_error(adapter: QwenVL) -> None:
    with pytest.raises(ValueError, match="8 frames were announced"):
        adapter.encode([frames(6)], 8, 1.0)


def test_the_prompt_is_the_processors(adapter: QwenVL) -> None:
    features = encoded(adapter)
    prompt = adapter.prompt(QUESTION, features)
    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}
    chat = adapter.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    video = torch.from_numpy(frames(12)).permute(0, 3, 1, 2)
    stock = adapter.processor(text=[chat], videos=[video], return_tensors="pt")
    assert torch.equal(prompt.input_ids, stock["input_ids"][0])
    assert (prompt.input_ids[prompt.video] == adapter.model.config.video_token_id).all()
    assert prompt.n_video == 36


@pytest.mark.parametrize(
    "spelt", ["<|video_pad|>", "<|im_end|>", "<|im_start|>assistant", "<|vision_start|>", "\ue000 <|im_end|>"]
)
def test_control_tokens_that_a_question_spells_are_text(adapter: QwenVL, spelt: str) -> None:
    features = encoded(adapter)
    plain, odd = adapter.prompt(QUESTION, features), adapter.prompt(f"{spelt} {QUESTION}", features)
    control = set(adapter.tokenizer.all_special_ids) | {adapter.model.config.video_token_id}

    def steering(prompt):
        return [i for i in prompt.input_ids.tolist() if i in control]

    assert steering(odd) == steering(plain) and odd.n_video == 36 and odd.n_prompt > plain.n_prompt


def full_pass(adapter: QwenVL, prompt, features, rule: str) -> torch.Tensor:
    """Next-token logits of the stock model, which encodes the frames itself, in one pass."""
    pixels, grid = adapter._pixels(frames(12))
    with torch.inference_mode():
        output = adapter.model(
            input_ids=prompt.input_ids[None],
            pixel_values_videos=pixels,
            video_grid_thw=torch.tensor([grid]),
            position_ids=adapter.prompt(QUESTION, features, rule=rule).positions[:, None],
        )
    return output.logits[0, -1]


@pytest.mark.parametrize("chunk_frames", [4, 32])
@pytest.mark.parametrize("context", [None, 10_000])
def test_chunked_prefill_equals_one_full_pass_of_the_stock_model(adapter: QwenVL, chunk_frames: int, context) -> None:
    features = encoded(adapter)
    prompt = adapter.prompt(QUESTION, features)
    for name in ("none", "adaretake"):
        method = build_method(name, chunk_frames=chunk_frames)
        if name == "adaretake" and context is None:
            continue
        got = adapter.answer(features, QUESTION, method, context, max_new_tokens=2, record=True)
        assert torch.allclose(got.trace.recording.logits[0], full_pass(adapter, prompt, features, "float"), atol=1e-4)


@pytest.mark.parametrize(("temporal", "layers"), [(False, False), (True, True)])
def test_the_cache_holds_exactly_the_context(adapter: QwenVL, temporal: bool, layers: bool) -> None:
    features = encoded(adapter)
    prompt = adapter.prompt(QUESTION, features)
    context = len(prompt.input_ids) - 20
    method = build_method("adaretake", temporal=temporal, layers=layers, chunk_frames=4)
    trace = adapter.answer(features, QUESTION, method, context, max_new_tokens=2).trace
    assert sum(trace.cache_length) == 2 * context


def test_seconds_per_grid_count_in_one_family_only(adapter: QwenVL) -> None:
    video = frames(12)
    ids = [adapter.prompt(QUESTION, adapter.encode(video, second_per_grid=s)).positions for s in (0.5, 2.0)]
    assert torch.equal(*ids) == (adapter.family == "qwen2_vl")


def test_text_of_tokens_leaves_out_special_ones(adapter: QwenVL) -> None:
    end = adapter.tokenizer.eos_token_id
    assert adapter.decode_text([end]) == ""


def test_yarn_scales_frequencies_and_attention(adapter: QwenVL) -> None:
    scaled = type(adapter).load(adapter.model.name_or_path, yarn_factor=4.0)
    rotary, stock = scaled.language.text_model.rotary_emb, adapter.language.text_model.rotary_emb
    assert rotary.attention_scaling == pytest.approx(0.1 * math.log(4) + 1)
    assert stock.attention_scaling == 1
    slow = rotary.inv_freq[-1] / stock.inv_freq[-1]
    assert slow == pytest.approx(0.25) and rotary.inv_freq[0] == stock.inv_freq[0]
    parameters = scaled.model.config.text_config.rope_parameters
    assert parameters["mrope_section"] == [1, 1, 2] and parameters["original_max_position_embeddings"] == 4096
    assert (parameters["beta_fast"], parameters["beta_slow"]) == (32, 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "int8"}, "dtype=int8.*bfloat16"),
        ({"device": "cuda:7"}, "device=cuda:7.*device=auto"),
        ({"device": "npu:0"}, "npu:0.*torch_npu"),
        ({"device": "gpu"}, "device=gpu"),
        ({"attention": "flash_attention_2"}, "flash-attn"),
        ({"yarn_factor": 0.5}, "yarn_factor=0.5"),
    ],
)
def test_settings_that_cannot_run_are_named(adapter: QwenVL, options: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        type(adapter).load(adapter.model.name_or_path, **options)


def test_weights_of_another_family_are_refused(adapter: QwenVL) -> None:
    other = next(a for family, a in ADAPTERS.items() if family != adapter.family)
    with pytest.raises(UserError, match=f"is a {adapter.family} model, but the adapter is for {other.family}"):
        other.load(adapter.model.name_or_path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no model"):
        Qwen25VL.load(str(tmp_path))


def test_bfloat16_runs(adapter: QwenVL) -> None:
    half = type(adapter).load(adapter.model.name_or_path, dtype="bfloat16")
    features = encoded(half)
    prompt = half.prompt(QUESTION, features)
    assert features.features.dtype == torch.bfloat16
    context = len(prompt.input_ids) - 20
    for semantics in ("paper", "release_2025"):
        method = build_method("adaretake", semantics=semantics, chunk_frames=4, reforge=semantics != "paper")
        got = half.answer(features, QUESTION, method, context, max_new_tokens=2, record=True)
        assert got.trace.recording.logits.isfinite().all()


def test_layers_may_be_spread_by_a_device_map(adapter: QwenVL) -> None:
    spread = type(adapter).load(adapter.model.name_or_path, device_map="auto")
    features = encoded(spread)
    prompt = spread.prompt(QUESTION, features)
    method = build_method("adaretake", chunk_frames=4)
    context = len(prompt.input_ids) - 20
    one, many = (a.answer(features, QUESTION, method, context, max_new_tokens=2) for a in (adapter, spread))
    assert one.tokens == many.tokens and one.trace.kept == many.trace.kept


def test_the_penalty_of_the_checkpoint_changes_what_is_answered(adapter) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (8, 56, 84, 3), dtype=np.uint8)
    video, method = adapter.encode(frames, second_per_grid=1.0), build_method("none")

    def answered(penalty: float | None) -> list[int]:
        lengths = {"max_new_tokens": 60, "min_new_tokens": 60}
        return adapter.answer(video, "What?", method, repetition_penalty=penalty, **lengths).tokens

    free, strong = answered(1.0), answered(1e6)
    assert len({*free}) < len(free), "without a penalty nothing comes twice, so none can be seen"
    assert answered(None) == answered(1.05) and len({*strong}) == len(strong)
