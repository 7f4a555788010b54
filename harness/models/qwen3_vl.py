"""Qwen3-VL: every grid stands behind its time, written as text, and some features enter behind the first layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.compress.positions import TEMPORAL
from harness.late import torch
from harness.models.features import VideoFeatures
from harness.models.qwen_vl import QwenVL

if TYPE_CHECKING:
    import numpy as np


class Qwen3VL(QwenVL):
    """Adapter of dense Qwen3-VL checkpoints.

    In the prompt the video is `<1.5 seconds>`, the mark that vision begins, a grid, the mark that it ends, and so on
    (transformers' processor; the marks of the chat template give way to these). The time is the mean of the grid's two
    frames; a last frame without a second one is shown twice, a single frame too, which transformers' processor refuses.
    Temporal ids do not count time, so the position rules agree.
    """

    family = "qwen3_vl"
    timed = False
    version = 2

    def encode_window(self, window: np.ndarray) -> tuple[tuple[torch.Tensor, ...], tuple[int, int, int]]:
        """See `Adapter`: what enters the embeddings, and what is added behind the first layers (deepstack)."""
        tower = self.model.model.visual
        if len(window) % self.frames_per_grid:  # as the processor does, which does not take a single frame
            window = window[[*range(len(window)), -1]]
        pixels, grid = self._pixels(window)
        output = tower(pixels.to(tower.device, tower.dtype), grid_thw=torch.tensor([grid], device=tower.device))
        if isinstance(output, tuple):
            return (output[0], *output[1]), grid
        return (output.pooler_output, *output.deepstack_features), grid

    def pixel_options(self) -> dict[str, object]:
        """Sizes are only rounded: the processor's limits are on a whole video, of which it sees a window."""
        return {"size": {"shortest_edge": 1, "longest_edge": 2**62}}

    def around(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Adapter`; without the template's marks around the video."""
        before, after = super().around(text)
        config = self.model.config
        if before[-1] == config.vision_start_token_id and after[0] == config.vision_end_token_id:
            return before[:-1], after[1:]
        return before, after

    def video_tokens(self, video: VideoFeatures) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Adapter`."""
        config, pieces = self.model.config, []
        for seconds in video.grid_seconds(self.frames_per_grid):
            stamp = self.tokenizer(f"<{seconds:.1f} seconds>", add_special_tokens=False)["input_ids"]
            grid = [config.video_token_id] * video.tokens_per_grid
            pieces += [*stamp, config.vision_start_token_id, *grid, config.vision_end_token_id]
        ids = torch.tensor(pieces)
        return ids, ids == config.video_token_id

    def position_ids(self, input_ids: torch.Tensor, video: VideoFeatures, rule: str) -> torch.Tensor:
        """M-RoPE ids [3, N]: a grid takes as many temporal ids as its longer side has tokens, all of one value."""
        merge = self.model.config.vision_config.spatial_merge_size
        rows, columns = video.grid[1] // merge, video.grid[2] // merge
        is_video = input_ids == self.model.config.video_token_id
        first = torch.zeros_like(is_video)
        first[is_video.nonzero().flatten()[:: rows * columns]] = True
        # Text moves on by one per token, the video by the longer side per grid.
        step = torch.where(is_video, torch.where(first, max(rows, columns), 0), 1)
        ids = (step.cumsum(0) - step).repeat(3, 1)
        starts = ids[TEMPORAL, first]
        ids[TEMPORAL, is_video] = starts.repeat_interleave(rows * columns)
        ids[1, is_video] = ids[TEMPORAL, is_video] + torch.arange(rows).repeat_interleave(columns).repeat(len(starts))
        ids[2, is_video] = ids[TEMPORAL, is_video] + torch.arange(columns).repeat(rows * len(starts))
        return ids
