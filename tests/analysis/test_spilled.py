"""Attention over keys and values in files: the same numbers, and memory that does not grow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_models import Sample, decoder, tiny_model

from harness.compress.attention import eager_attention
from harness.errors import UserError
from harness.tools.analysis import spilled
from harness.tools.analysis.heavy_hitters import received_attention
from harness.tools.analysis.spilled import Allocations, Spill, attention_mass, spilled_attention


@pytest.fixture
def spill(tmp_path: Path) -> Spill:
    return Spill(tmp_path / "spill")


def states(heads: int, groups: int, n: int, m: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(n + m)
    shapes = [(1, heads, n, 8), (1, groups, m, 8), (1, groups, m, 8)]
    return tuple(torch.randn(shape, generator=generator) * 3 for shape in shapes)


@pytest.mark.parametrize(("block", "rows"), [(2**25, 16384), (200, 16384), (64, 5), (1, 1)])
@pytest.mark.parametrize(("heads", "groups", "n", "m"), [(4, 2, 7, 23), (4, 4, 23, 23), (6, 2, 1, 9), (2, 1, 5, 6)])
def test_attention_by_blocks_is_attention(monkeypatch, block, rows, heads, groups, n, m) -> None:
    monkeypatch.setattr(spilled, "_BLOCK_BYTES", block)
    monkeypatch.setattr(spilled, "_MOST_ROWS", rows)
    query, key, value = states(heads, groups, n, m)
    assert torch.allclose(spilled_attention(query, key, value, 0.7), eager_attention(query, key, value, 0.7), atol=1e-5)
    weights = query @ key.repeat_interleave(heads // groups, 1).transpose(2, 3) * 0.7
    hidden = torch.ones(n, m, dtype=torch.bool).triu(m - n + 1)
    wanted = weights.masked_fill(hidden, -torch.inf).softmax(-1)[0].sum(1).mean(0)
    found = torch.zeros(m)
    attention_mass(query[0], key[0], 0.7, found)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_logits_of_a_thousand_stay_numbers() -> None:
    query, key, value = (s * 40 for s in states(4, 2, 6, 12))
    found = spilled_attention(query, key, value, 1.0)
    assert torch.allclose(found, eager_attention(query, key, value, 1.0), atol=1e-3)


@pytest.mark.parametrize("chunk_frames", [2, 8, 400])
def test_chunks_do_not_show(spill: Spill, chunk_frames: int) -> None:
    model, sample = tiny_model(), Sample()
    whole, hidden = with_numbers(model, sample, spill, 400)
    found, last = with_numbers(model, sample, spill, chunk_frames)
    assert torch.allclose(found, whole, atol=1e-5) and torch.allclose(last, hidden, atol=1e-4)
    assert found.sum(1) == pytest.approx([7.0] * 3, abs=1e-4)  # 7 tokens of text spend all of their attention


@torch.inference_mode()
def with_numbers(model, sample: Sample, spill: Spill, chunk_frames: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return received_attention(decoder(model), sample.prompt(), (sample.features,), spill, chunk_frames=chunk_frames)


def test_memory_does_not_grow_with_the_video(spill: Spill, monkeypatch) -> None:
    """Eight times the frames, of four tokens in two; blocks of attention as small as the model is."""
    monkeypatch.setattr(spilled, "_BLOCK_BYTES", 2**14)
    model, peaks, tokens = tiny_model(), [], []
    for frames in (128, 1024):
        sample = Sample(grids=frames // 2, h=4, w=4)
        features = spill.new(tuple(sample.features.shape), torch.float32)
        features.copy_(sample.features)
        prompt = sample.prompt()
        with torch.inference_mode(), Allocations() as found:
            received_attention(decoder(model), prompt, (features,), spill, chunk_frames=64)
        peaks.append(found.peak)
        tokens.append(sample.n_prompt)
    # Of the longer one, only the prompt itself is longer: its tokens, three rows of ids, and places of the video.
    assert 0 <= peaks[1] - peaks[0] <= 8 * (1 + 3 + 1) * (tokens[1] - tokens[0]), peaks


def test_the_count_sees_what_is_held_and_nothing_in_files(spill: Spill) -> None:
    kept = []
    with Allocations() as found:
        kept.append(torch.zeros(1000))
        kept.append(spill.new((1000,), torch.float32)[:500])
        kept.append(kept[0][:10])
        assert found.live == found.peak == 4000
        torch.ones(500, dtype=torch.float64)
        assert (found.live, found.peak) == (4000, 8000)
        kept.clear()
        assert found.live == 0
    big = Sample(grids=256, h=4, w=4)
    model = tiny_model()
    with torch.inference_mode(), Allocations() as found:
        in_memory = SimpleNamespace(new=lambda shape, dtype: torch.zeros(shape, dtype=dtype), buffer=None)
        in_memory.buffer = lambda like, capacity: torch.zeros(*like.shape[:2], capacity, like.shape[3])
        received_attention(decoder(model), big.prompt(), (big.features,), in_memory)
    # keys and values of 3 layers, 2 heads of 8 numbers; and what is asked for
    assert found.peak > 4 * big.n_prompt * (3 * 2 * 2 * 8 + 3)


def test_files_have_no_names(spill: Spill, tmp_path: Path) -> None:
    tensor = spill.new((3, 5), torch.bfloat16)
    tensor[1, 2] = 4
    assert tensor.sum() == 4 and not list((tmp_path / "spill").iterdir())


def test_a_full_disk_is_an_error_that_says_how_much(spill: Spill, monkeypatch) -> None:
    monkeypatch.setattr(spilled.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    with pytest.raises(UserError, match=r"4\.0 GB are needed .* 1\.0 GB are free"):
        spill.new((10**9,), torch.float32)
