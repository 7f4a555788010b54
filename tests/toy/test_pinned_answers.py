"""The toy's answers are pinned to the token, so that a library that changes them is noticed.

Run it under another release of transformers: TRANSFORMERS=5.5.4 bash scripts/test.sh tests/toy
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.benchmarks.subtitles import ANSWER
from harness.compress.method import build_method
from harness.models.qwen2_5_vl import Qwen25VL
from harness.toy import CHECKPOINT, render
from harness.toy.world import compose

PINNED = json.loads(Path(__file__).with_name("pinned_answers.json").read_text())
FRAMES = 96
METHODS = {
    "uncompressed": ({"name": "none"}, None),
    "paper": ({}, 130),
    "paper, no allocation": ({"temporal": False, "layers": False}, 130),
    "release_2025": ({"semantics": "release_2025"}, 130),
    "release_2025, reforge": ({"semantics": "release_2025", "reforge": True}, 130),
    "release_2026": ({"semantics": "release_2026"}, 130),
    "retake": ({"name": "retake", "reforge": True}, 130),
}
QUESTIONS = (
    f"What colour is the ring?\nOptions:\nA. blue.\nB. pink.\nC. green.\nD. red.\n{ANSWER}",
    f"What is behind the star?\nOptions:\nA. sea.\nB. fog.\nC. grass.\nD. brick.\n{ANSWER}",
    f"Which shape is white?\nOptions:\nA. disc.\nB. cross.\nC. star.\nD. bars.\n{ANSWER}",
)


@pytest.fixture(scope="module")
def toy() -> Qwen25VL:
    return Qwen25VL.load(str(CHECKPOINT), device="cpu")


@pytest.fixture(scope="module")
def features(toy):
    frames = render.draw(compose(np.random.default_rng(7), FRAMES))
    return toy.encode(iter(np.split(frames, 4)), FRAMES, 1.0)


def answer(toy: Qwen25VL, features, method: str) -> list[dict]:
    """What the toy says to each question, and what was kept to say it."""
    options, context = METHODS[method]
    found = []
    for question in QUESTIONS:
        asked = build_method(**{"name": "adaretake", **options, "chunk_frames": 16})
        generation = toy.answer(features, question, asked, context, max_new_tokens=4)
        trace = generation.trace
        found.append(
            {
                "tokens": generation.tokens,
                "n_prompt": trace.n_prompt,
                "chunk_budget": trace.chunk_budget,
                "cache_length": trace.cache_length,
            }
        )
    return found


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_those_pinned(toy, features, method):
    assert answer(toy, features, method) == PINNED[method], (
        "the toy answers differently: put it right, or where that is on purpose raise the version of what changed "
        "(harness.compress.CORE_VERSION, the method's version, the adapter's version) and pin the new answers"
    )


def test_pinned_answers_tell_the_methods_apart():
    assert len({json.dumps(PINNED[method]) for method in METHODS}) == len(METHODS)
    assert PINNED["uncompressed"][0]["cache_length"] == [PINNED["uncompressed"][0]["n_prompt"]] * 4
