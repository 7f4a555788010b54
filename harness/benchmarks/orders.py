"""Options of a question in another order: a replicate of a benchmark, whose right answers follow their texts.

Accuracy of multiple-choice models moves with the order of the options (Zheng et al. 2024, "Large Language Models Are
Not Robust Multiple Choice Selectors"). An order depends on the question's id and the replicate alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from harness.errors import QuestionError

if TYPE_CHECKING:
    from harness.benchmarks.questions import Question


def order_of(question_id: str, letters: Iterable[str], replicate: int) -> dict[str, str]:
    """Letter as shown -> letter of the same text as published.

    Args:
        question_id: of the question.
        letters: of its options.
        replicate: 0 is the published order; any other is a uniform draw from the orders that are not.
    """
    published = sorted(letters)
    drawn = list(published)
    seed = hashlib.sha256(f"order {replicate} {question_id}".encode(errors="replace")).digest()
    source = random.Random(int.from_bytes(seed[:8], "big"))
    while replicate and drawn == published and len(published) > 1:
        source.shuffle(drawn)
    return dict(zip(published, drawn, strict=True))


def reordered(question: Question, replicate: int) -> Question:
    """The question with its options in the order of a replicate; the right letter is that of the same text.

    Raises:
        QuestionError: the prompt does not list the options as ``A. text`` or ``(A) text``, each on its line.
    """
    order = order_of(question.question_id, question.options, replicate)
    moved = {shown: letter for shown, letter in order.items() if shown != letter}
    if not moved:
        return question
    prompt, end = question.prompt, len(question.prompt)
    for shown in sorted(moved, reverse=True):  # from the last, so that the places before stay
        place = _place(prompt[:end], shown, question.options[shown])
        if place is None:
            raise QuestionError(
                f"question {question.question_id} does not list option {shown} on a line of its own, so its options "
                "have no other order; ask it with task.replicate=0"
            )
        start, stop = place
        prompt, end = prompt[:start] + question.options[moved[shown]] + prompt[stop:], start
    back = {letter: shown for shown, letter in order.items()}
    return dataclasses.replace(
        question,
        prompt=prompt,
        options={shown: question.options[letter] for shown, letter in order.items()},
        answer=None if question.answer is None else back.get(question.answer, question.answer),
    )


def as_published(
    letters: Iterable[str | None], questions: Iterable[tuple[str, Mapping[str, str]]], replicate: int
) -> list[str | None]:
    """Answered letters as letters of the published order, so that replicates can be compared question by question.

    Args:
        letters: as shown; None stays None.
        questions: id and options of each.
        replicate: under which they were asked.
    """
    pairs = zip(letters, questions, strict=True)
    return [letter and order_of(name, options, replicate).get(letter, letter) for letter, (name, options) in pairs]


def _place(prompt: str, letter: str, text: str) -> tuple[int, int] | None:
    """Where the text of an option stands in a prompt: the last place that lists it."""
    mark = rf"^(?:{letter}\.|\({letter}\))[ ]*({re.escape(text)})[ ]*\.?[ ]*$"
    found = list(re.finditer(mark, prompt, flags=re.MULTILINE))
    return found[-1].span(1) if found else None
