"""What Qwen2-VL and Qwen2.5-VL have in common: the vision tower and M-RoPE."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compress.positions import mrope_position_ids
from harness.compress.scorers import attention_received
from harness.late import torch
from harness.models.adapter import Adapter
from harness.models.features import VideoFeatures
from harness.models.language import rotated

if TYPE_CHECKING:
    import numpy as np


class QwenVL(Adapter):
    """A Qwen VL model. Subclasses name the family and say how time becomes a position."""

    timed: ClassVar[bool]  # whether temporal ids count seconds; otherwise they count grids
    frames_per_grid = 2  # temporal patch size
    window = 128
    position_rows = 3

    def encode_window(self, window: np.ndarray) -> tuple[tuple[torch.Tensor, ...], tuple[int, int, int]]:
        """See `Adapter`; the grid is (grids, height, width) in patches before merging."""
        tower = self.model.model.visual
        pixels, grid = self._pixels(window)
        output = tower(pixels.to(tower.device, tower.dtype), grid_thw=torch.tensor([grid], device=tower.device))
        return (getattr(output, "pooler_output", output),), grid

    @contextmanager
    def watched(self, attention: list[torch.Tensor]) -> Iterator[None]:
        """See `Adapter`. The tower may order its patches anew, so the numbers ride through it as one more feature."""
        tower, merged = self.model.model.visual, self.model.config.vision_config.spatial_merge_size**2
        whole = max(getattr(self.model.config.vision_config, "fullatt_block_indexes", None) or [len(tower.blocks) - 1])
        seen: list[torch.Tensor] = []

        def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states = args[0] if args else kwargs["hidden_states"]
            bounds = args[1] if len(args) > 1 else kwargs["cu_seqlens"]
            query, key = module.qkv(states).view(len(states), 3, module.num_heads, -1).permute(1, 2, 0, 3)[:2].float()
            cos, sin = (table.float() for table in kwargs["position_embeddings"])
            query, key = (rotated(x, cos, sin) for x in (query, key))
            sizes = bounds.diff().tolist()
            parts = zip(query.split(sizes, dim=1), key.split(sizes, dim=1), strict=True)
            weights = torch.cat([attention_received(q, k, q.shape[-1] ** -0.5) / q.shape[1] for q, k in parts])
            seen.append(weights.view(-1, merged).mean(1))

        def ride(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
            return torch.cat((output.float(), seen.pop()[:, None]), dim=1)

        def alight(_module: Any, _args: Any, output: Any) -> Any:
            both = output[0] if isinstance(output, tuple) else getattr(output, "pooler_output", output)
            attention.append(both[:, -1].cpu())
            features = both[:, :-1].to(tower.dtype)
            if isinstance(output, tuple):
                return (features, *output[1:])
            if both is output:
                return features
            output.pooler_output = features
            return output

        handles = [
            tower.blocks[whole].attn.register_forward_pre_hook(look, with_kwargs=True),
            tower.merger.register_forward_hook(ride),
            tower.register_forward_hook(alight),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _pixels(self, window: np.ndarray) -> tuple[torch.Tensor, tuple[int, int, int]]:
        """Patches [patches, values] and their grid. The processor rounds the size to whole merged patches."""
        frames = torch.from_numpy(window).permute(0, 3, 1, 2)
        video_processor = self.processor.video_processor
        options = {"do_sample_frames": False, "return_tensors": "pt"}
        if hasattr(video_processor, "cap_pixels_per_frame"):
            options["cap_pixels_per_frame"] = False  # the cap depends on the number of frames, so on the window
        batch = video_processor(videos=[frames], **options, **self.pixel_options())
        return batch["pixel_values_videos"], tuple(batch["video_grid_thw"][0].tolist())

    def pixel_options(self) -> dict[str, object]:
        """What else the video processor is told."""
        return {}

    def position_ids(self, input_ids: torch.Tensor, video: VideoFeatures, rule: str) -> torch.Tensor:
        """M-RoPE ids [3, N]."""
        vision = self.model.config.vision_config
        return mrope_position_ids(
            input_ids,
            self.model.config.video_token_id,
            video.grid,
            second_per_grid=video.second_per_grid if self.timed else None,
            tokens_per_second=getattr(vision, "tokens_per_second", 2),
            rule=rule,
            spatial_merge_size=vision.spatial_merge_size,
        )
