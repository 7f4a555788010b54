"""Attention as methods rank by it: in blocks as at once, and with text between the video's tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import HIDDEN, decoder

from harness.compress import scorers as causal
from harness.compress.generate import generate
from harness.compress.method import build_method
from harness.compress.prompt import Prompt
from harness.compress.scorers import LayerView

HEADS, KEY_HEADS, N, M, DIM = 6, 2, 7, 12, 8


def states(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def at_once(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """[h, n, m], entry by entry."""
    weights = torch.zeros(HEADS, N, M)
    for head in range(HEADS):
        for row in range(N):
            seen = M - N + row + 1
            logits = torch.stack([queries[head, row] @ keys[head // 3, j] for j in range(seen)]) * 0.3
            weights[head, row, :seen] = logits.exp() / logits.exp().sum()
    return weights


@pytest.mark.parametrize("block_bytes", [1, 4 * HEADS * M * 2, 2**20])
@pytest.mark.parametrize("rows", [range(N), range(5, N), [1, 4, 6]])
def test_blocks_do_not_show(monkeypatch, block_bytes: int, rows: Any) -> None:
    monkeypatch.setattr(causal, "_BLOCK_BYTES", block_bytes)
    queries, keys = states(0, HEADS, N, DIM), states(1, KEY_HEADS, M, DIM)
    expected = at_once(queries, keys)
    blocks = list(causal.causal_weights(queries, keys, 0.3, rows))
    assert [row for of_block, _ in blocks for row in of_block] == list(rows)
    found = torch.cat([weights for _, weights in blocks], dim=2).flatten(0, 1)
    assert torch.allclose(found, expected[:, list(rows)], atol=1e-6)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("places", [None, torch.tensor([0, 2, 3])])
def test_what_tokens_receive(places: torch.Tensor | None, apart: bool) -> None:
    """Two guide tokens at the end; without places the other five are the video's. `apart`: held head by head."""
    queries, keys = states(0, HEADS, N, DIM), states(1, KEY_HEADS, M, DIM)
    cached = [head[None, None] for head in keys] if apart else keys[None]
    view = LayerView(queries, keys[:, -N:], 2, places, 0.3, 0, SimpleNamespace(), SimpleNamespace(), cached)  # type: ignore[arg-type]
    columns = [M - N + i for i in (range(5) if places is None else places.tolist())]
    expected = at_once(queries, keys)[:, [5, 6]][:, :, columns].mean(1)
    assert list(causal.guide_rows(view)) == [5, 6] and causal.video_columns(view).tolist() == columns
    assert torch.allclose(causal.received(view, causal.guide_rows(view)), expected.mean(0), atol=1e-6)
    per_head = causal.received(view, causal.guide_rows(view), per_head=True)
    assert torch.allclose(per_head, expected.unflatten(0, (KEY_HEADS, 3)).mean(1), atol=1e-6)


METHODS: list[tuple[str, dict[str, Any]]] = [
    ("fastv", {}),
    ("vl_cache", {}),
    ("pyramiddrop", {}),
    ("sparsevlm", {}),
    ("look_m", {}),
    ("look_m", {"content": True}),
    ("fastv", {"form": "native", "layer": 1}),
    ("pyramiddrop", {"form": "native"}),
    ("sparsevlm", {"form": "native"}),
]


@pytest.mark.parametrize(("name", "options"), METHODS, ids=lambda value: str(value))
def test_text_between_the_grids_stays(model, name: str, options: dict[str, Any]) -> None:
    """Two words in front of each of eight grids of six tokens, five words behind."""
    is_video = torch.tensor(([False] * 2 + [True] * 6) * 8 + [False] * 5)
    n, n_video = len(is_video), 48
    ids = torch.where(is_video, 154, torch.arange(n) + 3)
    prompt = Prompt(
        input_ids=ids,
        positions=torch.arange(n).expand(3, n).clone(),
        video=is_video.nonzero().flatten(),
        grid_lengths=(6,) * 8,
        context=None if options.get("form") else n - n_video + 16,
    )
    method = build_method(name, chunk_frames=4, **options).for_family("qwen2_5_vl")
    got = generate(decoder(model), method, prompt, (states(2, n_video, HIDDEN),), max_new_tokens=2, record=True)
    trace = got.trace
    assert trace.recording is not None
    if not options.get("form"):
        assert sum(trace.cache_length) == 3 * (n - n_video + 16)
    for layer, length in enumerate(trace.cache_length):
        if len(trace.recording.cache.head_lengths(layer)) == 1:
            time = trace.recording.cache.positions(layer)[0].tolist()
            assert time == sorted(set(time)) and len(time) == length + 1  # one new token is cached
            assert set(range(n)) - set(time) <= set(prompt.video.tolist())  # no text is missing
