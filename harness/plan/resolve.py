"""What a method leaves to its task and its semantics, filled in."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from harness.compress.config import MethodConfig

if TYPE_CHECKING:
    from harness.benchmarks.config import TaskConfig

POSITION_RULES = {"paper": "float", "release_2025": "float", "release_2026": "truncated"}
"""M-RoPE rule of each semantics (docs/method.md)."""


def resolve_method(method: MethodConfig, task: TaskConfig) -> MethodConfig:
    """Fill what a method leaves to its task and its semantics, and drop what cannot matter.

    An uncompressed cell ignores every compression setting, so all of them share one identity; the ``paper``
    semantics has no position reforge.
    """
    positions = method.positions or POSITION_RULES[method.semantics]
    if method.name == "none":
        return MethodConfig(name="none", positions=positions, reforge=False, chunk_frames=method.chunk_frames)
    reforge = task.reforge if method.reforge is None else method.reforge
    return dataclasses.replace(
        method,
        positions=positions,
        reforge=reforge and method.semantics != "paper",
        max_guide_length=method.max_guide_length if method.max_guide_length is not None else task.max_guide_length,
    )
