"""How many tokens a cell's videos have and what their features take, known from file headers and model files alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.settings.weights import found_architecture
from harness.video.decode import expected
from harness.video.features import feature_bytes
from harness.video.sampling import sampling_policy

if TYPE_CHECKING:
    from harness.settings.cell import Cell
    from harness.settings.groups import RunConfig

TYPICAL_SIZE = (1280, 720)
"""Width and height assumed for videos that are not on disk: most of the benchmarks' videos are 16:9."""
TYPICAL_HIDDEN = 3584
"""Of the 7B models; assumed where the weights are not on disk."""


@dataclass(frozen=True)
class Header:
    """What a video's header claims, with typical values where there is no file."""

    seconds: float | None
    width: int = TYPICAL_SIZE[0]
    height: int = TYPICAL_SIZE[1]


def read_header(path: Path, seconds: float | None = None) -> Header:
    """The header of a video; nothing is decoded. `seconds` are taken where the file holds none."""
    import av

    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError):  # the run itself reports a video that cannot be read
        return Header(seconds)
    try:
        found = container.duration / av.time_base if container.duration else seconds
        if not container.streams.video:
            return Header(found)
        stream = container.streams.video[0]
        return Header(found, stream.width or TYPICAL_SIZE[0], stream.height or TYPICAL_SIZE[1])
    finally:
        container.close()


def video_tokens(cell: Cell, header: Header) -> int:
    """Tokens of one video as the cell samples it; those of the longest video where the length is not known."""
    frames, size = expected(sampling_policy(cell.video), header.seconds, header.width, header.height)
    if cell.model.tokens_per_frame is not None:
        return frames * cell.model.tokens_per_frame
    sides = (max(1, round(side / cell.model.pixels_per_token)) for side in size)
    return math.ceil(frames / 2) * math.prod(sides)


def bytes_per_token(cell: Cell) -> int:
    """Host memory that the features of one token take."""
    width = found_architecture(cell.model.path).get("hidden_size", TYPICAL_HIDDEN)
    return feature_bytes([(width,)] * cell.model.features_per_token, cell.model.dtype)


def check_feature_memory(cell: Cell, tokens_of: Mapping[Path, int], run: RunConfig) -> None:
    """Raises UserError where the features of the largest video exceed the host memory that the run may use.

    `tokens_of` are each video's `video_tokens`. The message holds settings that fit.
    """
    path, tokens = max(tokens_of.items(), key=lambda item: item[1], default=(None, 0))
    held = 1 + run.prefetch if run.feature_dir else 1  # stored features are read ahead
    needed = held * tokens * bytes_per_token(cell) / 1e9
    if needed > run.feature_memory_gb:
        ahead = f" with run.prefetch={run.prefetch}" if held > 1 else ""
        raise UserError(
            f"the features of {path} ({tokens:,} tokens) need {needed:.3g} GB of host memory{ahead}, but "
            f"run.feature_memory_gb={run.feature_memory_gb:g}. Raise that, or lower "
            f"video.max_frames={cell.video.max_frames} or video.long_side={cell.video.long_side}"
        )
