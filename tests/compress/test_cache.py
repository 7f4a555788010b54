"""A cache whose layers differ in length."""

from __future__ import annotations

import pytest
import torch

from harness.compress.cache import CompressedCache


def filled(reserve: int = 0, track: bool = True) -> CompressedCache:
    cache = CompressedCache(2, reserve=reserve, track_positions=track)
    for start, stop in ((0, 3), (3, 10)):
        ids = torch.arange(start, stop)
        states = ids.float().view(1, 1, -1, 1).expand(1, 2, -1, 4)
        for layer in range(2):
            keys, values = cache.update(states, -states, layer)
            cache.append_positions(layer, ids[None])
            assert keys[0, 0, :, 0].tolist() == list(range(stop)) and torch.equal(values, -keys)
    return cache


@pytest.mark.parametrize("reserve", [0, 2, 10, 500])
def test_update_evict_update(reserve: int) -> None:
    cache = filled(reserve)
    cache.keep_of_last(0, 6, torch.tensor([0, 2, 5]))
    assert cache.lengths == [7, 10]
    for states in (cache.keys(0), -cache.values(0)):
        assert states[1, :, 3].tolist() == [0, 1, 2, 3, 4, 6, 9]
    assert cache.positions(0).tolist() == [[0, 1, 2, 3, 4, 6, 9]]
    assert cache.keys(1)[0, :, 0].tolist() == list(range(10))
    cache.update(torch.full((1, 2, 1, 4), 99.0), torch.zeros(1, 2, 1, 4), 0)
    assert cache.keys(0)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 6, 9, 99]


def test_nothing_may_be_kept() -> None:
    cache = filled()
    cache.keep_of_last(1, 7, torch.tensor([], dtype=torch.long))
    assert cache.keys(1)[0, :, 0].tolist() == [0, 1, 2]


def test_drop_last_shortens_every_layer() -> None:
    cache = filled()
    cache.drop_last(4)
    assert cache.lengths == [6, 6] and cache.positions(0).tolist() == [list(range(6))]


def test_positions_are_only_there_when_tracked() -> None:
    with pytest.raises(ValueError, match="track"):
        filled(track=False).positions(0)


def test_positions_of_one_head_that_chooses_for_itself_are_those_of_the_layer() -> None:
    cache = CompressedCache(1, track_positions=True)
    for start, stop in ((0, 5), (5, 8)):
        states = torch.arange(start, stop).float().view(1, 1, -1, 1).expand(1, 1, -1, 4)
        cache.update(states, states, 0)
        cache.append_positions(0, torch.arange(start, stop)[None])
        if start == 0:
            cache.keep_of_last(0, 5, [torch.tensor([1, 4])])
    assert cache.positions(0).tolist() == [[1, 4, 5, 6, 7]] and cache.keys(0)[0, :, 0].tolist() == [1, 4, 5, 6, 7]
