"""What the paper says of attention and of its bound, measured on any model."""

from __future__ import annotations

from dataclasses import dataclass

from harness.settings.rules import setting
from harness.settings.verbs import Verb


@dataclass
class AnalyzeConfig:
    """What is analysed, and on how much."""

    names: list[str] = setting(["heavy_hitters"], positional=True, help="heavy_hitters, bound")
    videos: int | None = setting(8, least=1, help="videos, one question of each; null: all of the task")
    seconds: float = setting(10.0, above=0, most=1e6, help="seconds of video per column of the heat map")
    threshold: float = setting(0.01, above=0, below=1, help="share of the largest weight from which a token counts")
    chunk_frames: int = setting(32, least=2, most=100_000, help="frames of a chunk")
    instances: int = setting(300, least=1, most=100_000, help="random instances of the bound")
    seed: int = setting(0, least=0, most=2**31, help="of the random instances")


VERBS = [
    Verb(
        "analyze", "harness.tools.analysis.analyze", "what the paper says of attention, measured",
        "analyze", AnalyzeConfig, reads=("task", "model", "video"), single=("task", "model", "frames", "fps"),
    ),
]  # fmt: skip
