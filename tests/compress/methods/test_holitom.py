"""HoliTom: windows against all partitions, exact and rounded counts, what is averaged, clustered and merged inside."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from tiny_models import Sample, decoder, tiny_model

from harness.compress.generate import generate
from harness.compress.method import build_method
from harness.compress.methods.holitom import (
    Block,
    HoliTom,
    merged_into,
    places_of,
    reduced,
    similarity,
    static_windows,
)


def randomly(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drifting(grids: int = 9, n: int = 12) -> torch.Tensor:
    """Three scenes; in each some places move and the others stay."""
    scenes = randomly(3, n, 16).repeat_interleave(grids // 3, 0)
    noise = randomly(grids, n, 16, seed=1)
    noise[:, n // 2 :] *= 0.1
    return scenes + noise


def saving(static: torch.Tensor, windows: list[tuple[int, int]]) -> int:
    return sum(int(static[first:last].all(0).sum()) * (last - first) if last > first else 0 for first, last in windows)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("longest", [2, 3, 1024])
def test_no_other_windows_save_more(seed: int, longest: int) -> None:
    static = randomly(6, 5, seed=seed) > (-1.0 if seed < 3 else -0.3)
    windows, saved = static_windows(static, longest)
    assert [t for first, last in windows for t in range(first, last + 1)] == list(range(7))
    best = 0
    for cuts in itertools.product((False, True), repeat=6):
        ends = [-1, *(t for t in range(6) if cuts[t]), 6]
        partition = [(a + 1, b) for a, b in itertools.pairwise(ends)]
        if all(last - first < longest for first, last in partition):
            best = max(best, saving(static, partition))
    assert saving(static, windows) == saved == best


def test_one_grid_and_a_still_video() -> None:
    assert static_windows(similarity(randomly(1, 4, 8)) > 0.8) == ([(0, 0)], 0)
    still = randomly(1, 4, 8).expand(5, -1, -1)
    assert static_windows(similarity(still) > 0.8) == ([(0, 4)], 16)
    assert static_windows(similarity(still) > 2) == ([(t, t) for t in range(5)], 0)


@pytest.mark.parametrize("total", [1, 2, 8, 9, 10, 40, 77, 107, 108])
def test_any_number_of_tokens_at_different_places(total: int) -> None:
    tokens, ids = HoliTom().merged(drifting(), randomly(9, 12, seed=2).softmax(-1), total)
    assert tokens.shape == (total, 16) and (ids[1:] > ids[:-1]).all() and 0 <= ids[0] and ids[-1] < 108
    if total == 108:
        assert torch.equal(tokens, drifting().flatten(0, 1))


def test_counts_as_released() -> None:
    """By the formula: averages half to even, every grid up, from the share that averaging leaves."""
    grids, attention = drifting(), randomly(9, 12, seed=2).softmax(-1)
    static = similarity(grids) > 0.8
    windows, saved = static_windows(static)
    assert saved
    ratio, expected = min(1.0, 27 / (108 - saved)), 0
    for window in windows:
        fixed = int(places_of(static, window).sum())
        expected += round(fixed * ratio) + (window[1] - window[0] + 1) * -int(-(12 - fixed) * ratio // 1)
    quirks = {"counts_rounded_per_window": True}
    tokens, ids = HoliTom(quirks=quirks).merged(grids, attention, 27)
    assert len(tokens) == expected
    first, number = HoliTom(quirks={**quirks, "averages_first": True}).merged(grids, attention, 27)
    assert number.tolist() != ids.tolist() == number.sort().values.tolist()
    assert torch.equal(first[number.argsort()], tokens)


def test_static_tokens_are_averages_and_others_what_is_attended_to() -> None:
    grids, attention = drifting(), randomly(9, 12, seed=2).softmax(-1)
    static = similarity(grids) > 0.8
    (window, *_), _ = static_windows(static)
    fixed = places_of(static, window)
    tokens, ids = HoliTom(quirks={"counts_rounded_per_window": True}).merged(grids, attention, 108)
    place = int(fixed.nonzero()[0])
    average = grids[window[0] : window[1] + 1, place].mean(0)
    assert torch.allclose(tokens[ids == window[0] * 12 + place][0], average, atol=1e-6)
    moving = Block(grids[0, ~fixed], (~fixed).nonzero().flatten(), static=False)
    _, numbers = reduced(moving, 2, attention)
    assert set(numbers.tolist()) == set(moving.numbers[attention[0, ~fixed].topk(2).indices].tolist())


def test_a_centre_weighs_six_tenths_and_one_alone_stays() -> None:
    near, far = randomly(6, 8, seed=1) * 0.1, randomly(1, 8, seed=2) * 0.1 + 1.5
    tokens, numbers = reduced(Block(torch.cat((near, far)), torch.arange(7) * 3, static=True), 2, torch.zeros(1))
    assert numbers.tolist()[1] == 18 and torch.equal(tokens[1], far[0])
    centre = numbers.tolist()[0] // 3
    others = near[[i for i in range(6) if i != centre]].mean(0)
    assert torch.allclose(tokens[0], 0.6 * near[centre] + 0.4 * others, atol=1e-6)


def test_merging_inside_one_by_one_or_as_a_mean() -> None:
    kept, gone = randomly(3, 16), randomly(9, 16, seed=1)
    to = torch.nn.functional.cosine_similarity(gone[:, None], kept[None], dim=-1).argmax(1)
    loop = kept.clone()
    for state, target in zip(gone, to, strict=True):
        loop[target] = (loop[target] + state) / 2
    assert torch.allclose(merged_into(kept, gone, one_by_one=True), loop, atol=1e-6)
    mean = torch.stack([torch.cat((kept[i : i + 1], gone[to == i])).mean(0) for i in range(3)])
    assert torch.allclose(merged_into(kept, gone, one_by_one=False), mean, atol=1e-6)


def answer(context: int | None, **options: Any) -> Any:
    sample, model = Sample(), tiny_model(layers=4)
    method = build_method("holitom", **options).for_family("qwen2_5_vl")
    prompt = dataclasses.replace(
        sample.prompt("float", context), attention=randomly(sample.n_video, seed=3).softmax(-1)
    )
    return generate(decoder(model), method, prompt, (sample.features,), max_new_tokens=1, record=True).trace


def test_layers_have_two_lengths_and_their_mean_is_the_context() -> None:
    trace = answer(12 + 20)
    assert sum(trace.cache_length) == 4 * 32 and trace.cache_length[0] > 32 > trace.cache_length[-1]
    shared = answer(20, retention=0.5)  # as published: of what enters, half passes the last layers
    assert shared.cache_length == [12 + 30] * 2 + [12 + 15] * 2
    assert answer(12 + 20, layer=3).cache_length[2] > 32


def test_what_is_merged_inside_is_what_another_derivation_merges() -> None:
    """The values behind the merging layer, from transformers' own hidden states and attention weights."""
    from harness.compress.methods import holitom

    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = holitom.merged_into

    def spy(kept: torch.Tensor, gone: torch.Tensor, *, one_by_one: bool) -> torch.Tensor:
        seen.append((kept, gone))
        return original(kept, gone, one_by_one=one_by_one)

    sample, model = Sample(), tiny_model(layers=4)
    method = dataclasses.replace(HoliTom(name="holitom"), retention=0.999, alike=1.0, layer=2)
    prompt = dataclasses.replace(sample.prompt(), attention=torch.ones(60) / 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holitom, "merged_into", spy)
        generate(decoder(model), method, prompt, (sample.features,), max_new_tokens=1)
    model.set_attn_implementation("eager")
    embeds = model.get_input_embeddings()(sample.input_ids).detach().clone()
    embeds[sample.video] = sample.features
    with torch.inference_mode():
        states = model.model.language_model(
            inputs_embeds=embeds[None],
            position_ids=sample.positions()[:, None],
            output_attentions=True,
            output_hidden_states=True,
        )
    scores = states.attentions[1][0, :, -1, sample.video].mean(0)
    hidden = states.hidden_states[2][0, sample.video]
    kept = scores.topk(30).indices.sort().values
    gone = torch.tensor([i for i in range(60) if i not in set(kept.tolist())])
    assert torch.allclose(seen[0][0], hidden[kept], atol=1e-4)
    assert torch.allclose(seen[0][1], hidden[gone], atol=1e-4)
