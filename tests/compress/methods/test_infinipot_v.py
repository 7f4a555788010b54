"""InfiniPot-V: memory does not grow, every head has its own choice, and how blocks are cut does not show."""

from __future__ import annotations

import pytest
import torch
from tiny_models import Sample

from harness.compress.methods.infinipot_v import blocks, keep_of, pooled, pooling_of, redundancy


def logits(answer) -> torch.Tensor:
    return answer.trace.recording.logits[0]


@pytest.mark.parametrize("budget", [1, 5, 6, 11, 12, 13, 25, 40, 59])
def test_the_cache_never_holds_more_than_its_budget(run, budget: int) -> None:
    """From two grids (of 6 tokens) on; below, a second grid has to come in before one can go."""
    trace = run(Sample(), 12 + budget, name="infinipot_v", new=1).trace
    assert trace.cache_length == [12 + budget] * 3
    assert trace.cache_peak <= 12 + max(budget, 12)
    assert trace.prefilled == trace.n_prompt == 72


@pytest.mark.parametrize("grids", [1, 2, 7, 32, 33, 100])
@pytest.mark.parametrize("budget", [1, 9, 10, 57, 200, 329])
def test_blocks_end_with_the_budget(grids: int, budget: int) -> None:
    plan = blocks(grids, 10, budget, 0.75)
    assert sum(new for new, _ in plan) == grids and min(new for new, _ in plan) > 0
    held = 0
    for new, left in plan:
        held += new * 10
        assert held <= max(budget, 20) and left <= held
        held = left
    assert held == min(budget, grids * 10)


def test_published_block_of_32_grids() -> None:
    assert blocks(384, 1, 32, 0.75) == [(32, 24), *[(8, 24)] * 43, (8, 32)]


def test_pieces_of_a_block_do_not_show(run) -> None:
    pieces, whole = (run(Sample(), 40, name="infinipot_v", chunk_frames=f) for f in (2, 100))
    assert len(pieces.trace.chunk_lengths) > len(whole.trace.chunk_lengths)
    assert pieces.trace.kept_digest == whole.trace.kept_digest
    assert torch.allclose(logits(pieces), logits(whole), atol=1e-4)


def test_heads_keep_tokens_of_their_own(run) -> None:
    cache = run(Sample(), 40, name="infinipot_v", new=1).trace.recording.cache
    first, second = (cache.head_keys(1, head) for head in range(2))
    assert first.shape == second.shape and cache.head_lengths(1) == [40, 40]


def test_the_newest_the_least_redundant_and_the_largest_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(1, 40, 8, generator=generator) for _ in range(2))
    keys[0, :10] = keys[0, 30:]  # the first grid repeats the last
    values[0, 12] *= 100
    kept = keep_of(keys, values, 10, 24)[0][0].tolist()
    assert {*range(30, 40), 12} <= set(kept) and len(kept) == len(set(kept)) == 24
    alike = redundancy(keys[:, :30], keys[:, 30:], 10)[0]
    assert torch.allclose(alike[:10], torch.ones(10), atol=1e-5) and alike[10:].max() < 0.99
    by_age = keep_of(keys, values, 10, 24, tar=1.0)[0][0].tolist()
    best = alike.sort().indices[:14].sort().values.tolist()
    assert by_age == [*best, *range(30, 40)]
    assert keep_of(keys, values, 10, 5, tar=1.0)[0][0].tolist() == list(range(35, 40))  # less than the newest grid


def test_pooling_is_a_mean_with_zeros_beyond_the_edges() -> None:
    assert [pooling_of(layer, 28) for layer in (0, 7, 14, 27)] == [(3, 7), (2, 5), (1, 3), (0, 1)]
    ones = torch.ones(2, 3 * 12)
    assert torch.equal(pooled(ones, 12, 0, 1, 3), ones)
    assert pooled(ones, 12, 1, 3, 3)[0, :2].tolist() == pytest.approx([2 / 3, 1])
    plane = pooled(ones, 12, 2, 5, 3).view(2, 3, 3, 4)  # shrunk to 3: a corner has 4 of 9, an edge 6
    assert plane[0, 0, 0, :2].tolist() == pytest.approx([4 / 9, 6 / 9]) and plane[1, 2, 1, 1] == pytest.approx(1)
    space = pooled(ones, 12, 3, 7, 3).view(2, 3, 3, 4)
    assert space[0, 0, 0, 0] == pytest.approx(8 / 27) and space[0, 1, 1, 1] == pytest.approx(1)


@pytest.mark.parametrize("options", [{"pooling": True}, {"quirks": {"text_late": True}}, {"tar": 0.0}, {"newest": 0.6}])
def test_every_option_matters(run, options: dict) -> None:
    plain, other = run(Sample(), 40, name="infinipot_v"), run(Sample(), 40, name="infinipot_v", **options)
    assert not torch.allclose(logits(plain), logits(other), atol=1e-5)
    assert other.trace.cache_length == [40] * 3


def test_text_is_late_by_its_own_length(run) -> None:
    sample = Sample()
    late = run(sample, 40, name="infinipot_v", quirks={"text_late": True}).trace
    assert late.next_position == run(sample, 40, name="infinipot_v").trace.next_position + 7
