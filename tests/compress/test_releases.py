"""The releases' quirks: each can be switched off alone, and does what its name says."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import Sample, decoder, tiny_model

from harness.compress.methods.adaretake import release_2025, release_2026
from harness.compress.methods.adaretake.release import LayerShares
from harness.compress.methods.adaretake.release_2026 import neighbour_ratios

CPU = torch.device("cpu")
QUIRKS = [("release_2025", quirk) for quirk in release_2025.QUIRKS]
QUIRKS += [("release_2026", quirk) for quirk in release_2026.QUIRKS]


def changing(grids: int = 11, **shape: int) -> Sample:
    """A video whose first half barely changes while its second half does."""
    sample = Sample(grids=grids, **shape)
    features = sample.features.view(grids, sample.tokens_per_grid, -1)
    features[: grids // 2] = features[0] + 0.3 * features[: grids // 2]
    sample.features = features.reshape(sample.n_video, -1)
    return sample


@pytest.mark.parametrize(("semantics", "quirk"), QUIRKS)
def test_every_quirk_changes_something_when_switched_off(run, semantics: str, quirk: str) -> None:
    sample, chunk_frames, reforge = changing(), 4, "reforge" in quirk or quirk == "content_scores"
    context, layers, model = 40, True, None
    if quirk == "scores_in_model_precision":
        model = tiny_model().to(torch.bfloat16)
    if quirk == "halved_short_videos":
        chunk_frames = 16
    if quirk == "guide_by_temporal_row":
        sample = changing(h=2, w=20)  # wider than a chunk is long
        context = 60
    if quirk == "short_chunk_weighs_full":
        context = 45
    if quirk in ("projection_by_shift", "whole_chunk_keeps_guide"):
        sample, layers = changing(grids=12), False
        context = sample.n_prompt - 12  # large enough for ratios that reach 1
    options = {"semantics": semantics, "chunk_frames": chunk_frames, "reforge": reforge, "layers": layers, "on": model}
    on = run(sample, context, **options).trace
    off = run(sample, context, **options, quirks={quirk: False}).trace
    logits = on.recording.logits[0], off.recording.logits[0]
    ratios = max(abs(a - b) for a, b in zip(on.chunk_ratio, off.chunk_ratio, strict=False))
    if quirk == "scores_in_model_precision":
        assert not torch.equal(on.recording.scores[1][0].float(), off.recording.scores[1][0].float())
        return
    assert on.kept != off.kept or ratios > 0.005 or not torch.allclose(*logits, atol=1e-5)


def test_the_first_chunk_is_evicted_by_the_text_in_front(run) -> None:
    sample = Sample()
    trace = run(sample, 40, semantics="release_2025", temporal=False, layers=False).trace
    ratio = 40 / sample.n_prompt
    assert trace.kept[0] == [12 - 5 + int(5 * ratio)] * 3
    assert trace.kept[1] == [int(12 * ratio)] * 3
    assert trace.recording.kept_indices[0][0][:7].tolist() == list(range(7))
    mended = {"stale_first_chunk": False}
    trace = run(sample, 40, semantics="release_2025", temporal=False, layers=False, quirks=mended).trace
    assert trace.kept[0] == [int(12 * ratio)] * 3


def test_text_longer_than_the_first_chunk_loses_some_of_itself(run) -> None:
    sample = Sample(pre=20)
    trace = run(sample, 40, semantics="release_2025", temporal=False, layers=False, chunk_frames=2).trace
    assert trace.cache_after_chunk[0] == [6 + int(20 * 40 / sample.n_prompt)] * 3


def test_no_text_in_front_means_no_stale_scores(run) -> None:
    trace = run(Sample(pre=0), 40, semantics="release_2026", temporal=False, layers=False).trace
    assert len(set(map(tuple, trace.kept))) == 1


def test_temporal_ratios_of_2026_do_not_see_the_second_half() -> None:
    sample = changing(grids=12)
    other = sample.features.clone()
    other[36:] = torch.randn(36, other.shape[1])

    def distances(features: torch.Tensor, half: bool) -> list[float]:
        vectors = release_2026.chunk_vectors(sample.prompt(), features, 6, CPU, half=half)
        return release_2026.neighbour_distances(vectors, border_is_own_neighbour=True)

    blind, seeing = ([distances(f, half) for f in (sample.features, other)] for half in (True, False))
    assert blind[0] == blind[1]
    assert seeing[0] != seeing[1]


def test_projection_by_shift_reaches_the_sum_within_bounds() -> None:
    ratios = release_2026.projected_by_shift([0.01, 0.02, 2.5, 0.4, 0.3], 0.646, [1.0] * 5)
    assert sum(ratios) == pytest.approx(0.646 * 5, abs=1e-4)
    assert ratios == pytest.approx([0.385, 0.395, 1, 0.775, 0.675], abs=1e-3)


def test_a_still_video_keeps_the_same_share_everywhere() -> None:
    sample = Sample(grids=12)
    still = torch.zeros(72, 4)
    still[:, 0] = 1
    vectors = release_2026.chunk_vectors(sample.prompt(), still, 6, CPU, half=True)
    distances = release_2026.neighbour_distances(vectors, border_is_own_neighbour=True)
    assert neighbour_ratios(distances, [12] * 6, 0.3) == [0.3] * 6


def test_one_grid_makes_two_chunks_of_half_a_grid(run) -> None:
    trace = run(Sample(grids=1), 15, semantics="release_2026", chunk_frames=32).trace
    assert trace.chunk_lengths == [3, 3]
    assert trace.chunk_ratio == [15 / 18] * 2


def test_heavy_hitters_scale_a_layer_between_half_and_two() -> None:
    flat, peaked = torch.ones(400), torch.full((400,), 1e-4)
    peaked[0] = 1
    shares = LayerShares(by_hits=False, by_heavy_hitters=True)
    assert shares([flat, peaked], 0.2, 2) == [160, 40]
    quarter = torch.cat((torch.ones(100), torch.zeros(300)))
    assert shares([quarter], 0.2, 1) == [80]


def test_the_floor_is_paid_by_nobody() -> None:
    scores = [torch.rand(1000) for _ in range(3)]
    assert LayerShares(by_hits=False)(scores, 0.001, 3) == [10, 10, 10]
    assert LayerShares(by_hits=False, floor_not_renormalised=False)(scores, 0.003, 3) == [3, 3, 3]


def test_no_layer_is_asked_for_more_than_there_is() -> None:
    scores = [torch.rand(20), torch.rand(20)]
    assert LayerShares(by_hits=False)(scores, 1.2, 2) == [20, 20]


def test_shares_are_rounded_as_float32_does() -> None:
    assert LayerShares(by_hits=False)([torch.rand(10)], 0.7, 1) == [6]  # float32(0.7) * 10 < 7
    assert math.floor(0.7 * 10) == 7


def test_a_whole_chunk_keeps_its_guide_or_not(run) -> None:
    sample = changing(grids=12)
    context = sample.n_prompt - 12
    options = {"semantics": "release_2026", "layers": False, "new": 1}
    kept = run(sample, context, **options).trace
    whole = [i for i, r in enumerate(kept.chunk_ratio) if r >= 1]
    assert whole
    dropped = run(sample, context, **options, quirks={"whole_chunk_keeps_guide": False}).trace
    assert kept.cache_length[0] - dropped.cache_length[0] == 7 * len(whole)
    assert all(kept.recording.scores[i] is None for i in whole)


@pytest.mark.parametrize("yarn", [1.0, 4.0])
def test_rotating_back_undoes_rotating(yarn: float) -> None:
    language = decoder(tiny_model(yarn=yarn))
    states = torch.randn(2, 5, 8)
    ids = torch.randint(-3000, 3000, (3, 5))
    turned = language.rotate(states, ids)
    assert not torch.allclose(turned, states, atol=1e-2)
    assert torch.allclose(language.unrotate(turned, ids), states, atol=1e-5)


def test_reforge_of_2025_keeps_time_contiguous_in_every_layer(run) -> None:
    sample = changing(grids=12)
    trace = run(sample, 40, semantics="release_2025", reforge=True, on=tiny_model(3, 4), new=3).trace
    for layer in range(4):
        time = trace.recording.cache.positions(layer)[0]
        steps = time[1:] - time[:-1]
        assert steps.min() >= 0 and time[-1] < sample.positions()[0, -1]
        assert steps[-9:].tolist() == [1] * 9  # question and decoded tokens


def test_reforge_of_2025_moves_ids_also_when_nothing_is_evicted(run) -> None:
    sample = Sample()
    plain = run(sample, None, semantics="release_2025", temporal=False).trace
    moved = run(sample, None, semantics="release_2025", temporal=False, reforge=True).trace
    assert moved.cache_length == plain.cache_length
    assert moved.recording.cache.positions(0)[0].max() < plain.recording.cache.positions(0)[0].max()
