"""Questions about a storyboard: what is asked, the answer, and the options beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.toy.world import BACKGROUNDS, COLOURS, MOST_OFTEN, SHAPES, Event, Storyboard

TOGETHER = "both together"
NOT_BOTH = "not both"
COUNTS = tuple(str(n) for n in range(1, MOST_OFTEN + 1))

ONE_EVENT = ("colour", "shape", "scene", "named")
SEVERAL_EVENTS = ("order", "next", "count")
KINDS = ONE_EVENT + SEVERAL_EVENTS

TEXTS = {
    "colour": "What colour is the {}?",
    "shape": "Which shape is {}?",
    "scene": "What is behind the {}?",
    "named": "What colour is the shape named in the subtitles?",
    "order": "Which comes first, the {} or the {}?",
    "next": "What comes right after the {}?",
    "count": "How many times is the {} seen?",
}
SUBTITLES = ("Look at the", "{}")


@dataclass(frozen=True)
class Question:
    """A question without its options; `about` are the words that fill the text's gaps."""

    kind: str
    about: tuple[str, ...]
    answer: str

    @property
    def text(self) -> str:
        """The question as it is asked; the subtitles, not the text, name the shape of a `named` one."""
        return TEXTS[self.kind].format(*self.about)


def ask(story: Storyboard, kind: str) -> Iterator[Question]:
    """Every question of `kind` that `story` answers without doubt."""
    once = [event for event in story.events if len(story.of(event.shape)) == 1]
    if kind in ("colour", "named"):
        yield from (Question(kind, (e.shape,), e.colour) for e in once)
    elif kind == "shape":
        yield from (Question(kind, (e.colour,), e.shape) for e in once)
    elif kind == "scene":
        yield from (Question(kind, (e.shape,), e.background) for e in once)
    elif kind == "order":
        yield from _order(story, once)
    elif kind == "next":
        yield from _next(story)
    elif kind == "count":
        for shape in {e.shape: None for e in story.events}:
            yield Question(kind, (shape,), str(len(story.of(shape))))
    else:
        raise ValueError(f"unknown kind {kind!r}; one of {KINDS}")


def _order(story: Storyboard, once: list[Event]) -> Iterator[Question]:
    seen = {event.shape for event in story.events}
    for a in once:
        for b in once:
            if a.shape != b.shape:
                first = TOGETHER if a.start == b.start else min(a, b, key=lambda e: e.start).shape
                yield Question("order", (a.shape, b.shape), first)
        for shape in SHAPES:
            if shape not in seen:
                yield Question("order", (a.shape, shape), NOT_BOTH)
                yield Question("order", (shape, a.shape), NOT_BOTH)


def _next(story: Storyboard) -> Iterator[Question]:
    starts = [event.start for event in story.events]
    for now, after in zip(story.events, story.events[1:]):
        alone = starts.count(now.start) == 1 and starts.count(after.start) == 1
        if alone and len(story.of(now.shape)) == 1 and now.shape != after.shape:
            yield Question("next", (now.shape,), after.shape)


def kind_of(text: str) -> str:
    """The kind of question that a text (with or without options behind it) asks."""
    for kind in sorted(TEXTS, key=lambda kind: TEXTS[kind].count("{}")):
        parts = TEXTS[kind].split("{}")
        if text.startswith(parts[0]) and all(part in text for part in parts):
            return kind
    raise ValueError(f"not a toy question: {text!r}")


def words_for(question: Question) -> tuple[str, ...]:
    """All words that an option of this question may be."""
    if question.kind in ("colour", "named"):
        return tuple(COLOURS)
    if question.kind == "scene":
        return tuple(BACKGROUNDS)
    if question.kind == "count":
        return COUNTS
    if question.kind == "order":
        return (*question.about, TOGETHER, NOT_BOTH)
    return tuple(shape for shape in SHAPES if shape not in question.about)


def options_for(
    question: Question, story: Storyboard, rng: np.random.Generator, *, n: int = 4, correct: int | None = None
) -> tuple[list[str], int]:
    """`n` options in random order (fewer where fewer exist) and the index of the right one.

    About half of the wrong ones occur in the video, so that knowing what occurs is not enough.
    """
    wrong = [word for word in words_for(question) if word != question.answer]
    seen = {w for e in story.events for w in (e.shape, e.colour, e.background)}
    key = rng.random(len(wrong)) - 0.25 * np.array([word in seen for word in wrong])
    wrong = [wrong[i] for i in np.argsort(key)[: n - 1]]
    place = int(rng.integers(len(wrong) + 1)) if correct is None else correct
    wrong = [wrong[i] for i in rng.permutation(len(wrong))]
    return [*wrong[:place], question.answer, *wrong[place:]], place
