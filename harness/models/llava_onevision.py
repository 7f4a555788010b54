"""LLaVA-OneVision, and LLaVA-Video converted to it: plain positions, pooled frames, one newline behind the video."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.compress.scorers import attention_received
from harness.late import F, torch
from harness.models.adapter import Adapter

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
    window = 32
    position_rows = 1
    text_behind_video = 1

    def __init__(self, model: Any, processor: Any, backend: str) -> None:
        super().__init__(model, processor, backend)
        vision = model.config.vision_config
        self.side = math.ceil(vision.image_size // vision.patch_size / 2)  # tokens of a frame's row and column

    def embed_text(self, ids: torch.Tensor) -> torch.Tensor:
        """See `Adapter`; the only placeholder that is embedded as text is the newline."""
        embeds = super().embed_text(ids)
        newline = self.model.model.image_newline.to(embeds.device, embeds.dtype)
        return torch.where((ids == self.model.config.video_token_id)[:, None], newline, embeds)

    def encode_window(self, window: np.ndarray) -> tuple[tuple[torch.Tensor, ...], tuple[int, int, int]]:
        """See `Adapter`; the grid is (frames, side, side) in pooled tokens."""
        config = self.model.config
        output = self.model.model.get_video_features(
            self._pixels(window),
            vision_feature_layer=config.vision_feature_layer,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
        )
        # Some transformers releases end with the newline, others append it later.
        tokens = getattr(output, "pooler_output", output)[0, : len(window) * self.side**2]
        return (tokens,), (len(window), self.side, self.side)

    @contextmanager
    def watched(self, attention: list[torch.Tensor]) -> Iterator[None]:
        """See `Adapter`; pooled like the features."""
        tower = self.model.model.vision_tower
        # The pooling head of SigLIP, which the model drops, has one projection for all and is none of these.
        module: Any = [module for module in tower.modules() if hasattr(module, "q_proj")][-1]

        def look(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states = args[0] if args else kwargs["hidden_states"]
            count, heads = states.shape[1], module.num_heads
            query, key = (
                p(states).unflatten(-1, (heads, -1)).transpose(1, 2).float() for p in (module.q_proj, module.k_proj)
            )
            rows = [attention_received(q, k, q.shape[-1] ** -0.5) / count for q, k in zip(query, key, strict=True)]
            side = math.isqrt(count)
            plane = torch.stack(rows).view(-1, 1, side, side)
            pooled = F.interpolate(plane, size=(self.side, self.side), mode="bilinear")
            attention.append(pooled.flatten().cpu())

        handle = module.register_forward_pre_hook(look, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _pixels(self, window: np.ndarray) -> torch.Tensor:
        """Frames as the tower takes them, squares of its own size [1, frames, 3, side, side]."""
        frames = torch.from_numpy(window).permute(0, 3, 1, 2)
        batch = self.processor.video_processor(videos=[frames], do_sample_frames=False, return_tensors="pt")
        tower = next(self.model.model.vision_tower.parameters())
        pixels: torch.Tensor = batch["pixel_values_videos"]
        return pixels.to(tower.device, tower.dtype)
