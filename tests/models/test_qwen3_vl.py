"""The Qwen3-VL adapter on a tiny random checkpoint, against transformers' own processing, positions and decoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stock_parity import (
    QUESTION,
    StockParity,
    check_fills_the_context,
    processed,
    sharpened,
)
from tiny_checkpoints import save_tiny

from harness.compress.method import build_method
from harness.errors import UserError
from harness.models.families import open_model
from harness.models.features import VideoFeatures
from harness.models.qwen3_vl import Qwen3VL

COUNT = 12


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Qwen3VL:
    path = save_tiny("qwen3_vl", tmp_path_factory.mktemp("model"), layers=4)
    opened = open_model(str(path), device="cpu")
    assert isinstance(opened, Qwen3VL)
    sharpened(opened)
    return opened


def frames(count: int = COUNT, height: int = 56, width: int = 84) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def video(adapter: Qwen3VL) -> VideoFeatures:
    return adapter.encode(frames(), second_per_grid=1.0)


@pytest.fixture(scope="module")
def stock(adapter: Qwen3VL) -> Any:
    """What transformers' processor makes of prompt and frames.

    Of the template's marks around the video, which its first releases replace and later ones keep, it sees none.
    """
    from transformers.video_utils import VideoMetadata

    marks = ("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
    metadata = VideoMetadata(total_num_frames=COUNT, fps=2.0, frames_indices=list(range(COUNT)))
    return processed(adapter, frames(), replace=marks, video_metadata=[metadata], do_resize=False)


class TestStockParity(StockParity):
    pass


def test_every_grid_stands_behind_its_time(adapter: Qwen3VL, video: VideoFeatures) -> None:
    prompt = adapter.prompt(QUESTION, video)
    assert prompt.grid_lengths == (6,) * 6 and prompt.n_video == 36
    assert "<0.2 seconds>" in adapter.tokenizer.decode(prompt.input_ids)


@pytest.mark.parametrize("shape", [(56, 84), (84, 56), (56, 140)])
def test_positions_are_those_of_transformers(adapter: Qwen3VL, shape: tuple[int, int]) -> None:
    shown = adapter.encode(frames(8, *shape), second_per_grid=0.5)
    ids = adapter.prompt(QUESTION, shown).input_ids
    types = torch.where(ids == adapter.model.config.video_token_id, 2, 0)[None]
    try:
        theirs, _ = adapter.model.model.get_rope_index(ids[None], types, video_grid_thw=torch.tensor([shown.grid]))
    except TypeError:
        theirs, _ = adapter.model.model.get_rope_index(ids[None], video_grid_thw=torch.tensor([shown.grid]))
    for rule in ("float", "truncated", "v5"):
        assert torch.equal(adapter.prompt(QUESTION, shown, rule=rule).positions, theirs[:, 0])


@pytest.mark.parametrize("window", [2, 4, 128])
def test_features_do_not_depend_on_windows(adapter: Qwen3VL, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    whole = adapter.encode(frames(9), second_per_grid=1.0)
    assert whole.grid == (5, 4, 6) and len(whole.deepstack) == 2
    monkeypatch.setattr(Qwen3VL, "window", window)
    found = adapter.encode(frames(9), second_per_grid=1.0)
    for a, b in zip((whole.features, *whole.deepstack), (found.features, *found.deepstack), strict=True):
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


def test_frames_that_were_chosen_keep_their_times(adapter: Qwen3VL) -> None:
    shown = adapter.encode(frames(12), second_per_grid=1.0, keep_frames=True)
    method = build_method("uniform_frames", chunk_frames=4)
    context = adapter.prompt(QUESTION, shown).n_text + 20
    chosen, _ = adapter._chosen(shown, QUESTION, method, context)
    times = chosen.grid_seconds(2)
    assert 0 < len(times) < 6 and times == tuple(sorted(times)) and 0 <= times[0] and times[-1] <= 5.5
    assert shown.seconds_of(torch.tensor([0, 1, 6, 7, 10]), 2) == (0.25, 3.25, 5.0)
    text = adapter.tokenizer.decode(adapter.prompt(QUESTION, chosen).input_ids)
    assert all(f"<{time:.1f} seconds>" in text for time in times)


def test_adaretake_fills_the_context_exactly(adapter: Qwen3VL, video: VideoFeatures) -> None:
    check_fills_the_context(adapter, video, "adaretake")


def test_holitom_drops_behind_the_layers_that_features_are_added_to(adapter: Qwen3VL) -> None:
    shown = adapter.encode(frames(), second_per_grid=1.0, keep_attention=True)
    context = adapter.prompt(QUESTION, shown).n_text + 10
    method = build_method("holitom", layer=3)
    trace = adapter.answer(shown, QUESTION, method, context, max_new_tokens=1).trace
    assert sum(trace.cache_length) == 4 * context and len(set(trace.cache_length)) == 2
    with pytest.raises(UserError, match="cannot drop tokens before layer 2: this model allows 3 to 3"):
        adapter.answer(shown, QUESTION, build_method("holitom"), context, max_new_tokens=1)


@pytest.mark.parametrize("count", range(2, 18))
def test_times_in_the_prompt_are_those_of_the_processor_for_every_count_of_frames(adapter: Qwen3VL, count: int) -> None:
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

    shown = adapter.encode(frames(count), second_per_grid=0.8)
    theirs = Qwen3VLProcessor._calculate_timestamps(None, list(range(count)), 2.5, 2)
    assert shown.grid_seconds(2) == pytest.approx(theirs)
    text = adapter.tokenizer.decode(adapter.prompt(QUESTION, shown).input_ids)
    assert all(f"<{seconds:.1f} seconds>" in text for seconds in theirs)


def test_a_single_frame_is_shown_twice(adapter: Qwen3VL) -> None:
    assert adapter.encode(frames(1), second_per_grid=0.8).grid_seconds(2) == (0.0,)
