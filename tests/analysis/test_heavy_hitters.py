"""Heavy hitters: the definition of the paper, twice."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from harness.cli import main
from harness.models.adapter import Adapter
from harness.models.families import open_model
from harness.tools.analysis.heavy_hitters import count, encode_to_files, heavy_hitters, received_attention
from harness.tools.analysis.heavy_study import chosen, per_layer
from harness.tools.analysis.spilled import Spill
from harness.toy import CHECKPOINT
from harness.toy.benchmarks import build, samples


@pytest.fixture(scope="module")
def toy() -> Adapter:
    return open_model(str(CHECKPOINT), device="cpu", attention="eager")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    build(folder, scale=0.1)
    return folder


@torch.inference_mode()
def test_the_streamed_ratio_is_that_of_the_stock_attention(toy: Adapter, tmp_path: Path) -> None:
    frames, question = next(samples(1, 96))
    spill = Spill(tmp_path)
    video = toy.encode(frames, second_per_grid=1.0)
    prompt = toy.prompt(question, video)
    embeds = toy.embed_text(prompt.input_ids).clone()
    embeds[prompt.video] = video.features
    states = toy.model.model.language_model(
        inputs_embeds=embeds[None], position_ids=prompt.positions[:, None], output_attentions=True
    )
    guide = slice(prompt.video_stop, prompt.n_prompt)
    stock = torch.stack([weights[0, :, guide].sum(1).mean(0) for weights in states.attentions])
    mass, hidden = received_attention(toy.language, prompt, (video.features,), spill, chunk_frames=16)
    assert torch.allclose(mass, stock, atol=2e-6)
    assert torch.allclose(hidden, states.last_hidden_state[0, -1], atol=1e-4)

    found = heavy_hitters(toy, video, question, spill, seconds=10.0, threshold=0.01, chunk_frames=16)
    n = video.tokens_per_grid
    # A second a grid: ten grids are a stretch.
    for layer, weights in enumerate(stock):
        of_video = weights[prompt.video].tolist()
        heavy = [value > 0.01 * max(of_video) for value in of_video]
        wanted = [sum(heavy[i : i + 10 * n]) for i in range(0, len(heavy), 10 * n)]
        assert found.heavy[layer] == wanted
    assert found.tokens == [10 * n] * 4 + [8 * n]
    assert 0 < sum(map(sum, found.heavy)) < 4 * len(of_video)


def test_features_in_files_are_the_features(toy: Adapter, tmp_path: Path) -> None:
    frames, _ = next(samples(1, 33))
    whole = toy.encode(frames)
    window, toy.window = toy.window, 8
    try:
        found = encode_to_files(toy, np.split(frames, [5, 21]), len(frames), 1.0, Spill(tmp_path))
    finally:
        toy.window = window
    assert (found.grid, found.tokens_per_grid) == (whole.grid, whole.tokens_per_grid)
    assert torch.allclose(found.features, whole.features, atol=1e-5)


def test_stretches_count_by_time_and_the_most_is_of_the_whole_video() -> None:
    prompt = SimpleNamespace(grid_lengths=(2, 2, 2), video=torch.tensor([1, 2, 4, 5, 6, 7]))
    mass = torch.tensor([[9.0, 1.0, 0.2, 9.0, 0.005, 0.02, 0.01, 0.3], [0, 0, 0, 0, 0, 1, 1, 1]])
    tokens, heavy = count(mass, prompt, [0.0, 9.9, 31.0], seconds=10.0, threshold=0.01)
    assert tokens == [4, 0, 0, 2]  # nothing is shown between 10 and 30 s
    assert heavy == [[3, 0, 0, 1], [1, 0, 0, 2]]  # exactly a hundredth of the most is not more


def test_one_question_of_each_video_evenly_spread() -> None:
    questions = [
        SimpleNamespace(video=f"{i // 2}.mp4", question_id=i, problem="broken" if i == 0 else None) for i in range(20)
    ]
    assert [q.question_id for q in chosen(questions, None)] == [1, *range(2, 20, 2)]
    assert [q.question_id for q in chosen(questions, 4)] == [1, 4, 10, 14]


def test_the_verb_writes_figures_and_numbers(root: Path, tmp_path: Path, capsys) -> None:
    words = [f"data.root={root}", f"results={tmp_path}", "video.max_frames=48", "videos=3", "model.device=cpu"]
    assert main(["analyze", "heavy_hitters", *words]) == 0
    folder = tmp_path / "analysis" / "heavy_hitters"
    names = {path.name for path in folder.iterdir()}
    assert names == {"heatmap.svg", "layers.svg", "stretches.csv", "layers.csv", "measured.csv"}
    ratios, layers = pd.read_csv(folder / "stretches.csv"), pd.read_csv(folder / "layers.csv")
    measured = pd.read_csv(folder / "measured.csv")
    assert len(layers) == 3 * 4 and set(ratios.groupby("video")["layer"].nunique()) == {4}
    assert (ratios["ratio"] == ratios["heavy"] / ratios["tokens"]).all()
    assert (per_layer(ratios)["heavy"] == layers["heavy"]).all()
    assert list(measured["tokens"]) == list(layers.groupby("video", sort=False)["tokens"].first())
    assert (measured["peak_bytes"] > 0).all()
    assert "left out" not in capsys.readouterr().out
    assert (folder / "layers.svg").read_text().startswith("<svg")


def test_a_broken_video_is_left_out_and_said(root: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    from harness.tools.analysis import heavy_study

    opened = heavy_study.open_sampled
    seen: list[Path] = []

    def breaks_first(path: Path, *args):
        seen.append(path)
        return opened(path if len(seen) > 1 else tmp_path / "no.mp4", *args)

    monkeypatch.setattr(heavy_study, "open_sampled", breaks_first)
    words = [f"data.root={root}", f"results={tmp_path / 'r'}", "video.max_frames=16", "videos=2", "model.device=cpu"]
    assert main(["analyze", "heavy_hitters", *words]) == 1
    assert "left out: toy" in capsys.readouterr().out
    monkeypatch.setattr(heavy_study, "open_sampled", lambda path, *args: opened(tmp_path / "no.mp4", *args))
    assert main(["analyze", "heavy_hitters", *words]) == 2
    assert "none of 2 videos could be analysed" in capsys.readouterr().err


def test_an_analysis_that_there_is_not_is_named(capsys) -> None:
    assert main(["analyze", "light_hitters"]) == 2
    assert "no analysis 'light_hitters'; allowed: heavy_hitters" in capsys.readouterr().err
