"""The committed checkpoint: small, loads like any other, short prompts, and it answers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_training.accuracy import answers
from toy_training.episodes import BEFORE, BEHIND, Episodes
from toy_training.forward import encode, patches
from toy_training.tokens import build_tokenizer
from toy_training.train import ALL, CUTS, EVEN, HARD, Stage, train
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from harness.toy import CHECKPOINT, render
from harness.toy.questions import KINDS
from harness.toy.world import compose


@pytest.fixture(scope="module")
def model() -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


def test_folder_is_small():
    assert sum(path.stat().st_size for path in CHECKPOINT.rglob("*")) <= 8 * 2**20


def test_template_inserts_the_system_turn_and_the_video():
    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What?"}]}
    text = processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    assert text == BEFORE + "<|video_pad|>" + BEHIND.format("What?", "")


def test_tokenizer_keeps_any_text():
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    for text in ("What colour is the star?\nOptions:\nA. red.", "Grüße, 你好 \t <br>"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()


def test_processor_does_not_scale_frames_up():
    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    frames = render.draw(compose(np.random.default_rng(0), 24))
    batch = processor.video_processor(videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)], return_tensors="pt")
    assert batch["video_grid_thw"].tolist() == [[12, 8, 8]]
    assert torch.allclose(batch["pixel_values_videos"], patches(frames).flatten(0, 1), atol=1e-3)


def test_training_encodes_as_the_vision_tower_does(model):
    grids = patches(render.draw(compose(np.random.default_rng(1), 24)))
    with torch.inference_mode():
        theirs = model.model.visual(grids.flatten(0, 1), grid_thw=torch.tensor([[12, 8, 8]])).pooler_output
        assert torch.allclose(encode(model, grids, 8).flatten(0, 1), theirs, atol=1e-4)


def test_text_of_a_prompt_is_short():
    batch = Episodes(build_tokenizer(), 0, dict.fromkeys(KINDS, 1.0)).batch(4, 12, 8, encoded=0)
    behind = [int((batch.groups == i).sum(1).max()) for i in range(1, 9)]
    head = len(build_tokenizer()(BEFORE).input_ids)
    assert max(behind) + head <= 31


def test_it_answers_what_it_has_never_seen(root):
    rows = list(answers(CHECKPOINT, root, every=3))
    assert len(rows) >= 15
    assert np.mean([row["right"] for row in rows]) > 0.7


def test_training_is_seeded(tmp_path: Path):
    stage = Stage(2, 2, 2, 3, 4, 1e-3, 1e-3)
    first, second = (
        train(tmp_path / name, seed=1, stages=(stage,), log=lambda line: None).state_dict() for name in "ab"
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert set(EVEN) == set(HARD) == set(CUTS) == set(ALL) == set(KINDS)
