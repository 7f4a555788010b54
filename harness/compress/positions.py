"""Position ids of a prompt with one video, and of the guide behind a chunk.

The M-RoPE ids of the Qwen families changed between transformers releases, and an answer changes with them. They are
therefore computed here, by named rules, from nothing but the prompt; no rule reads the installed transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from harness.errors import UserError
from harness.late import torch

TEMPORAL = 0  # row of the temporal ids in a [3, n] tensor of M-RoPE ids; rows 1 and 2 are height and width


def _float_step(grid: int, second_per_grid: float, tokens_per_second: float) -> int:
    return math.floor(grid * second_per_grid * tokens_per_second)


def _truncated_step(grid: int, second_per_grid: float, tokens_per_second: float) -> int:
    return int(grid * int(second_per_grid) * tokens_per_second)


_STEPS: dict[str, Callable[[int, float, float], int]] = {
    "float": _float_step,  # original Qwen2.5-VL code; transformers up to 4.51
    "truncated": _truncated_step,  # transformers 4.52 to 5.2: 0.5 s per grid gives every frame the same id
    "v5": _float_step,  # transformers 5.23: the text after the video starts inside the video's id range
}
RULES = tuple(_STEPS)


def check_rule(rule: str) -> str:
    """`rule` itself if it is a known position rule; `UserError` with the allowed names otherwise."""
    if rule not in _STEPS:
        raise UserError(f"unknown position rule {rule!r}: allowed are {', '.join(RULES)}; set method.positions=float")
    return rule


def mrope_position_ids(
    input_ids: torch.Tensor,
    video_token_id: int,
    grid_thw: tuple[int, int, int],
    *,
    second_per_grid: float | None,
    tokens_per_second: float = 2.0,
    rule: str = "float",
    spatial_merge_size: int = 2,
) -> torch.Tensor:
    """M-RoPE ids [3, n] (temporal, height, width) of a prompt with at most one run of video tokens.

    Args:
        input_ids: prompt [n].
        video_token_id: the placeholder that stands for one merged video patch.
        grid_thw: grids, height and width of the video in patches (before merging).
        second_per_grid: seconds between two grids (2 / sampling fps). `None` for a family whose temporal id counts
            grids (Qwen2-VL): then a grid is one step under every rule.
        tokens_per_second: temporal ids per second (2 in Qwen2.5-VL).
        rule: `float`, `truncated` or `v5`; see `RULES`.
        spatial_merge_size: patches merged per side into one token.

    Raises:
        UserError: unknown rule.
        ValueError: the number of video tokens is not that of the grid, or they are not contiguous.
    """
    step = _STEPS[check_rule(rule)]
    n = int(input_ids.shape[-1])
    ids = torch.arange(n).expand(3, n).clone()
    where = (input_ids == video_token_id).nonzero().flatten().cpu()
    if where.numel() == 0:
        return ids
    grids, rows, columns = grid_thw[0], grid_thw[1] // spatial_merge_size, grid_thw[2] // spatial_merge_size
    start, n_video = int(where[0]), grids * rows * columns
    if where.numel() != n_video or int(where[-1]) - start + 1 != n_video:
        raise ValueError(
            f"the prompt has {where.numel()} video tokens from {start} to {int(where[-1])}, "
            f"but the grid {tuple(grid_thw)} needs {n_video} in one run"
        )
    if second_per_grid is None:
        steps = list(range(grids))
    else:
        steps = [step(g, second_per_grid, tokens_per_second) for g in range(grids)]
    video = torch.stack(
        (
            torch.tensor(steps).repeat_interleave(rows * columns),
            torch.arange(rows).repeat_interleave(columns).repeat(grids),
            torch.arange(columns).repeat(grids * rows),
        )
    )
    ids[:, start : start + n_video] = start + video
    after = start + max(rows, columns) if rule == "v5" else int(ids[:, : start + n_video].max()) + 1
    ids[:, start + n_video :] = after + torch.arange(n - start - n_video)
    return ids


def next_position(positions: torch.Tensor) -> torch.Tensor:
    """Ids [r, 1] of the first decoded token: one more than the largest id of the prompt [r, N], in all rows."""
    return torch.full((positions.shape[0], 1), int(positions.max()) + 1)


def after_chunk(positions: torch.Tensor, chunk: slice, guide: slice) -> torch.Tensor:
    """Guide ids [r, g] that follow the chunk as text follows a video: all rows start at the chunk's largest id + 1."""
    ids = positions[:, guide]
    return ids + (int(positions[:, chunk].max()) + 1 - int(ids[TEMPORAL, 0]))


def after_temporal_row(positions: torch.Tensor, chunk: slice, guide: slice) -> torch.Tensor:
    """Guide ids [r, g] shifted so that the *temporal* row continues the chunk's last temporal id."""
    ids = positions[:, guide]
    return ids + (int(positions[TEMPORAL, chunk.stop - 1]) + 1 - int(ids[TEMPORAL, 0]))


def after_text_index(positions: torch.Tensor, chunk: slice, guide: slice) -> torch.Tensor:
    """Guide ids [r, g] shifted, in all rows, by the number of prompt tokens between the chunk and the guide.

    A count of tokens is taken for a distance of ids, so the guide of an early chunk lands far before the chunk.
    """
    moved: torch.Tensor = positions[:, guide] - (guide.start - chunk.stop)
    return moved
