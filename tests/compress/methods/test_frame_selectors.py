"""AKS and BOLT: which frames, by whose scores, and how they come to the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_judges import save_blip, save_clip

from harness.compress.method import build_method
from harness.compress.methods.aks import adaptive
from harness.compress.methods.bolt import inverse_transform
from harness.compress.select import ImageTextModel, filled_up, question_alone, scaled
from harness.errors import QuestionError, UserError
from harness.models.adapter import Adapter
from harness.models.families import open_model
from harness.models.features import VideoFeatures
from harness.toy import CHECKPOINT, render
from harness.toy.world import compose

FRAMES = 32
QUESTION = "Look well.\nWhat colour is the ring?\nOptions:\nA. blue.\nB. pink."


@pytest.fixture(scope="module")
def toy() -> Adapter:
    return open_model(str(CHECKPOINT), device="cpu")


@pytest.fixture(scope="module")
def video(toy: Adapter) -> VideoFeatures:
    frames = render.draw(compose(np.random.default_rng(5), FRAMES))
    return toy.encode(frames, second_per_grid=1.0, keep_frames=True)


@pytest.fixture(scope="module", params=["clip", "blip"])
def judge(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return {"clip": save_clip, "blip": save_blip}[request.param](tmp_path_factory.mktemp(request.param))


def context_of(toy: Adapter, video: VideoFeatures, grids: int) -> int:
    return toy.prompt(QUESTION, video).n_text + grids * video.tokens_per_grid


def ask(toy: Adapter, video: VideoFeatures, name: str, context: int | None, **options: Any) -> Any:
    fresh = dataclasses.replace(video, memo={})
    return toy.answer(fresh, QUESTION, build_method(name, **options), context, max_new_tokens=1, record=True)


def random_scores(count: int) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)


@pytest.mark.parametrize("name", ["aks", "bolt"])
@pytest.mark.parametrize("count", [1, 2, 7, 31, 32, 40, 99])
def test_every_count_is_met_by_different_frames(name: str, count: int) -> None:
    for scores in (random_scores(100), torch.ones(100), torch.eye(100, dtype=torch.float64)[3]):
        chosen = build_method(name).choose(scores, count)
        assert len(chosen) == len(set(chosen.tolist())) == count and (chosen[1:] > chosen[:-1]).all()


def test_aks_shows_something_of_every_part() -> None:
    chosen = build_method("aks").choose(random_scores(64), 8)
    assert sorted(i // 8 for i in chosen.tolist()) == list(range(8))
    peaked = torch.zeros(64, dtype=torch.float64)
    peaked[10:18] = 1
    assert build_method("aks").choose(peaked, 8).tolist() == list(range(10, 18))  # stands out: not halved


def test_the_code_shows_none_of_few(toy, video) -> None:
    assert not len(adaptive(scaled(random_scores(600)), 8, 0.8, -100, 5))
    with pytest.raises(QuestionError, match="shows none"):
        ask(toy, video, "aks", None, frames=6, quirks={"shares_rounded_down": True})


def test_bolt_follows_the_scores() -> None:
    scores = torch.zeros(100, dtype=torch.float64)
    scores[40:60] = 1
    assert all(40 <= i < 60 for i in build_method("bolt").choose(scores, 10).tolist())
    repeated = inverse_transform(scores, 40, 3.0)
    assert len(repeated) == 40 and len(set(repeated.tolist())) <= 20
    assert build_method("bolt", quirks={"repeats": True}).choose(scores, 40).tolist() == repeated.tolist()
    assert set(repeated.tolist()) <= set(filled_up(repeated, scores, 40).tolist())


@pytest.mark.parametrize("name", ["aks", "bolt"])
def test_by_the_models_own_features_whole_grids_are_chosen(toy, video, name: str) -> None:
    trace = ask(toy, video, name, context_of(toy, video, 5) + 3).trace
    assert trace.n_video == 5 * video.tokens_per_grid and trace.n_encoded == len(video.features)
    assert trace.cache_length == [context_of(toy, video, 5)] * 4  # less than one grid stays empty
    assert ask(toy, video, name, None).trace.n_video == len(video.features)
    assert ask(toy, video, name, None, frames=8).trace.n_video == 4 * video.tokens_per_grid
    with pytest.raises(QuestionError, match=f"context of at least {context_of(toy, video, 1)}"):
        ask(toy, video, name, context_of(toy, video, 1) - 1)


@pytest.mark.parametrize("name", ["aks", "bolt"])
def test_by_a_judge_single_frames_are_chosen_and_encoded_by_themselves(toy, video, judge: Path, name: str) -> None:
    method = build_method(name, relevance=str(judge))
    assert method.needs_frames and method.sees_question and not method.reusable
    answer = ask(toy, video, name, context_of(toy, video, 5), relevance=str(judge))
    assert answer.trace.n_encoded == answer.trace.n_video == 5 * video.tokens_per_grid
    scores = ImageTextModel(str(judge), toy.device).scores(video.frames, "What colour is the ring?", {})
    assert scores.std() > 1e-6
    chosen = method.choose(scores, 10)
    alone = toy.encode(video.frames[chosen.numpy()], second_per_grid=FRAMES / 10)
    expected = ask(toy, alone, "none", None)
    assert torch.equal(answer.trace.recording.logits[0], expected.trace.recording.logits[0])


def test_a_judge_sees_every_video_once_and_is_loaded_once(toy, video, tmp_path: Path, monkeypatch) -> None:
    path, seen = str(save_clip(tmp_path / "clip")), []
    features = ImageTextModel._image_features

    def counted(self: ImageTextModel, frames: np.ndarray) -> torch.Tensor:
        seen.append(len(frames))
        return features(self, frames)

    monkeypatch.setattr(ImageTextModel, "_image_features", counted)
    shared = dataclasses.replace(video, memo={})
    for question in (QUESTION, "Is there a ring?"):
        for name in ("aks", "bolt"):
            method = build_method(name, relevance=path, frames=6)
            toy.answer(shared, question, method, None, max_new_tokens=1)
    assert sum(seen) == FRAMES and list(toy.judges).count(path) == 1


def test_scores_of_two_towers_and_of_blip_are_what_transformers_says(judge: Path, video) -> None:
    from PIL import Image
    from transformers import AutoProcessor, BlipForImageTextRetrieval, CLIPModel

    ours = ImageTextModel(str(judge), torch.device("cpu"))
    scores = ours.scores(video.frames, "a ring?", {})
    processor = AutoProcessor.from_pretrained(str(judge))
    picture = processor(images=Image.fromarray(video.frames[3]), text="a ring?", return_tensors="pt")
    with torch.inference_mode():
        if ours.matches:
            model = BlipForImageTextRetrieval.from_pretrained(str(judge)).eval()
            expected = model(**picture).itm_score.softmax(-1)[0, 1]
        else:
            model = CLIPModel.from_pretrained(str(judge)).eval()
            expected = model(**picture).logits_per_image[0, 0] / model.logit_scale.exp()
    assert scores[3].item() == pytest.approx(expected.item(), abs=1e-5)


def test_what_is_no_judge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no checkpoint of images and texts .* openai/clip-vit-large-patch14"):
        ImageTextModel(str(tmp_path), torch.device("cpu"))
    with pytest.raises(UserError, match="use a CLIP or BLIP one"):
        ImageTextModel(str(CHECKPOINT), torch.device("cpu"))


def test_a_judge_is_asked_the_question_alone() -> None:
    assert question_alone(QUESTION) == "What colour is the ring?"
    assert question_alone("Subtitles.\nQuestion: who?\n(A) he\n(B) she\nAnswer:") == "who?"
    assert question_alone("What is seen?") == "What is seen?"
