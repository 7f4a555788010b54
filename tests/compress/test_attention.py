"""Attention backends agree, are causal from the bottom right, and leave transformers as it was."""

from __future__ import annotations

import pytest
import torch

from harness.compress.attention import attached, choose_backend, eager_attention, sdpa_attention
from harness.errors import UserError


def states(n: int, m: int, heads: int = 6, groups: int = 2, d: int = 8) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(n * 100 + m)
    return tuple(torch.randn(1, h, t, d, generator=generator) for h, t in ((heads, n), (groups, m), (groups, m)))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 9), (7, 7), (5, 12), (12, 13)])
def test_eager_equals_sdpa(n: int, m: int) -> None:
    query, key, value = states(n, m)
    assert torch.allclose(eager_attention(query, key, value, 0.3), sdpa_attention(query, key, value, 0.3), atol=1e-6)


@pytest.mark.parametrize("queries", [1, 3, 5])
def test_blocks_of_queries_do_not_show(monkeypatch, queries: int) -> None:
    query, key, value = states(7, 11)
    whole = eager_attention(query, key, value, 0.3)
    monkeypatch.setattr("harness.compress.attention._BLOCK_BYTES", 4 * 6 * 11 * queries)
    assert torch.allclose(eager_attention(query, key, value, 0.3), whole, atol=1e-6)


@pytest.mark.parametrize("kernel", [eager_attention, sdpa_attention])
def test_the_last_query_sees_all_and_the_first_as_much_as_is_cached(kernel) -> None:
    n, m = 4, 10
    query, key, value = states(n, m)
    before = kernel(query, key, value, 0.3)
    for j in range(m):
        changed = value.clone()
        changed[:, :, j] += 1
        moved = (kernel(query, key, changed, 0.3) - before).abs().amax(dim=(0, 1, 3)) > 1e-7
        assert moved.tolist() == [j <= m - n + i for i in range(n)]


def test_attached_restores_the_stock_implementation_also_after_an_error(model) -> None:
    from transformers import AttentionInterface

    config = model.model.language_model.config
    stock, sdpa = config._attn_implementation, AttentionInterface._global_mapping["sdpa"]
    with pytest.raises(RuntimeError), attached(config, "sdpa"):
        assert config._attn_implementation == "harness_sdpa"
        raise RuntimeError
    assert config._attn_implementation == stock
    assert AttentionInterface._global_mapping["sdpa"] is sdpa


def test_choice_of_backend() -> None:
    cpu = torch.device("cpu")
    assert choose_backend("auto", cpu, torch.float32) == "sdpa"
    assert choose_backend("auto", torch.device("xpu"), torch.bfloat16) == "eager"
    assert choose_backend("eager", cpu, torch.float32) == "eager"
    with pytest.raises(UserError, match="flash-attn"):
        choose_backend("flash_attention_2", cpu, torch.float32)
    with pytest.raises(UserError, match="'fast'.*auto, flash_attention_2, sdpa, eager"):
        choose_backend("fast", cpu, torch.float32)
