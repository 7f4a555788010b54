"""Settings of the analyses. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.setting import setting


@dataclass
class AnalyzeConfig:
    """What is analysed, and on how much; ``videos`` null takes all of the task, one question of each."""

    names: list[str] = field(default_factory=lambda: ["heavy_hitters"])
    videos: int | None = setting(8, least=1)
    seconds: float = setting(10.0, above=0, most=1e6)
    threshold: float = setting(0.01, above=0, below=1)
    chunk_frames: int = setting(32, least=2, most=100_000)
    instances: int = setting(300, least=1, most=100_000)
    seed: int = setting(0, least=0, most=2**31)
