"""ReTaKe: DPSelect by loops, key frames as shorter videos, both readings of a pivot."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tiny_models import Sample, decoder, tiny_model

from harness.compress.generate import generate
from harness.compress.method import Method, build_method
from harness.compress.methods.retake import key_frames, key_patches
from harness.compress.prompt import Prompt
from harness.compress.trace import Generation
from harness.errors import UserError

SAMPLE = Sample(grids=12)  # 6 tokens per grid
N, CPU = 6, torch.device("cpu")


def ask(model: Any, context: int | None, *, sample: Sample = SAMPLE, **options: Any) -> Generation:
    method = build_method("retake", **{"chunk_frames": 8, **options}).for_family("qwen2_5_vl")
    prompt = sample.prompt(method.position_rule, context)
    return generate(decoder(model), method, prompt, (sample.features,), max_new_tokens=3, record=True)


def plain(model: Any, prompt: Prompt, features: torch.Tensor) -> Generation:
    return generate(decoder(model), Method(chunk_frames=8), prompt, (features,), max_new_tokens=3, record=True)


def close(a: Generation, b: Generation) -> bool:
    logits = [x.trace.recording.logits for x in (a, b)]
    return a.tokens == b.tokens and torch.allclose(*logits, atol=1e-4)


def by_loops(features: torch.Tensor, *, synced: bool) -> tuple[list[list[float]], list[list[bool]]]:
    """Change and peaks of every grid at every patch position, with nothing but scalars."""
    grids = features.double().view(-1, N, features.shape[-1])
    change = [[1.0] * N]
    for before, after in zip(grids, grids[1:], strict=False):
        change.append([1 - float(a @ b / a.norm() / b.norm()) for a, b in zip(before, after, strict=True)])
    if synced:
        change = [[sum(row) / N] * N for row in change]
    near = [range(max(0, g - 1), min(len(change), g + 2)) for g in range(len(change))]
    peaks = [[max(near[g], key=lambda t: (change[t][p], -t)) == g for p in range(N)] for g in range(len(change))]
    return change, peaks


@pytest.mark.parametrize("synced", [False, True])
def test_key_patches_and_frames_are_those_of_the_definition(synced: bool) -> None:
    change, peaks = by_loops(SAMPLE.features, synced=synced)
    found = key_patches(SAMPLE.features, N, CPU, synced=synced)
    assert found.view(-1, N).tolist() == peaks
    for ratio, count in ((1.0, 12), (0.5, 6), (0.3, 4), (0.21, 3), (0.01, 1)):
        frames = key_frames(SAMPLE.features, N, CPU, ratio=ratio, synced=synced)
        assert frames.shape == (count, N)
        for p in range(N):
            ranked = sorted(range(12), key=lambda g: (not peaks[g][p], -change[g][p]))
            assert frames[:, p].tolist() == sorted(ranked[:count])
    assert synced == all(
        len(set(row)) == 1 for row in key_frames(SAMPLE.features, N, CPU, ratio=0.5, synced=synced).tolist()
    )


@pytest.mark.parametrize("marked", [False, True])
def test_all_frames_are_no_selection(model, marked: bool) -> None:
    quirks = {"key_patches": marked}
    whole, none = ask(model, 40, frame_ratio=1.0, quirks=quirks), ask(model, 40, quirks=quirks)
    assert whole.tokens == none.tokens and whole.trace.kept_digest == none.trace.kept_digest
    assert torch.equal(whole.trace.recording.logits, none.trace.recording.logits)


@pytest.mark.parametrize("synced", [False, True])
def test_key_frames_are_a_shorter_video(model, synced: bool) -> None:
    """With the first ids: a video of the chosen patches, and the question as far behind it as behind the whole one."""
    got = ask(model, None, frame_ratio=0.5, quirks={"key_patches_synced": synced})
    frames = key_frames(SAMPLE.features, N, CPU, ratio=0.5, synced=synced)
    short = Sample(grids=6)
    chosen = SAMPLE.features.view(12, N, -1)[frames, torch.arange(N)].flatten(0, 1)
    prompt = short.prompt()
    ids, text = prompt.positions.clone(), slice(prompt.video_stop, None)
    ids[:, text] = SAMPLE.positions()[:, -7:]
    tokens = torch.cat((SAMPLE.input_ids[: prompt.video_stop], SAMPLE.input_ids[-7:]))
    alone = plain(model, dataclasses.replace(prompt, input_ids=tokens, positions=ids), chosen)
    assert close(got, alone)
    assert got.trace.cache_length == [12 + 6 * N] * 3 == [got.trace.n_prompt] * 3
    assert (got.trace.n_encoded, got.trace.n_video) == (12 * N, 6 * N)


def test_key_frames_may_keep_their_own_ids(model) -> None:
    for synced in (False, True):
        quirks = {"key_frames_take_first_ids": False, "key_patches_synced": synced}
        got = ask(model, None, frame_ratio=0.25, quirks=quirks)
        frames = key_frames(SAMPLE.features, N, CPU, ratio=0.25, synced=synced)
        kept = (frames * N + torch.arange(N)).flatten().sort().values
        assert close(got, plain(model, SAMPLE.prompt().keep_video(kept), SAMPLE.features[kept]))
        ids = got.trace.recording.cache.positions(0)[:, 5 : 5 + len(kept)]
        assert torch.equal(ids, SAMPLE.positions()[:, 5:-7][:, kept])


def test_the_ratio_may_forget_that_frames_were_dropped(model) -> None:
    context = 48  # 84 tokens of prompt, 48 once frames are dropped
    as_published = ask(model, context, frame_ratio=0.5).trace
    assert as_published.chunk_budget == [int(48 / 84 * n) for n in as_published.chunk_lengths]
    assert as_published.cache_length == [12 + sum(as_published.chunk_budget)] * 3
    mended = ask(model, context, frame_ratio=0.5, quirks={"ratio_before_frames_are_dropped": False}).trace
    assert mended.cache_length == [context] * 3
    assert as_published.prefilled == mended.prefilled == 48


def test_a_pivot_is_average_or_first(model) -> None:
    """Columns of a softmax over c tokens sum to 1 on average, so a score of 1 is the mean, not the top."""
    at_mean = ask(model, 48, quirks={"key_patches": True}).trace
    without = ask(model, 48).trace
    first = ask(model, 48, quirks={"key_patches": True, "key_patches_at_mean": False}).trace
    marked = key_patches(SAMPLE.features, N, CPU, synced=False)
    start = 0
    for chunk, length in enumerate(without.chunk_lengths):
        pivots = marked[start : start + length].nonzero().flatten().tolist()
        for layer, scores in enumerate(without.recording.scores[chunk] or []):
            assert float(scores.mean()) == pytest.approx(1, abs=1e-5)
            assert (at_mean.recording.scores[chunk][layer][pivots] == 1).all()
            kept = set(first.recording.kept_indices[chunk][layer].tolist())
            assert set(pivots) <= kept if len(pivots) <= len(kept) else kept <= set(pivots)
        start += length
    assert len({at_mean.kept_digest, without.kept_digest, first.kept_digest}) == 3


@pytest.mark.parametrize("marked", [False, True])
def test_key_patches_follow_their_frames(model, marked: bool) -> None:
    """Pivots of the frames that stay, decided on the whole video."""
    quirks = {"key_patches": True, "key_patches_at_mean": False, "key_frames_take_first_ids": marked}
    trace = ask(model, 40, frame_ratio=0.75, quirks=quirks).trace
    frames = key_frames(SAMPLE.features, N, CPU, ratio=0.75, synced=False)
    places = (frames * N + torch.arange(N)).flatten()
    pivots = key_patches(SAMPLE.features, N, CPU, synced=False)[places if marked else places.sort().values]
    start = 0
    for chunk, length in enumerate(trace.chunk_lengths):
        of_chunk = pivots[start : start + length]
        for scores in trace.recording.scores[chunk]:
            assert torch.equal(scores.isinf(), of_chunk)
        start += length
    assert 0 < int(pivots.sum()) < len(pivots) == start == trace.n_video == 9 * N


def test_reforge_and_key_frames_go_together() -> None:
    model = tiny_model(seed=3)
    for quirks in ({}, {"key_frames_take_first_ids": False}):
        trace = ask(model, 40, frame_ratio=0.5, reforge=True, quirks=quirks).trace
        time = trace.recording.cache.positions(0)[0]
        assert (time[1:] >= time[:-1]).all() and time[-1] < SAMPLE.positions()[0, -1]


@pytest.mark.parametrize("ratio", [0.0, 1.5, -1])
def test_a_ratio_is_a_share(ratio: float) -> None:
    with pytest.raises(UserError, match=f"method.frame_ratio={ratio}"):
        build_method("retake", frame_ratio=ratio)
