"""What Qwen2-VL and Qwen2.5-VL have in common: loading, the vision tower in windows, the prompt, M-RoPE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from harness.compress.attention import choose_backend
from harness.compress.positions import mrope_position_ids
from harness.errors import UserError
from harness.models.adapter import Adapter, Prompt, VideoFeatures, host_buffer, regrouped
from harness.models.language import Decoder
from harness.models.loading import choose_device, choose_dtype, end_tokens, load_config, scale_rope

if TYPE_CHECKING:
    import numpy as np

FRAMES_PER_GRID = 2  # temporal patch size


class QwenVL(Adapter):
    """A loaded Qwen VL model. Subclasses name the family and say how time becomes a position."""

    family: ClassVar[str]
    timed: ClassVar[bool]  # whether temporal ids count seconds; otherwise they count grids
    frames_per_grid = FRAMES_PER_GRID
    frame_chunk_size = 64  # grids that the vision tower sees at a time; memory only

    def __init__(self, model: Any, processor: Any, backend: str) -> None:
        self.model, self.processor, self.attention_backend = model, processor, backend
        self.tokenizer = processor.tokenizer
        generation = model.generation_config
        self.language = Decoder(
            model.model.language_model,
            model.lm_head,
            backend=backend,
            rows=3,
            repetition_penalty=getattr(generation, "repetition_penalty", None) or 1.0,
        )
        self.device, self.dtype = self.language.device, model.dtype
        self.eos_token_ids = end_tokens(model, self.tokenizer)

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
    ) -> QwenVL:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        chosen = choose_device(device)
        number = choose_dtype(dtype, chosen)
        backend = choose_backend(attention, chosen, number)
        config = load_config(path, cls.family)
        scale_rope(config.text_config, yarn_factor)
        model = AutoModelForImageTextToText.from_pretrained(
            path, config=config, dtype=number, attn_implementation=backend, device_map=device_map
        ).eval()
        processor = AutoProcessor.from_pretrained(path)
        return cls(model if device_map else model.to(chosen), processor, backend)

    @torch.inference_mode()
    def encode(self, windows: Iterable[np.ndarray], n_frames: int, second_per_grid: float) -> VideoFeatures:
        tower = self.model.model.visual
        grids = -(-n_frames // FRAMES_PER_GRID)
        buffer, grid, filled = None, (0, 0, 0), 0
        for window in regrouped(windows, self.frame_chunk_size * FRAMES_PER_GRID):
            pixels, grid = self._pixels(window)
            output = tower(pixels.to(tower.device, tower.dtype), grid_thw=torch.tensor([grid], device=tower.device))
            tokens = getattr(output, "pooler_output", output)
            if buffer is None:
                buffer = host_buffer(grids * len(tokens) // grid[0], tokens)
            buffer[filled : filled + len(tokens)].copy_(tokens)
            filled += len(tokens)
        if buffer is None or filled != len(buffer):
            raise ValueError(f"{n_frames} frames were announced, but the windows held {filled} tokens' worth")
        return VideoFeatures(buffer, (grids, *grid[1:]), filled // grids, second_per_grid)

    def _pixels(self, window: np.ndarray) -> tuple[torch.Tensor, tuple[int, int, int]]:
        """Patches [patches, values] and their grid. The processor rounds the size to whole merged patches."""
        frames = torch.from_numpy(window).permute(0, 3, 1, 2)
        video_processor = self.processor.video_processor
        options = {"do_sample_frames": False, "return_tensors": "pt"}
        if hasattr(video_processor, "cap_pixels_per_frame"):
            options["cap_pixels_per_frame"] = False  # the cap depends on the number of frames, so on the window
        batch = video_processor(videos=[frames], **options)
        return batch["pixel_values_videos"], tuple(batch["video_grid_thw"][0].tolist())

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
        input_ids = torch.cat((ids[:start], torch.full((count,), pad), ids[start + 1 :]))
        return Prompt(input_ids, slice(start, start + count), features.grid, features.second_per_grid)

    def position_ids(self, prompt: Prompt, rule: str) -> torch.Tensor:
        vision = self.model.config.vision_config
        return mrope_position_ids(
            prompt.input_ids,
            self.model.config.video_token_id,
            prompt.grid,
            second_per_grid=prompt.second_per_grid if self.timed else None,
            tokens_per_second=getattr(vision, "tokens_per_second", 2),
            rule=rule,
            spatial_merge_size=vision.spatial_merge_size,
        )

    def decode_text(self, token_ids: list[int]) -> str:
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)
