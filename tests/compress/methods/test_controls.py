"""Controls: fewer frames, stride, streaming, random. What they keep is known beforehand, whatever is in the video."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dense import dense, even_budgets, evicted
from tiny_models import Sample

from harness.compress.method import build_method
from harness.compress.methods.streaming import Streaming
from harness.compress.methods.stride import evenly
from harness.errors import QuestionError
from harness.models.adapter import Adapter
from harness.models.families import open_model
from harness.toy import CHECKPOINT, render
from harness.toy.world import compose

CONTEXT = 40
RECORDED = json.loads((Path(__file__).parents[2] / "golden" / "uniform_and_recent.json").read_text())


def logits(answer) -> torch.Tensor:
    return answer.trace.recording.logits[0]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"{case['kept']} of {case['video']}")
def test_stride_and_window_are_those_of_a_release(case: dict) -> None:
    """What the controls of InfiniPot-V's release keep of a cache whose first tokens are a system prompt's."""
    text = list(range(case["system"]))
    assert text + (case["system"] + evenly(case["kept"], case["video"])).tolist() == case["uniform"]
    prompt = SimpleNamespace(context=case["system"] + case["kept"], n_text=case["system"], video_start=case["system"])
    window = Streaming(name="streaming", sinks=0).window(SimpleNamespace(prompt=prompt), case["video"])
    assert text + (case["system"] + window).tolist() == case["recent"]


def test_stride_is_what_a_dense_pass_behind_masks_gives(model, run) -> None:
    sample = Sample()
    budgets = even_budgets(sample, CONTEXT, 2)

    def rule(chunk):
        count, length = budgets[chunk.number], len(chunk.video)
        return [torch.tensor([i * length // count for i in range(count)])] * 3

    expected, last = evicted(model, sample, 2, rule)
    got = run(sample, CONTEXT, name="stride")
    assert [of_chunk[0].tolist() for of_chunk in got.trace.recording.kept_indices] == [k[0].tolist() for k in expected]
    assert torch.allclose(logits(got), last, atol=1e-4)


@pytest.mark.parametrize(("sinks", "of_video"), [(0, 0), (4, 0), (9, 4), (50, 28)])
def test_streaming_is_what_a_dense_pass_behind_masks_gives(model, run, sinks: int, of_video: int) -> None:
    """Every chunk sees the text in front, the sinks, and the last tokens before it that fit; so does the question."""
    sample, budget = Sample(), CONTEXT - 12
    start, stop, n = sample.video.start, sample.video.stop, sample.n_prompt
    visible = torch.ones(n, n, dtype=torch.bool).tril()
    for first in [*range(start, stop, 12), stop]:
        if first - start > budget:
            oldest = first - (budget - of_video)
            visible[first : min(first + 12, stop) if first < stop else n, start + of_video : oldest] = False
    embeds = model.get_input_embeddings()(sample.input_ids).detach().clone()
    embeds[sample.video] = sample.features
    layers, expected = dense(model, embeds, sample.positions(), visible.repeat(3, 4, 1, 1))
    got = run(sample, CONTEXT, name="streaming", sinks=sinks, new=1)
    assert torch.allclose(logits(got), expected[-1], atol=1e-4)
    cache = got.trace.recording.cache
    kept = [*range(start + of_video), *range(stop - (budget - of_video), n)]
    for layer, found in enumerate(layers):
        assert torch.allclose(cache.keys(layer), found.key[:, kept], atol=1e-4)
    assert got.trace.cache_length == [CONTEXT] * 3 and got.trace.cache_peak == CONTEXT - 7 + 12
    assert sum(got.trace.chunk_budget) == budget


def test_random_may_keep_one_set_in_all_layers(run) -> None:
    even = {"name": "random", "temporal": False, "layers": False}
    one, own = (run(Sample(), CONTEXT, **even, per_layer=p).trace.recording.kept_indices for p in (False, True))
    assert all(torch.equal(of_chunk[0], of_layer) for of_chunk in one for of_layer in of_chunk)
    assert not all(torch.equal(of_chunk[0], of_layer) for of_chunk in own for of_layer in of_chunk)
    other = run(Sample(), CONTEXT, **even, per_layer=False, seed=1).trace.recording.kept_indices
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(one, other, strict=True))
    assert build_method("random").per_layer  # as it was before there was a choice


@pytest.fixture(scope="module")
def toy() -> Adapter:
    return open_model(str(CHECKPOINT), device="cpu")


def test_fewer_frames_are_a_shorter_video(toy) -> None:
    """Two derivations: the control, and a video that never had the other frames."""
    frames, question = render.draw(compose(np.random.default_rng(5), 64)), "What colour is the ring?"
    video = toy.encode(frames, second_per_grid=1.0, keep_frames=True)
    n, text = video.tokens_per_grid, toy.prompt(question, video).n_text
    shown = frames[[int((i + 0.5) * 64 / 10) for i in range(10)]]  # five grids of two frames
    alone = toy.encode(shown, second_per_grid=6.4)
    for spare in (0, n - 1):
        got = toy.answer(
            video, question, build_method("uniform_frames"), text + 5 * n + spare, max_new_tokens=2, record=True
        )
        assert (got.trace.n_encoded, got.trace.n_video) == (5 * n, 5 * n)
        assert got.trace.cache_length == [text + 5 * n] * 4
        same = toy.answer(alone, question, build_method("none"), None, max_new_tokens=2, record=True)
        assert torch.equal(logits(got), logits(same))
    with pytest.raises(QuestionError, match=f"at least {text + n}"):
        toy.answer(video, question, build_method("uniform_frames"), text + n - 1)
