"""Toy videos and questions for fitting: drawn from seeds of their own, so that no benchmark holds any of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.benchmarks.prompts import choice_prompt
from harness.toy.questions import KINDS, LETTERS, options_for, pick
from harness.toy.render import Frames, draw
from harness.toy.world import compose

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
