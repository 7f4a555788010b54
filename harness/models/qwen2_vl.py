"""Qwen2-VL: temporal ids count grids, whatever the frame rate."""

from __future__ import annotations

from harness.models.qwen_vl import QwenVL


class Qwen2VL(QwenVL):
    """Adapter of Qwen2-VL checkpoints of any size."""

    family = "qwen2_vl"
    timed = False
