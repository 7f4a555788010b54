"""Tiny random models and prompts."""

from __future__ import annotations

from typing import Any

import torch

from harness.compress.positions import mrope_position_ids
from harness.compress.prompt import Prompt
from harness.models.language import Decoder

VIDEO, VOCABULARY, HIDDEN = 154, 160, 32


def tiny_model(seed: int = 0, layers: int = 3, yarn: float = 1.0) -> Any:
    """A random Qwen2.5-VL in float32: 4 query heads, 2 key heads, sharp attention."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from harness.models.loading import scale_rope

    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": 48,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        },
        vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32},
        video_token_id=VIDEO,
    )
    scale_rope(config.text_config, yarn)
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(12)
    return model.eval()


def decoder(model: Any, backend: str = "sdpa") -> Decoder:
    return Decoder(model.model.language_model, model.lm_head, backend=backend, rows=3)


class Sample:
    """A prompt of 5 text tokens, a video of `grids` grids of h x w patches, 7 text tokens."""

    def __init__(self, seed: int = 0, grids: int = 10, h: int = 4, w: int = 6, pre: int = 5, post: int = 7) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.grid, self.tokens_per_grid = (grids, h, w), h * w // 4
        self.n_video = grids * self.tokens_per_grid
        text = torch.randint(0, 150, (pre + post,), generator=generator)
        self.input_ids = torch.cat((text[:pre], torch.full((self.n_video,), VIDEO), text[pre:]))
        self.video = slice(pre, pre + self.n_video)
        scenes = torch.randn(grids, 1, HIDDEN, generator=generator).cumsum(0)
        noise = torch.randn(grids, self.tokens_per_grid, HIDDEN, generator=generator)
        self.features = (scenes + noise).view(-1, HIDDEN)

    @property
    def n_prompt(self) -> int:
        return len(self.input_ids)

    def prompt(self, rule: str = "float", context: int | None = None) -> Prompt:
        return Prompt(
            input_ids=self.input_ids,
            positions=self.positions(rule),
            video=torch.arange(self.video.start, self.video.stop),
            grid_lengths=(self.tokens_per_grid,) * self.grid[0],
            context=context,
        )

    def positions(self, rule: str = "float", second_per_grid: float = 1.0) -> torch.Tensor:
        return mrope_position_ids(self.input_ids, VIDEO, self.grid, second_per_grid=second_per_grid, rule=rule)


def stock_logits(model: Any, sample: Sample, rule: str = "float") -> torch.Tensor:
    """Logits [v] of the stock model after one full pass over the prompt, with the ids of `rule`."""
    embeds = model.get_input_embeddings()(sample.input_ids).detach().clone()
    embeds[sample.video] = sample.features
    with torch.inference_mode():
        hidden = model.model.language_model(inputs_embeds=embeds[None], position_ids=sample.positions(rule)[:, None])
        return model.lm_head(hidden.last_hidden_state[0, -1])
