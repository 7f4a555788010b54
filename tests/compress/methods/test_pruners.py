"""Methods that choose tokens before the language model: what holds for each beyond what every method must do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import Sample

from harness.compress.generate import generate
from harness.compress.method import build_method
from harness.compress.methods import dycoke, v_cast, vidcom2
from harness.errors import QuestionError, UserError

NAMES = ("vidcom2", "evs", "v_cast", "dycoke")


@pytest.fixture
def sample() -> Sample:
    return Sample()  # 10 grids of 6 tokens, 12 of text


def kept_of(run: Any, sample: Sample, name: str, context: int | None, **options: Any) -> list[int]:
    """Which of the video's tokens are in the cache, told by their ids."""
    trace = run(sample, context, name=name, new=1, **options).trace
    ids = trace.recording.cache.positions(0).T.tolist()
    places = sample.positions()[:, sample.video].T.tolist()
    return [place for place, at in enumerate(places) if at in ids]


@pytest.mark.parametrize("name", ["vidcom2", "evs", "v_cast"])
@pytest.mark.parametrize("budget", [1, 9, 10, 31, 59])
def test_any_budget_is_met_and_nothing_else_passes_the_model(run, sample, name: str, budget: int) -> None:
    trace = run(sample, 12 + budget, name=name, new=1).trace
    assert trace.cache_length == [12 + budget] * 3 and trace.prefilled == trace.cache_peak == 12 + budget
    assert (trace.n_encoded, trace.n_video, trace.n_prompt) == (60, budget, 12 + budget)
    assert trace.kept_digest and len(kept_of(run, sample, name, 12 + budget)) == budget


def test_dycoke_cannot_do_with_less_than_its_whole_grids(run, sample) -> None:
    whole = 6 * dycoke.references(10).count(None)
    trace = run(sample, 12 + whole + 5, name="dycoke", new=1).trace
    assert trace.cache_length == [12 + whole + 5] * 3
    with pytest.raises(QuestionError, match=f"context of at least {12 + whole}"):
        run(sample, 12 + whole - 1, name="dycoke")


@pytest.mark.parametrize("name", ["vidcom2", "evs", "v_cast"])
def test_a_retention_leaves_the_context_out_of_account(run, sample, name: str) -> None:
    trace = run(sample, 20, name=name, retention=0.5, new=1).trace
    assert trace.n_video == 30 and trace.cache_length == [42] * 3
    assert not run(sample, 20, name=name, retention=1.0, new=1).trace.compressed
    with pytest.raises(UserError, match=r"method.retention=1.5 .* at most 1"):
        build_method(name, retention=1.5)
    with pytest.raises(UserError, match="unknown quirk nonsense"):
        build_method(name, quirks={"nonsense": True})


def test_what_one_context_chose_serves_another(model, sample, run) -> None:
    """Scores are computed once per video; the tokens chosen by them are not remembered."""
    from tiny_models import decoder

    memo: dict[Any, Any] = {}
    for context in (40, 25, 40):
        for name in NAMES[:3]:
            method = build_method(name)
            shared = generate(
                decoder(model), method, sample.prompt("float", context), (sample.features,), max_new_tokens=1, memo=memo
            )
            assert shared.trace.kept_digest == run(sample, context, name=name, new=1).trace.kept_digest
    assert len(memo) == 3


def test_vidcom2_as_released_misses_the_budget_and_reconciles_it_in_vllm(run, sample) -> None:
    rounded = run(sample, 12 + 14, name="vidcom2", quirks={"counts_rounded_per_grid": True}, new=1).trace
    assert rounded.n_video != 14
    quirks = {"counts_rounded_per_grid": True, "reconciled_over_video": True}
    assert run(sample, 12 + 14, name="vidcom2", quirks=quirks, new=1).trace.n_video == 14


def test_vidcom2_statistics_do_not_depend_on_the_window(monkeypatch) -> None:
    from harness.compress import prune

    grids = torch.randn(9, 5, 16, generator=torch.Generator().manual_seed(1))
    whole = vidcom2.typicality(grids, torch.device("cpu"))
    monkeypatch.setattr(prune, "_WINDOW", 2)
    assert all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, vidcom2.typicality(grids, grids.device), strict=True)
    )


def test_evs_keeps_what_moves(run) -> None:
    """A still video in which one token changes at grid 4: that token comes right behind the first grid."""
    sample = Sample()
    still = sample.features.view(10, 6, -1)[:1].repeat(10, 1, 1)
    still[4:, 2] += torch.randn(32, generator=torch.Generator().manual_seed(0))
    sample.features = still.view(60, -1)
    assert kept_of(run, sample, "evs", 12 + 7) == [0, 1, 2, 3, 4, 5, 4 * 6 + 2]
    assert kept_of(run, sample, "evs", 12 + 3) == [0, 1, 2]
    assert len(kept_of(run, sample, "evs", 12 + 3, quirks={"first_grid_whole": True})) == 6


def test_evs_text_starts_at_the_grids_width_in_vllm(run, sample) -> None:
    ids = {
        quirk: run(sample, 40, name="evs", new=1, quirks={"text_at_grid_width": quirk}).trace.recording.cache.positions(
            0
        )
        for quirk in (False, True)
    }
    assert torch.equal(ids[False][:, :33], ids[True][:, :33])  # 5 of text and 28 of the video
    assert torch.equal(ids[False][:, 33:], sample.positions()[:, -7:])
    assert ids[True][:, 33:].tolist() == [list(range(5 + 3, 5 + 3 + 7))] * 3  # the grid is 3 tokens wide


def test_v_cast_gives_a_sharp_turn_more(run) -> None:
    """Straight movement, a turn at grid 5: it and the ends are bent, the others are not."""
    path = torch.tensor([[10.0, t if t < 5 else 10 - t] for t in range(11)])
    bends = v_cast.curvature(path[:, None, :].expand(-1, 4, -1), torch.device("cpu"))
    assert bends[5] > 1.5 and bends[[0, -1]].tolist() == [1, 1] and bends[[2, 3, 7, 8]].max() < 0.1
    counts = v_cast.counts_by_curvature(bends, 22, 4)
    assert sum(counts) == 22 and counts[5] == max(counts) > counts[3]
    assert v_cast.counts_by_curvature(bends, 3, 4) and sum(v_cast.counts_by_curvature(bends, 3, 4)) == 3


def test_dycoke_as_released_drops_an_odd_grid_and_sorts_by_likeness(run) -> None:
    sample = Sample(grids=9)
    assert run(sample, 12 + 50, name="dycoke", new=1, merge=0.7).trace.n_video == sum(dycoke.counts_at(0.7, 9, 6))
    quirks = {"odd_grid_dropped": True, "order_of_similarity": True}
    trace = run(sample, 12 + 50, name="dycoke", new=1, merge=0.7, quirks=quirks).trace
    assert trace.n_video == sum(dycoke.counts_at(0.7, 9, 6)[:-1])
    alike = dycoke.likeness(sample.features.view(9, 6, -1), torch.device("cpu"))
    order = dycoke.emission(torch.arange(54), alike, 6)
    assert order[:6].tolist() == list(range(6)) and sorted(order.tolist()) == list(range(54))
    second = alike[1][order[6:12] % 6]
    assert (second[1:] >= second[:-1]).all() and order.tolist() != list(range(54))
