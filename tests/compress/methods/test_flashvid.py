"""FlashVID: what is picked and merged, two shares of one budget, and the tower's attention by another derivation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_checkpoints import save_tiny
from tiny_llava import checkpoint as save_tiny_llava
from tiny_models import Sample, decoder, tiny_model

from harness.compress.generate import generate
from harness.compress.method import build_method
from harness.compress.methods.flashvid import Settings, exactly, merged_over_time, picked, segments
from harness.compress.prune import density_peaks, means, two_shares
from harness.errors import UserError
from harness.models.families import open_model


def randomly(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drifting(grids: int = 9, n: int = 12) -> torch.Tensor:
    """Three scenes of which every grid is a little different."""
    scenes = randomly(3, 1, n, 16).repeat_interleave(grids // 3, 0).flatten(1, 2).view(grids, n, 16)
    return scenes + 0.1 * randomly(grids, n, 16, seed=1)


@pytest.mark.parametrize("by_segment", [False, True])
@pytest.mark.parametrize("total", [1, 2, 8, 9, 10, 40, 77, 107])
def test_any_number_of_tokens_at_different_places(total: int, by_segment: bool) -> None:
    grids, attention = drifting(), randomly(9, 12, seed=2).softmax(-1)
    tokens, ids = exactly(grids, attention, total, Settings(by_segment))
    assert tokens.shape == (total, 16) and (ids[1:] > ids[:-1]).all() and 0 <= ids[0] and ids[-1] < 108


def test_scenes_are_segments_and_more_are_cut_at_the_least_alike() -> None:
    assert segments(drifting(), 0.9, 1) == [3, 3, 3]
    assert segments(randomly(3, 4, 8), 0.9, 4).count(0) == 1 and sum(segments(randomly(3, 4, 8), 0.9, 4)) == 3
    assert len(segments(drifting(), 0.9, 5)) == 5 and sum(segments(drifting(), 0.9, 5)) == 9
    assert segments(randomly(1, 4, 8), 0.9, 4) == [1]


def test_picked_are_the_attended_and_the_different() -> None:
    grid = torch.eye(6, 8)[None].clone()
    grid[0, 5] = grid[0, 4]  # two that are the same: not both
    order = picked(grid, torch.tensor([[1.0, 2, 3, 9, 5, 4]]) / 24, 4, by_segment=False)[0].tolist()
    assert order[0] == 3 and sorted(order) in ([1, 2, 3, 4], [1, 2, 3, 5])


def test_what_repeats_is_merged_into_where_it_came_from() -> None:
    """A chain of four equal tokens becomes one: of the same norm if all are counted, of twice it in the code."""
    grids = randomly(4, 5, 16)
    grids[1:, 2] = grids[0, 2]
    free = torch.ones(4, 5, dtype=torch.bool)
    for once, norm in ((False, 1.0), (True, 2.0)):
        tokens, left = merged_over_time(grids, free, 1, 0.9, children_counted_once=once)
        assert left.sum() == 17 and left[0, 2] and not left[1:, 2].any()
        assert torch.allclose(tokens[0, 2], norm * grids[0, 2], atol=1e-5)
        assert torch.equal(tokens[left][:2], grids[left][:2])
    assert merged_over_time(grids, free, 19, 0.9, children_counted_once=True)[1].sum() >= 19
    free[2, 2] = False
    assert merged_over_time(grids, free, 1, 0.9, children_counted_once=True)[1][:, 2].tolist() == [
        True,
        False,
        False,
        True,
    ]


def test_clusters_are_means_around_dense_tokens() -> None:
    tokens = torch.cat((randomly(6, 8, seed=1) * 0.1, randomly(5, 8, seed=2) * 0.1 + 9))
    centres, cluster = density_peaks(tokens, 2, 2)
    assert len(set(cluster[:6].tolist())) == len(set(cluster[6:].tolist())) == 1 and cluster[0] != cluster[6]
    assert {int(cluster[c]) for c in centres} == {0, 1}
    assert torch.allclose(means(tokens, cluster, 2)[cluster[0]], tokens[:6].mean(0))


@pytest.mark.parametrize("mean", [1, 7, 16, 100, 999, 1000])
@pytest.mark.parametrize(("first", "layers"), [(20, 28), (28, 36), (2, 3), (5, 7)])
def test_two_shares_are_on_average_the_budget(mean: int, first: int, layers: int) -> None:
    outer, inner = two_shares(mean, 1000, first, layers, 0.3)
    assert first * outer + (layers - first) * inner == layers * mean and 1 <= inner <= outer <= 1000
    if (first, layers, mean) == (20, 28, 100):
        assert (outer, inner) in ((124, 40), (126, 35), (125, 37))


def answer(context: int | None, **options: Any) -> Any:
    sample, model = Sample(), tiny_model(layers=4)
    method = build_method("flashvid", **options).for_family("qwen2_5_vl")
    attention = randomly(sample.n_video, seed=3).softmax(-1) if options.get("attention", True) else None
    prompt = dataclasses.replace(sample.prompt("float", context), attention=attention)
    return generate(decoder(model), method, prompt, (sample.features,), max_new_tokens=1, record=True).trace


def test_layers_have_two_lengths_and_their_mean_is_the_context() -> None:
    trace = answer(12 + 20)
    outer, inner = two_shares(20, 60, 2, 4, 0.3)
    assert trace.cache_length == [12 + outer] * 2 + [12 + inner] * 2 and sum(trace.cache_length) == 4 * 32
    assert trace.prefilled == 32 and trace.n_video == outer > 20 > inner
    assert answer(12 + 20, layer=3).cache_length[2] == 12 + two_shares(20, 60, 3, 4, 0.3)[0]
    assert sum(answer(20, retention=0.5).cache_length) == 4 * 42
    assert not answer(None).compressed
    once, all_ = (answer(12 + 9, quirks={"children_counted_once": once}) for once in (True, False))
    assert once.cache_length == all_.cache_length


def test_without_the_towers_attention_it_says_so() -> None:
    sample = Sample()
    method = build_method("flashvid").for_family("qwen2_5_vl")
    with pytest.raises(UserError, match="keep_attention=True"):
        generate(decoder(tiny_model()), method, sample.prompt("float", 32), (sample.features,), max_new_tokens=1)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_attention_of_a_qwen_tower_is_that_of_its_last_layer(family: str, tmp_path: Path, monkeypatch: Any) -> None:
    """By eager attention of the last block, grid by grid; the order of patches by marking one of them."""
    adapter = open_model(str(save_tiny(family, tmp_path / family)), device="cpu")
    frames = np.random.default_rng(0).integers(0, 255, (6, 56, 140, 3)).astype(np.uint8)
    plain, kept = adapter.encode(frames), adapter.encode(frames, keep_attention=True)
    assert torch.equal(plain.features, kept.features) and plain.attention is None
    assert kept.attention is not None and kept.attention.shape == (len(kept.features),)
    assert torch.allclose(kept.attention.view(3, -1).sum(1) * 4, torch.ones(3), atol=1e-5)  # weights of a grid add to 1
    one = adapter.encode(frames[:2], keep_attention=True)
    assert one.attention is not None and torch.allclose(one.attention, kept.attention[: len(one.attention)], atol=1e-5)

    blocks, seen = adapter.model.model.visual.blocks, []
    import harness.models.qwen_vl as module

    original = module.attention_received

    def spy(query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
        seen.append((query @ key.transpose(1, 2) * scale).softmax(-1).mean((0, 1)))
        return original(query, key, scale)

    monkeypatch.setattr(module, "attention_received", spy)
    inputs: list[torch.Tensor] = []
    handle = adapter.model.model.visual.merger.register_forward_hook(lambda _m, _a, output: inputs.append(output))
    again = adapter.encode(frames, keep_attention=True)
    handle.remove()
    in_tower = torch.cat(seen).view(-1, 4).mean(1)  # as the tower orders them; so do the merger's outputs
    order = [int((inputs[0] - feature).abs().sum(1).argmin()) for feature in again.features]
    assert sorted(order) == list(range(len(order))) and again.attention is not None
    assert torch.allclose(in_tower[order], again.attention, atol=1e-6) and len(blocks) in (2, 3)


def test_attention_of_siglip_is_pooled_like_its_features(tmp_path: Path) -> None:
    adapter = open_model(str(save_tiny_llava(tmp_path / "llava", side=6, layers=2, seed=0)), device="cpu")
    frames = np.random.default_rng(0).integers(0, 255, (5, 56, 84, 3)).astype(np.uint8)
    plain, kept = adapter.encode(frames), adapter.encode(frames, keep_attention=True)
    assert torch.equal(plain.features, kept.features) and kept.attention is not None
    adapter.model.set_attn_implementation({"vision_config": "eager"})
    with torch.inference_mode():
        tower = adapter.model.model.vision_tower(adapter._pixels(frames)[0], output_attentions=True)
    weights = tower.attentions[-1].mean((1, 2))
    side = round(weights.shape[1] ** 0.5)
    expected = F.interpolate(weights.view(5, 1, side, side), size=(adapter.side,) * 2, mode="bilinear").flatten()
    assert torch.allclose(kept.attention, expected, atol=1e-5)
