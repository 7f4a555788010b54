"""From one raw answer to what `harness.benchmarks.metrics` counts."""

from __future__ import annotations

from typing import TypedDict

from harness.benchmarks.benchmark import Item
from harness.benchmarks.parse import Parser
from harness.benchmarks.questions import Question


class Scored(TypedDict):
    """One question's outcome. ``score`` is 1.0 or 0.0; ``letter`` is None where no letter could be parsed."""

    question_id: str
    video_id: str
    score: float
    letter: str | None
    answer: str | None
    tags: dict[str, str | list[str]]


def score_choice(text: str, asked: Item | Question, parser: Parser) -> Scored:
    """Parse one answer and compare it with the right letter; unparsed counts as wrong."""
    letter = parser(text, asked.options)
    right = letter is not None and letter == asked.answer
    return Scored(
        question_id=asked.question_id,
        video_id=asked.video_id,
        score=float(right),
        letter=letter,
        answer=asked.answer,
        tags=asked.tags,
    )
