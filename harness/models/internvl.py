"""InternVL3 and InternVL3.5 (transformers' own format): every frame stands behind its number, written as text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.compress.scorers import attention_received
from harness.late import F, torch
from harness.models.adapter import Adapter, tokens_of
from harness.models.features import VideoFeatures

if TYPE_CHECKING:
    import numpy as np


class InternVL(Adapter):
    """Adapter of InternVL checkpoints with a dense text model.

    A frame is one grid: a single square of the tower's size, not cut into tiles, as transformers' video processor
    makes it. In the prompt the video is `Frame1: `, the mark that an image begins, its tokens, the mark that it ends,
    a new line, `Frame2: ` and so on. Positions are plain.
    """

    family = "internvl"
    frames_per_grid = 1
    window = 32
    position_rows = 1

    def encode_window(self, window: np.ndarray) -> tuple[tuple[torch.Tensor, ...], tuple[int, int, int]]:
        """See `Adapter`; the grid is (frames, side, side) in tokens."""
        config = self.model.config
        frames = torch.from_numpy(window).permute(0, 3, 1, 2)
        batch = self.processor.video_processor(videos=[frames], do_sample_frames=False, return_tensors="pt")
        tower = next(self.model.model.vision_tower.parameters())
        output = self.model.model.get_image_features(
            batch["pixel_values_videos"][0].to(tower.device, tower.dtype),
            vision_feature_layer=config.vision_feature_layer,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
        )
        tokens: torch.Tensor = getattr(output, "pooler_output", output)
        side = round(tokens.shape[1] ** 0.5)
        return (tokens.flatten(0, 1),), (len(window), side, side)

    @contextmanager
    def watched(self, attention: list[torch.Tensor]) -> Iterator[None]:
        """See `Adapter`; patches that make a token are averaged, and the class token is none."""
        module = self.model.model.vision_tower.encoder.layer[-1].attention
        merged = round(1 / self.model.config.downsample_ratio)

        def look(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states = args[0] if args else kwargs["hidden_states"]
            query, key = (
                norm(project(states)).unflatten(-1, (module.num_heads, -1)).transpose(1, 2).float()
                for project, norm in ((module.q_proj, module.q_norm), (module.k_proj, module.k_norm))
            )
            count = query.shape[2]
            rows = [attention_received(q, k, module.scale) / count for q, k in zip(query, key, strict=True)]
            side = math.isqrt(count)
            plane = torch.stack(rows)[:, count - side**2 :].view(-1, 1, side, side)
            attention.append(F.avg_pool2d(plane, merged).flatten().cpu())

        handle = module.register_forward_pre_hook(look, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def around(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Adapter`; the template's placeholder of a video is not that of its tokens."""
        placeholder = self.tokenizer.convert_tokens_to_ids(self.processor.video_token)
        return tokens_of(self.processor, placeholder, text)

    def video_tokens(self, video: VideoFeatures) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Adapter`."""
        image, pieces = self.model.config.image_token_id, []
        for frame in range(video.grid[0]):
            number = self.tokenizer("\n" * (frame > 0) + f"Frame{frame + 1}: ", add_special_tokens=False)["input_ids"]
            grid = [image] * video.tokens_per_grid
            pieces += [*number, self.processor.start_image_token_id, *grid, self.processor.end_image_token_id]
        ids = torch.tensor(pieces)
        return ids, ids == image
