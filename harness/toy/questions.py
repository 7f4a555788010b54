"""Questions about a storyboard: what is asked, the answer, and the options beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.toy.world import BACKGROUNDS, COLOURS, MOST_OFTEN, SHAPES, Event, Storyboard


@dataclass(frozen=True)
class Wanted:
    """A video to make: its file below the benchmark's folder, its length, the kinds to ask."""

    path: str
    seconds: int
    kinds: tuple[str, ...]
    group: str = ""

    @property
    def stem(self) -> str:
        return Path(self.path).stem


@dataclass(frozen=True)
class ToyItem:
    """A question with its options in order and the index of the right one."""

    question: ToyQuestion
    options: list[str]
    correct: int


@dataclass(frozen=True)
class Made:
    """A finished video with its questions; `named` is the shape that its subtitles name."""

    wanted: Wanted
    story: Storyboard
    asked: list[ToyItem]
    named: str


@dataclass(frozen=True)
class Layout:
    """One benchmark. `options(i)` is how many options question number i has where the kind allows it."""

    name: str
    plan: Callable[[float], list[Wanted]]
    annotate: Callable[[Path, Sequence[Made]], None]
    options: Callable[[int], int] = lambda i: 4


def mixed(i: int, one: Sequence[str] = ("colour", "shape", "scene")) -> tuple[str, ...]:
    """Three kinds for video i: in turn two or one of those that need several events."""
    several = ("both", "count", "order", "both", "count")
    pair = [several[i % len(several)], several[(i + 1) % len(several)]]
    alone = [one[i % len(one)], one[(i + 1) % len(one)]]
    return (alone[0], *pair) if i % 2 else (*alone, pair[0])


def times(n: int, scale: float) -> int:
    return max(1, round(n * scale))


def toy_clock(seconds: float, *, decimal: str = ".") -> str:
    whole = int(seconds)
    milli = round((seconds - whole) * 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{decimal}{milli:03d}"


def subtitle_lines(made: Made) -> list[tuple[float, float, str]]:
    return [(1.0 + 2 * i, 2.5 + 2 * i, line.format(made.named)) for i, line in enumerate(SUBTITLES)]


def write_json(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


TOGETHER = "both together"
NOT_BOTH = "not both"
BOTH = "both"
NEITHER = "neither"
COUNTS = tuple(str(n) for n in range(MOST_OFTEN + 1))

LETTERS = "ABCDE"

ONE_EVENT = ("colour", "shape", "scene", "named")
SEVERAL_EVENTS = ("order", "both", "count")
KINDS = ONE_EVENT + SEVERAL_EVENTS

TEXTS = {
    "colour": "What colour is the {}?",
    "shape": "Which shape is {}?",
    "scene": "What is behind the {}?",
    "named": "What colour is the shape named in the subtitles?",
    "order": "Which comes first, the {} or the {}?",
    "both": "Which is seen, the {} or the {}?",
    "count": "How many times is the {} seen?",
}
SUBTITLES = ("Look at the", "{}")


@dataclass(frozen=True)
class ToyQuestion:
    """A question without its options.

    `about` are the words that name events, most of them in the text; `evidence` are the events in
    which the answer is seen (for `order` that of the first shape).
    """

    kind: str
    about: tuple[str, ...]
    answer: str
    evidence: tuple[Event, ...]

    @property
    def text(self) -> str:
        """The question as it is asked; the subtitles, not the text, name the shape of a `named` one."""
        return TEXTS[self.kind].format(*self.about)


def ask(story: Storyboard, kind: str) -> Iterator[ToyQuestion]:
    """Every question of `kind` that `story` answers without doubt."""
    once = [event for event in story.events if len(story.of(event.shape)) == 1]
    if kind in ("colour", "named"):
        yield from (ToyQuestion(kind, (e.shape,), e.colour, (e,)) for e in once)
    elif kind == "shape":
        yield from (ToyQuestion(kind, (e.colour,), e.shape, (e,)) for e in once)
    elif kind == "scene":
        yield from (ToyQuestion(kind, (e.shape,), e.background, (e,)) for e in once)
    elif kind == "order":
        yield from _order(story, once)
    elif kind == "both":
        yield from _both(story, once)
    elif kind == "count":
        for shape in SHAPES:
            seen = tuple(story.of(shape))
            yield ToyQuestion(kind, (shape,), str(len(seen)), seen)
    else:
        raise ValueError(f"unknown kind {kind!r}; one of {KINDS}")


def _order(story: Storyboard, once: list[Event]) -> Iterator[ToyQuestion]:
    seen = {event.shape for event in story.events}
    for a in once:
        for b in once:
            if a.shape != b.shape:
                first = tuple(e for e in (a, b) if e.start == min(a.start, b.start))
                answer = TOGETHER if len(first) == 2 else first[0].shape
                yield ToyQuestion("order", (a.shape, b.shape), answer, first)
        for shape in SHAPES:
            if shape not in seen:
                yield ToyQuestion("order", (a.shape, shape), NOT_BOTH, (a,))
                yield ToyQuestion("order", (shape, a.shape), NOT_BOTH, (a,))


def _both(story: Storyboard, once: list[Event]) -> Iterator[ToyQuestion]:
    seen = {event.shape: (event,) for event in once}
    known = [*seen, *(shape for shape in SHAPES if not story.of(shape))]
    for a in known:
        for b in known:
            if a != b:
                answer = BOTH if {a, b} <= set(seen) else next((shape for shape in (a, b) if shape in seen), NEITHER)
                yield ToyQuestion("both", (a, b), answer, seen.get(a, ()) + seen.get(b, ()))


def pick(story: Storyboard, kind: str, rng: np.random.Generator) -> ToyQuestion | None:
    """A question of `kind`, each sort of answer equally likely; None if the story has none."""
    by_answer: dict[str, list[ToyQuestion]] = {}
    for question in ask(story, kind):
        special = kind == "count" or question.answer in (TOGETHER, NOT_BOTH, BOTH, NEITHER)
        by_answer.setdefault(question.answer if special else "", []).append(question)
    if not by_answer:
        return None
    weights = np.array([1.0 if answer else 2.0 for answer in by_answer])
    group = list(by_answer.values())[rng.choice(len(by_answer), p=weights / weights.sum())]
    return group[rng.integers(len(group))]


def kind_of(text: str) -> str:
    """The kind of question that a text (with or without options behind it) asks."""
    for kind in sorted(TEXTS, key=lambda kind: TEXTS[kind].count("{}")):
        parts = TEXTS[kind].split("{}")
        if text.startswith(parts[0]) and all(part in text for part in parts):
            return kind
    raise ValueError(f"not a toy question: {text!r}")


def words_for(question: ToyQuestion) -> tuple[str, ...]:
    """All words that an option of this question may be."""
    if question.kind in ("colour", "named"):
        return tuple(COLOURS)
    if question.kind == "scene":
        return tuple(BACKGROUNDS)
    if question.kind == "count":
        return COUNTS
    if question.kind == "order":
        return (*question.about, TOGETHER, NOT_BOTH)
    if question.kind == "both":
        return (*question.about, BOTH, NEITHER)
    return SHAPES


def options_for(
    question: ToyQuestion, story: Storyboard, rng: np.random.Generator, *, n: int = 4, correct: int | None = None
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
