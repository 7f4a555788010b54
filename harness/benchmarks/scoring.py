"""From one raw answer to the items that lmms-eval's aggregations and `harness.benchmarks.metrics` take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from harness.benchmarks.metrics import metric_names
from harness.benchmarks.parse import PARSERS


class Scored(TypedDict):
    """One question's outcome. ``score`` is 1.0 or 0.0; ``letter`` is None where no letter could be parsed."""

    question_id: str
    video_id: str
    score: float
    letter: str | None
    answer: str | None
    tags: dict[str, str | list[str]]


def score_choice(
    text: str,
    *,
    question_id: str,
    video_id: str,
    options: Mapping[str, str],
    answer: str | None,
    tags: dict[str, str | list[str]],
    parser: str = "anchored",
) -> Scored:
    """Parse one answer and compare it with the right letter; unparsed counts as wrong."""
    letter = PARSERS[parser](text, options)
    right = letter is not None and letter == answer
    return Scored(
        question_id=question_id, video_id=video_id, score=float(right), letter=letter, answer=answer, tags=tags
    )


def by_metric(benchmark: str, item: Scored) -> dict[str, Scored]:
    """What ``process_results`` returns: the item under every metric that it counts in.

    A question whose right answer is not public counts in no score, only in the rate of unparsed answers.
    """
    scored = metric_names(benchmark, item["tags"]) if item["answer"] is not None else []
    return {name: item for name in [*scored, "unparsed"]}


def choice_results(
    benchmark: str,
    question_id: Callable[[dict], str],
    video_id: Callable[[dict], str],
    options: Callable[[dict], dict[str, str]],
    answer: Callable[[dict], str | None],
    tags: Callable[[dict], dict[str, Any]],
    *,
    parser: str = "anchored",
) -> Callable[[dict, list[str]], dict[str, Scored]]:
    """A benchmark's ``process_results``: from a row and the model's replies to the items of its metrics.

    Args:
        question_id, video_id, options, answer, tags: read a row.
        parser: one of `harness.benchmarks.parse.PARSERS`.
    """

    def process_results(doc: dict, results: list[str]) -> dict[str, Scored]:
        if not options(doc):
            return {}
        item = score_choice(
            results[0],
            question_id=question_id(doc),
            video_id=video_id(doc),
            options=options(doc),
            answer=answer(doc),
            tags=tags(doc),
            parser=parser,
        )
        return by_metric(benchmark, item)

    return process_results
