"""Settings of the demo and of looking into stored answers. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.setting import setting


@dataclass
class DemoConfig:
    """One video file and one question for the ``demo`` verb."""

    video: str | None = None
    question: str | None = None
    options: list[str] = field(default_factory=list)
    output: str = "results/demo.png"


@dataclass
class ShowConfig:
    """Stored questions for the ``show`` verb."""

    questions: list[str] = field(default_factory=list)
    """Ids of stored questions."""
    cell: Any = None
    """Cells to show side by side: ids, beginnings of ids, or patterns with ``*``; a list, or separated by commas. Null:
    those of the configured matrix."""
    flips: list[str] = field(default_factory=list)
    """Two cells: show the questions that one of them answers right and the other wrong."""
    limit: int = setting(20, least=1)
    """Most questions."""
