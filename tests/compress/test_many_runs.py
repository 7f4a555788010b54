"""A prompt whose video is many runs with text between, and features that enter at several layers, as in Qwen3-VL."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.compress.generate import generate
from harness.compress.method import Method, Pruned, build_method
from harness.compress.prompt import Prompt
from harness.models.language import Decoder

VIDEO, N, GRIDS, PRE, STAMP, POST = 154, 6, 8, 4, 3, 7


@pytest.fixture(scope="module")
def model() -> Any:
    """A random Qwen3-VL in float32: four layers, features added behind the first two."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config={
            "vocab_size": 160,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1], "mrope_interleaved": True,
            },
        },
        vision_config={"depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32},
        video_token_id=VIDEO,
    )  # fmt: skip
    torch.manual_seed(0)
    made = Qwen3VLForConditionalGeneration._from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(12)
    return made.eval()


@pytest.fixture(scope="module")
def language(model: Any) -> Decoder:
    return Decoder(model.model.language_model, model.lm_head, backend="sdpa", rows=3)


def prompt_of(context: int | None = None) -> Prompt:
    """Text, then for every grid a timestamp of text and its tokens, then text."""
    generator = torch.Generator().manual_seed(0)
    ids, video = [torch.randint(0, 150, (PRE,), generator=generator)], []
    for _ in range(GRIDS):
        ids.append(torch.randint(0, 150, (STAMP,), generator=generator))
        start = sum(map(len, ids))
        video.append(torch.arange(start, start + N))
        ids.append(torch.full((N,), VIDEO))
    ids.append(torch.randint(0, 150, (POST,), generator=generator))
    flat = torch.cat(ids)
    positions = torch.arange(len(flat)).repeat(3, 1)
    for run in video:
        positions[1:, run] = positions[0, run[0]] + torch.stack((torch.arange(N) // 3, torch.arange(N) % 3))
    return Prompt(flat, positions, torch.cat(video), (N,) * GRIDS, context=context)


def features_of() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(GRIDS * N, 32, generator=generator) for _ in range(3))


@torch.inference_mode()
def one_pass(model: Any, prompt: Prompt, features: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Next-token logits of the stock model, which adds the features itself."""
    embeds = model.get_input_embeddings()(prompt.input_ids).clone()
    embeds[prompt.video] = features[0]
    mask = torch.zeros(1, prompt.n_prompt, dtype=torch.bool)
    mask[0, prompt.video] = True
    states = model.model.language_model(
        inputs_embeds=embeds[None],
        position_ids=prompt.positions[:, None],
        visual_pos_masks=mask,
        deepstack_visual_embeds=list(features[1:]),
    )
    return model.lm_head(states.last_hidden_state[0, -1])


@pytest.mark.parametrize("chunk_frames", [2, 6, 100])
def test_chunked_prefill_is_one_pass(model: Any, language: Decoder, chunk_frames: int) -> None:
    prompt, features = prompt_of(), features_of()
    got = generate(language, Method(chunk_frames=chunk_frames), prompt, features, max_new_tokens=1, record=True)
    assert got.trace.cache_length == [prompt.n_prompt] * 4
    assert torch.allclose(got.trace.recording.logits[0], one_pass(model, prompt, features), atol=1e-4)
    flat = generate(language, Method(), prompt, features[:1], max_new_tokens=1, record=True)
    assert not torch.allclose(flat.trace.recording.logits[0], got.trace.recording.logits[0], atol=1e-2)


@pytest.mark.parametrize("name", ["adaretake", "random"])
def test_budgets_are_exact_and_text_between_grids_stays(language: Decoder, name: str) -> None:
    prompt = prompt_of(context=prompt_of().n_prompt - 30)
    got = generate(
        language, build_method(name, chunk_frames=4).for_family("qwen3_vl"), prompt, features_of(), max_new_tokens=1,
        record=True,
    ).trace  # fmt: skip
    assert sum(got.cache_length) == 4 * prompt.context
    text = torch.ones(prompt.n_prompt, dtype=torch.bool)
    text[prompt.video] = False
    for layer in range(4):
        cached = set(got.recording.cache.positions(layer)[0].tolist())
        assert set(prompt.positions[0, text].tolist()) <= cached


def test_pruned_tokens_take_their_added_features_with_them(model: Any, language: Decoder) -> None:
    kept = torch.arange(0, GRIDS * N, 2)

    class EverySecond(Method):
        def compresses(self, prompt: Prompt) -> bool:
            return True

        def prune(self, run: Any) -> Pruned:
            return Pruned(kept)

    prompt, features = prompt_of(), features_of()
    got = generate(language, EverySecond(chunk_frames=4), prompt, features, max_new_tokens=1, record=True)
    assert got.trace.n_video == len(kept) and got.trace.chunk_lengths == [6] * 4
    expected = one_pass(model, prompt.keep_video(kept), tuple(f[kept] for f in features))
    assert torch.allclose(got.trace.recording.logits[0], expected, atol=1e-4)


def test_tokens_cannot_be_dropped_where_features_are_still_added(language: Decoder) -> None:
    class Early(Method):
        def feed(self, run: Any, segment: Any) -> Any:
            if segment.chunk is None:
                return super().feed(run, segment)
            return run.forward(
                segment, between=lambda layer, hidden, alive: (hidden[-2:], alive[-2:]) if layer == 1 else None
            )

    with pytest.raises(ValueError, match="still added behind"):
        generate(language, Early(chunk_frames=4), prompt_of(), features_of(), max_new_tokens=1)
