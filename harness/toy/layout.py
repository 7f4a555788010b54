"""What a layout is: the videos that a benchmark wants, and how its publishers write down the questions about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.toy.questions import SUBTITLES, ToyQuestion
from harness.toy.world import Storyboard


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
