"""Looking into single answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.settings.rules import setting
from harness.settings.verbs import Verb


@dataclass
class DemoConfig:
    """One video file and one question."""

    video: str | None = setting(None, flag=True, help="video file; null: a toy video")
    question: str | None = setting(None, flag=True, help="the question")
    options: list[str] = setting([], flag=True, help="options of a multiple-choice question")
    output: str = setting("results/demo.png", flag=True, help="picture to write")


@dataclass
class ShowConfig:
    """Stored questions, replayed."""

    questions: list[str] = setting([], positional=True, help="ids of stored questions")
    cell: Any = setting(
        None, help="cells: ids, digests, patterns or [settings]; a list, or separated by commas; null: the matrix"
    )
    flips: list[str] = setting([], flag=True, help="two cells: questions that one answers right and the other wrong")
    limit: int = setting(20, least=1, flag=True, help="most questions")


VERBS = [
    Verb(
        "demo", "harness.tools.show.demo", "one video, one question: the answer and which tokens were kept",
        "demo", DemoConfig, single=("task", "model", "method", "frames", "fps", "context", "variant", "semantics"),
    ),
    Verb(
        "show", "harness.tools.show.show", "replay stored questions: which tokens each cell kept, side by side",
        "show", ShowConfig,
    ),
]  # fmt: skip
