"""FastVID: segments, anchors, both ways to count, and merging against a loop written from the formula."""

from __future__ import annotations

import math

import pytest
import torch

from harness.compress.methods.fastvid import FastVID, anchors, around, exact_counts, rounded_counts, segments


def randomly(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drifting(grids: int = 12, n: int = 10) -> torch.Tensor:
    """Three scenes of which every grid is a little different."""
    return randomly(3, n, 16).repeat_interleave(grids // 3, 0) + 0.1 * randomly(grids, n, 16, seed=1)


def test_cut_between_scenes_and_then_at_the_least_alike() -> None:
    assert segments(drifting(), 0.9, 1) == [4, 4, 4]
    assert segments(drifting(), -1, 3) == [4, 4, 4] and len(segments(drifting(), -1, 8)) == 8
    assert segments(drifting(), -1, 1) == [12] and segments(drifting(), 1, 1) == [1] * 12
    assert segments(randomly(3, 4, 8), 0.9, 8) == [1, 1, 1] and segments(randomly(1, 4, 8), 0.9, 8) == [1]


def test_anchors_are_counted_from_the_end_of_a_segment() -> None:
    assert anchors([5, 1, 4], 4) == [[0, 4], [5], [9]]


def test_counts_as_released() -> None:
    """Of 10 tokens at a half 5 stay: 2 in context, and 5 grids with two anchors have 5 each."""
    salient, centres = rounded_counts(0.5, 10, [5, 1], anchors([5, 1], 4), 0.4)
    assert salient == [3] * 6 and centres == [5, 0, 0, 0, 5, 2]


@pytest.mark.parametrize("total", [0, 1, 7, 30, 59, 100, 119, 120])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_counts_add_up_exactly(total: int, share: float) -> None:
    lengths = [5, 1, 4, 2]
    found = anchors(lengths, 4)
    salient, centres = exact_counts(total, 10, lengths, found, share)
    assert sum(salient) + sum(centres) == total
    assert all(0 <= a and 0 <= b and a + b <= 10 for a, b in zip(salient, centres, strict=True))
    assert all(not b for grid, b in enumerate(centres) if grid not in {g for of in found for g in of})
    if (total, share) == (30, 0.4):
        assert sum(centres) == 12 and centres == [3, 0, 0, 0, 2, 1, 0, 0, 0, 4, 0, 2]


@pytest.mark.parametrize("total", [1, 2, 11, 12, 13, 40, 77, 119, 120])
def test_any_number_of_tokens_at_different_places(total: int) -> None:
    tokens, ids = FastVID(min_segments=4).merged(drifting(), randomly(12, 10, seed=2).softmax(-1), total)
    assert tokens.shape == (total, 16) and (ids[1:] > ids[:-1]).all() and 0 <= ids[0] and ids[-1] < 120


def test_merged_is_the_formula_token_by_token() -> None:
    """Centres by a loop over densities and distances, and every centre with its own mean."""
    grids, attention = drifting(), randomly(12, 10, seed=2).softmax(-1)
    method = FastVID(min_segments=1, quirks={"counts_rounded_down": True})
    tokens, ids = method.merged(grids, attention, 60)
    expected: dict[int, torch.Tensor] = {}
    for start in (0, 4, 8):
        kept = {t: set(attention[t].topk(3).indices.tolist()) for t in range(start, start + 4)}
        expected |= {t * 10 + i: grids[t, i] for t, of_grid in kept.items() for i in of_grid}
        rest = [grids[t, i] for t, of_grid in kept.items() for i in range(10) if i not in of_grid]
        anchor = start + 3
        free = [i for i in range(10) if i not in kept[anchor]]
        apart = [[float((grids[anchor, i] - grids[anchor, j]).norm()) / 4 for j in free] for i in free]
        density = [math.exp(-sum(d * d for d in sorted(row)[:4]) / 4) for row in apart]
        far = max(map(max, apart))
        score = [
            density[i] * min([apart[i][j] for j in range(7) if density[j] > density[i]], default=far) for i in range(7)
        ]
        best = sorted(range(7), key=lambda i: -score[i])[:8]
        centres = torch.stack([grids[anchor, free[i]] for i in best])
        of = [int(torch.cosine_similarity(token[None], centres, dim=-1).argmax()) for token in rest]
        for k, i in enumerate(best):
            members = torch.stack([token for token, to in zip(rest, of, strict=True) if to == k])
            a = max(0.6, 1 / (len(members) + 1))
            expected[anchor * 10 + free[i]] = a * centres[k] + (1 - a) * members.mean(0)
    assert ids.tolist() == sorted(expected)
    assert torch.allclose(tokens, torch.stack([expected[i] for i in sorted(expected)]), atol=1e-5)


def test_a_centre_that_nothing_else_is_like_stays() -> None:
    centres = torch.eye(2, 4)
    assert torch.allclose(around(centres, centres), centres)
    merged = around(centres, torch.cat((centres, 3 * centres[:1])))
    assert torch.allclose(merged[0], 0.6 * centres[0] + 0.4 * 2 * centres[0])


def test_more_than_there_is_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="cannot divide"):
        FastVID().merged(drifting(), randomly(12, 10).softmax(-1), 121)
