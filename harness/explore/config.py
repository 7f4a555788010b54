"""Settings of the demo. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DemoConfig:
    """One video file and one question for the ``demo`` verb."""

    video: str | None = None
    question: str | None = None
    options: list[str] = field(default_factory=list)
    output: str = "results/demo.png"
