"""LLaVA-OneVision, and LLaVA-Video converted to it: plain positions, pooled frames, one newline behind the video."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from harness.compress.attention import choose_backend
from harness.compress.method import Method
from harness.errors import UserError
from harness.models.adapter import Adapter, Prompt, VideoFeatures, host_buffer, regrouped
from harness.models.language import Decoder
from harness.models.loading import choose_device, choose_dtype, end_tokens, load_config, scale_rope

if TYPE_CHECKING:
    import numpy as np


class LlavaOnevision(Adapter):
    """Adapter of LLaVA-OneVision checkpoints.

    A frame is one grid: its patches (27 x 27 at 384 pixels) pooled to half the side, rounded up (14 x 14 = 196
    tokens). The newline that follows the whole video is text: it is not in the features, no chunk holds it, and it is
    never evicted. In a prompt it is the placeholder behind the video's own placeholders.
    """

    family = "llava_onevision"
    frames_per_grid = 1
    frames_at_a_time = 32  # that the vision tower sees; memory only

    def __init__(self, model: Any, processor: Any, backend: str) -> None:
        self.model, self.processor, self.attention_backend = model, processor, backend
        self.tokenizer = processor.tokenizer
        self.language = Decoder(
            model.model.language_model,
            model.lm_head,
            backend=backend,
            rows=1,
            repetition_penalty=getattr(model.generation_config, "repetition_penalty", None) or 1.0,
            embed=self._embed,
        )
        self.device, self.dtype = self.language.device, model.dtype
        self.eos_token_ids = end_tokens(model, self.tokenizer)
        vision = model.config.vision_config
        self.side = math.ceil(vision.image_size // vision.patch_size / 2)  # tokens of a frame's row and column

    @classmethod
    def load(
        cls,
        path: str,
        *,
        dtype: str = "auto",
        device: str = "auto",
        device_map: str | None = None,
        attention: str = "auto",
        yarn_factor: float = 1.0,
    ) -> LlavaOnevision:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        chosen = choose_device(device)
        number = choose_dtype(dtype, chosen)
        backend = choose_backend(attention, chosen, number)
        config = load_config(path, cls.family)
        scale_rope(config.text_config, yarn_factor)
        model = AutoModelForImageTextToText.from_pretrained(
            path, config=config, dtype=number, attn_implementation=backend, device_map=device_map
        ).eval()
        return cls(model if device_map else model.to(chosen), AutoProcessor.from_pretrained(path), backend)

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [n, d] of tokens [n]; the only placeholder that is embedded as text is the newline."""
        embeds = self.model.model.language_model.get_input_embeddings()(ids)
        newline = self.model.model.image_newline.to(embeds.device, embeds.dtype)
        return torch.where((ids == self.model.config.video_token_id)[:, None], newline, embeds)

    @torch.inference_mode()
    def encode(self, windows: Iterable[np.ndarray], n_frames: int, second_per_grid: float) -> VideoFeatures:
        """See `Adapter.encode`; the grid is (frames, side, side) in pooled tokens."""
        config, n = self.model.config, self.side**2
        buffer, filled = None, 0
        for window in regrouped(windows, self.frames_at_a_time):
            output = self.model.model.get_video_features(
                self._pixels(window),
                vision_feature_layer=config.vision_feature_layer,
                vision_feature_select_strategy=config.vision_feature_select_strategy,
            )
            # Some transformers releases end with the newline, others append it later.
            tokens = getattr(output, "pooler_output", output)[0, : len(window) * n]
            if buffer is None:
                buffer = host_buffer(n_frames * n, tokens)
            buffer[filled : filled + len(tokens)].copy_(tokens)
            filled += len(tokens)
        if buffer is None or filled != len(buffer):
            raise ValueError(f"{n_frames} frames were announced, but the windows held {filled // n}")
        return VideoFeatures(buffer, (n_frames, self.side, self.side), n, second_per_grid)

    def _pixels(self, window: np.ndarray) -> torch.Tensor:
        """Frames as the tower takes them, squares of its own size [1, frames, 3, side, side]."""
        frames = torch.from_numpy(window).permute(0, 3, 1, 2)
        batch = self.processor.video_processor(videos=[frames], do_sample_frames=False, return_tensors="pt")
        tower = next(self.model.model.vision_tower.parameters())
        return batch["pixel_values_videos"].to(tower.device, tower.dtype)

    def prompt(self, text: str, features: VideoFeatures) -> Prompt:
        pad = self.model.config.video_token_id
        message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}
        chat = self.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer(chat, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        where = (ids == pad).nonzero().flatten().tolist()
        if len(where) != 1:
            name = self.tokenizer.convert_ids_to_tokens(pad)
            raise UserError(
                f"the prompt holds {name} {len(where)} times, but it must stand for the video once: {text!r}"
            )
        start, count = where[0], len(features.features)
        input_ids = torch.cat((ids[:start], torch.full((count + 1,), pad), ids[start + 1 :]))
        return Prompt(input_ids, slice(start, start + count), features.grid, features.second_per_grid)

    def position_ids(self, prompt: Prompt, rule: str) -> torch.Tensor:
        """Ids [1, N] that count tokens; the rules differ in temporal ids only, so all are the same here."""
        return torch.arange(len(prompt.input_ids))[None]

    def decode_text(self, token_ids: list[int]) -> str:
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

    def method(self, config: Any) -> Method:
        """See `Adapter.method`.

        Raises:
            UserError: release_2026 (its code does not run for this family), and release_2025 without reforge (its code
                then indexes position ids that are not there).
        """
        method = super().method(config)
        if method.compresses and method.semantics == "release_2025" and method.reforge is None:
            raise UserError(
                "semantics release_2025 exists for llava_onevision only with reforge: set method.reforge=true, or "
                "method.semantics=paper"
            )
        return method
