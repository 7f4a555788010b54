"""Appendix A: what is proven holds, the pooled choice has its counter-example, and errors fall as kept mass rises."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from harness.cli import main
from harness.compress.allocation import top_hits
from harness.compress.trace import Recording
from harness.models.families import open_model
from harness.tools.analysis.bound_study import (
    GUARANTEE,
    Instance,
    errors,
    instances,
    judged,
    kept_mass,
    rank_correlation,
)
from harness.toy import CHECKPOINT
from harness.toy.benchmarks import build, samples

DRAWN = list(instances(60, seed=1))


@pytest.mark.parametrize("instance", DRAWN[:25], ids=lambda i: f"{tuple(i.scores.shape)}-{i.budget}")
def test_the_highest_scores_of_all_layers_are_the_largest_sum(instance: Instance) -> None:
    hits = top_hits(list(instance.scores), instance.total)
    most = max(instance.score(counts) for counts in instance.allocations(least=0))
    assert instance.score(hits) == pytest.approx(most, abs=1e-12)
    assert instance.score(hits) >= instance.score(instance.even()) - 1e-12


@pytest.mark.parametrize("instance", DRAWN, ids=lambda i: f"{tuple(i.scores.shape)}-{i.budget}")
def test_greedy_by_gain_is_the_best(instance: Instance) -> None:
    best, greedy = instance.gain(instance.best()), instance.gain(instance.greedy())
    assert sum(instance.greedy()) == instance.total
    assert greedy == pytest.approx(best, abs=1e-9)
    assert greedy >= GUARANTEE * best - 1e-12


def test_the_best_of_counts_is_the_best_of_sets() -> None:
    """Over all sets of tokens, for an instance of ten tokens."""
    instance = next(i for i in instances(200, seed=2) if tuple(i.scores.shape) == (2, 5) and i.budget == 2)
    mass = instance.scores / instance.scores.sum(1, keepdim=True)
    found = []
    for chosen in itertools.combinations(range(10), 4):
        held = [sum(float(mass[t // 5, t % 5]) for t in chosen if t // 5 == layer) for layer in range(2)]
        found += [sum(map(math.log, held))] if all(held) else []
    assert instance.log_mass(instance.best()) == pytest.approx(max(found), abs=1e-9)


def test_log_mass_is_submodular_and_monotone() -> None:
    """A token gains less, never nothing, the more its layer keeps."""
    for instance in DRAWN[:20]:
        layers, length = instance.scores.shape
        counts = [1] * layers
        for layer in range(layers):
            gains = []
            for k in range(1, length):
                fewer, more = list(counts), list(counts)
                fewer[layer], more[layer] = k, k + 1
                gains.append(instance.gain(more) - instance.gain(fewer))
            assert all(gain >= -1e-12 for gain in gains)
            assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(gains))


def test_pooled_by_score_may_fall_below_the_guarantee() -> None:
    """Two layers: one spreads its attention over 25 tokens, the other over 26. The first takes all but one."""
    scores = torch.tensor([[1 / 25] * 25 + [0.0], [1 / 26] * 26])
    instance = Instance(scores, budget=13)
    assert instance.pooled() == [25, 1]
    assert instance.gain(instance.best()) == pytest.approx(2 * math.log(13), abs=1e-6)
    share = judged(instance)["pooled"]
    assert share == pytest.approx(math.log(25) / (2 * math.log(13)), abs=1e-6) and share < GUARANTEE
    assert judged(instance)["greedy"] == pytest.approx(1)


def test_on_random_instances_pooled_beats_even() -> None:
    found = pd.DataFrame([judged(instance) for instance in DRAWN])
    assert found["pooled"].mean() > found["even"].mean()
    assert (found["pooled"] <= 1 + 1e-9).all() and (found["greedy"] >= 1 - 1e-9).all()


def test_kept_mass_is_the_share_of_the_scores() -> None:
    scores = [[torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])], None, [torch.tensor([5.0]), torch.tensor([4.0])]]
    kept = [[torch.tensor([1]), torch.tensor([0])], None, [torch.tensor([0]), torch.tensor([0])]]
    assert kept_mass(Recording(scores, kept, torch.empty(0), None)) == pytest.approx([0.875, 0.75])


def test_errors_fall_as_kept_mass_rises() -> None:
    """Measured on the toy, not proven: at equal budgets, less mass is a larger error."""
    toy = open_model(str(CHECKPOINT), device="cpu", attention="sdpa")
    rows = []
    for number, (frames, question) in enumerate(samples(3, 96)):
        video = toy.encode(frames, second_per_grid=1.0)
        rows += [{"video": number, **row} for row in errors(toy, video, question, chunk_frames=16)]
    found = pd.DataFrame(rows)
    assert len(found) == 3 * 4 * 3
    assert rank_correlation(found) < -0.6
    means = found.groupby("choice")[["log_mass", "logits"]].mean()
    assert means.loc["pooled", "log_mass"] > means.loc["at random", "log_mass"] + 0.5
    assert means.loc["pooled", "logits"] < means.loc["at random", "logits"]
    assert (found["log_mass"] < 0).all() and (found["tokens"].between(0, 1)).all()


def test_the_verb_writes_the_figure_and_the_numbers(tmp_path: Path, capsys) -> None:
    root = tmp_path / "data"
    build(root, scale=0.05)
    words = [f"data.root={root}", f"results={tmp_path}", "video.max_frames=32", "videos=1", "instances=20"]
    assert main(["analyze", "bound", *words, "model.device=cpu"]) == 0
    folder = tmp_path / "analysis" / "bound"
    assert {path.name for path in folder.iterdir()} == {"bound.svg", "instances.csv", "errors.csv"}
    assert len(pd.read_csv(folder / "instances.csv")) == 20
    said = capsys.readouterr().out
    assert "(measured)" in said and "(proven: 1 - 1/e = 0.632)" in said
