"""Write the four toy benchmarks: videos, annotations and a manifest.

The videos are seeded apart from training, so that no model trained here has seen them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from harness.benchmarks.subtitles import choice_prompt
from harness.store import write_atomic
from harness.toy import MANIFEST, questions, read_build, render
from harness.toy.layouts import LAYOUTS
from harness.toy.questions import KINDS, LETTERS, Layout, Made, ToyItem, Wanted, options_for, pick
from harness.toy.render import Frames, draw
from harness.toy.world import FPS, Storyboard, compose

LOCK = ".lock"
HELD_OUT = 0x70F
GENERATOR = 1
"""Version of what is written. Raise it when other videos or other annotations are; older builds are then replaced."""


def build(root: Path, *, seed: int = 0, scale: float = 1.0) -> None:
    """Write all four benchmarks under `root`, about 105 questions on 36 videos each at scale 1.

    Idempotent: a finished build of the same seed, scale and generator is left as it is, any other build of ours is
    replaced. The manifest is written last.

    Raises:
        FileExistsError: the folder holds something that is not ours.
    """
    root = Path(root)
    wanted = {"seed": seed, "scale": scale, "generator": GENERATOR}
    found = read_build(root)
    if found is None and root.exists() and {path.name for path in root.iterdir()} - {LOCK}:
        raise FileExistsError(f"{root} is not empty and was not written by the toy; choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / LOCK):
        manifest, found = root / MANIFEST, read_build(root)
        if found and found["complete"] and found["build"] == wanted:
            return
        for layout in LAYOUTS:
            shutil.rmtree(root / layout.name, ignore_errors=True)
        _replace(manifest, {"complete": False, "build": wanted})
        plans = [(layout, layout.plan(scale)) for layout in LAYOUTS]
        counts = {}
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("toy videos", total=sum(len(plan) for _, plan in plans))
            for number, (layout, plan) in enumerate(plans):
                videos = []
                for made in _make(root / layout.name, layout, plan, np.random.default_rng([HELD_OUT, seed, number])):
                    videos.append(made)
                    progress.advance(bar)
                layout.annotate(root / layout.name, videos)
                counts[layout.name] = {"videos": len(videos), "questions": sum(len(v.asked) for v in videos)}
        _replace(manifest, {"complete": True, "build": wanted, "counts": counts, "files": _digests(root)})


def _make(folder: Path, layout: Layout, plan: list[Wanted], rng: np.random.Generator) -> Iterator[Made]:
    letters: Counter[tuple[int, int]] = Counter()
    number = 0
    for wanted in plan:
        story, named, chosen = _story(wanted, rng)
        asked = []
        for question in chosen:
            n = min(layout.options(number), len(questions.words_for(question)))
            correct = min(rng.permutation(n).tolist(), key=lambda place: letters[n, place])
            letters[n, correct] += 1
            options, correct = options_for(question, story, rng, n=n, correct=correct)
            asked.append(ToyItem(question, options, correct))
            number += 1
        target = folder / wanted.path
        target.parent.mkdir(parents=True, exist_ok=True)
        render.encode(render.draw(story), target)
        yield Made(wanted, story, asked, named)


def _story(wanted: Wanted, rng: np.random.Generator) -> tuple[Storyboard, str, list[questions.ToyQuestion]]:
    """A storyboard that answers every wanted kind, the shape its subtitles name, and the questions."""
    while True:
        story = compose(rng, wanted.seconds * FPS)
        once = [e.shape for e in story.events if len(story.of(e.shape)) == 1]
        if not once:
            continue
        named = str(rng.choice(once))
        chosen: list[questions.ToyQuestion] = []
        for kind in wanted.kinds:
            for _ in range(8):
                question = pick(story, kind, rng)
                if question is None or (kind == "named" and question.about != (named,)):
                    continue
                if question not in chosen:
                    chosen.append(question)
                    break
        if len(chosen) == len(wanted.kinds):
            return story, named, chosen


def _replace(path: Path, data: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(data, indent=1) + "\n")


def _digests(root: Path) -> dict[str, str]:
    files = sorted(path for layout in LAYOUTS for path in (root / layout.name).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


SEED = 60_601  # benchmarks are drawn from small seeds, training from one of its own


def samples(count: int, frames: int) -> Iterator[tuple[Frames, str]]:
    """So many videos uint8 [frames, height, width, 3], each with the prompt of one question; kinds take turns."""
    for number in range(count):
        rng = np.random.default_rng((SEED, number))
        question = None
        while question is None:  # not every story answers every kind
            story = compose(rng, frames)
            question = pick(story, KINDS[number % len(KINDS)], rng)
        options, _ = options_for(question, story, rng)
        yield draw(story), choice_prompt(question.text, dict(zip(LETTERS, options, strict=False)))
