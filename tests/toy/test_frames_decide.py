"""A toy video in which order, time, place and colour decide, and logits stored to two decimals: faults move them.

Letters alone hide small faults: the toy is too sure of them. The clip is sampled at 4/3 frames per second, so that a
grid spans 1.5 s. After a change that is meant, `python tests/toy/test_frames_decide.py` stores the new logits.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from readers import READERS

from harness.benchmarks.subtitles import ANSWER
from harness.compress.method import build_method
from harness.models.qwen2_5_vl import Qwen25VL
from harness.toy import CHECKPOINT, render
from harness.toy.world import compose
from harness.video import decode
from harness.video.container import reader_class
from harness.video.sampling import SamplingPolicy

STORED = Path(__file__).with_name("pinned_logits.json")
SAME = 0.03  # processors differ by less than 0.001; the least of the faults below moves a logit by 0.18
FRAMES = 96
POLICY = SamplingPolicy(fps=1.6, max_frames=64)
QUESTIONS = (
    f"What colour is the ring?\nOptions:\nA. blue.\nB. pink.\nC. green.\nD. red.\n{ANSWER}",
    f"What is behind the star?\nOptions:\nA. sea.\nB. fog.\nC. grass.\nD. brick.\n{ANSWER}",
    "Which comes first, the star or the disc?\nOptions:\n"
    f"A. star.\nB. disc.\nC. both together.\nD. not both.\n{ANSWER}",
    f"How many times is the ring seen?\nOptions:\nA. 0.\nB. 1.\nC. 2.\nD. 3.\n{ANSWER}",
)
WORDS = ("A", "B", "C", "D", "<|im_end|>")


@pytest.fixture(scope="module")
def toy() -> Qwen25VL:
    return Qwen25VL.load(str(CHECKPOINT), device="cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


def write_clip(folder: Path) -> Path:
    render.encode(render.draw(compose(np.random.default_rng(7), FRAMES)), folder / "clip.mp4")
    return folder / "clip.mp4"


def logits(toy: Qwen25VL, clip: Path, backend: str) -> list[list[list[float]]]:
    """[question][step][word]: of the letter, and of the token behind it."""
    video = decode.open_video(clip, POLICY, backend=backend)
    features = toy.encode(video.windows(16), len(video.plan.indices), video.plan.second_per_grid)
    words = toy.tokenizer.convert_tokens_to_ids(WORDS)
    answers = []
    for question in QUESTIONS:
        steps: list[list[float]] = []
        hook = toy.model.lm_head.register_forward_hook(
            lambda _module, _args, out, steps=steps: steps.append(out.flatten()[words].tolist())
        )
        toy.answer(
            features,
            question,
            build_method("none"),
            max_new_tokens=2,
        )
        hook.remove()
        answers.append(steps)
    return answers


def check(toy: Qwen25VL, clip: Path, backend: str) -> None:
    np.testing.assert_allclose(logits(toy, clip, backend), json.loads(STORED.read_text()), rtol=0, atol=SAME)


def plant(fault: str, backend: str, toy: Qwen25VL, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_class(backend)
    frame, plan, sources = reader.frame, decode.plan_grid, decode.grid_sources
    if fault == "next position off by one":
        forward = toy.model.model.language_model.forward

        def shifted(*args, inputs_embeds: torch.Tensor, position_ids: torch.Tensor, **kwargs):
            late = int(inputs_embeds.shape[1] == 1)
            return forward(*args, inputs_embeds=inputs_embeds, position_ids=position_ids + late, **kwargs)

        monkeypatch.setattr(toy.model.model.language_model, "forward", shifted)
    elif fault == "truncated seconds per grid":

        def truncated(*args):
            found = plan(*args)
            return dataclasses.replace(found, second_per_grid=float(int(found.second_per_grid)))

        monkeypatch.setattr(decode, "plan_grid", truncated)
    elif fault == "frames shifted by one":
        monkeypatch.setattr(decode, "grid_sources", lambda *args: np.minimum(sources(*args) + 1, sources(*args).max()))
    else:
        changed = {
            "swapped channels": lambda picture: picture[:, :, ::-1],
            "upside down": lambda picture: picture[::-1],
            "mirrored": lambda picture: picture[:, ::-1],
        }[fault]
        monkeypatch.setattr(reader, "frame", lambda self, index: changed(frame(self, index)))


@pytest.mark.parametrize("backend", READERS)
def test_logits_are_those_stored(toy, clip, backend):
    check(toy, clip, backend)


@pytest.mark.parametrize("backend", READERS)
@pytest.mark.parametrize(
    "fault",
    [
        "swapped channels",
        "upside down",
        "mirrored",
        "frames shifted by one",
        "truncated seconds per grid",
        "next position off by one",
    ],
)
def test_a_planted_fault_moves_them(toy, clip, backend, fault, monkeypatch):
    plant(fault, backend, toy, monkeypatch)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check(toy, clip, backend)


def test_the_first_letters_are_right():
    """The stored logits are those of a model that sees the video."""
    first = [WORDS[int(np.argmax(steps[0]))] for steps in json.loads(STORED.read_text())]
    assert first[0] == "B" and first[3] == "B"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = logits(Qwen25VL.load(str(CHECKPOINT), device="cpu"), write_clip(Path(folder)), "pyav")
    STORED.write_text(json.dumps(np.round(found, 2).tolist()) + "\n")
