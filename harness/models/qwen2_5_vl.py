"""Qwen2.5-VL: temporal ids count time, so they need the seconds between two grids."""

from __future__ import annotations

from harness.models.qwen_vl import QwenVL


class Qwen25VL(QwenVL):
    """Adapter of Qwen2.5-VL checkpoints of any size."""

    family = "qwen2_5_vl"
    timed = True
