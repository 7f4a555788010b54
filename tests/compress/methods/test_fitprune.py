"""FitPrune: the fit and its recipe, and what it keeps, each against a slow derivation; a recipe is part of a cell."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from dense import Chunk, best, even_budgets, evicted
from tiny_models import Sample, decoder

from harness.cli import main
from harness.compress.allocation import allocate
from harness.compress.generate import generate
from harness.compress.method import build_method
from harness.compress.methods.fitprune import (
    TARGETS,
    Recipe,
    RecipeRow,
    fit_command,
    fit_recipe,
    read_recipe,
    removed_at,
)
from harness.errors import UserError
from harness.models.families import open_model
from harness.settings.compose import compose_config
from harness.settings.matrix import build_cells
from harness.toy import CHECKPOINT

CONTEXT = 40


def logits(answer) -> torch.Tensor:
    return answer.trace.recording.logits[0]


def cross_and_own(chunk: Chunk, layer: int) -> tuple[list[float], list[float]]:
    """Token by token, the largest over heads first."""
    weights = chunk.layers[layer].weights
    cross, own = [], []
    for token in chunk.video.tolist():
        cross.append(sum(float(weights[:, row, token].max()) for row in chunk.guide.tolist()) / len(chunk.guide))
        own.append(sum(float(weights[:, row, token].max()) for row in chunk.video.tolist()) / len(chunk.video))
    return cross, own


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.json"
    Recipe("w", 1, [RecipeRow(0.5, 0.1, [0.9, 0.4, 0.2]), RecipeRow(0.25, 0.3, [0.6, 0.1, 0.05])]).write(path)
    return path


def test_it_is_what_a_dense_pass_behind_masks_gives(model, run, recipe: Path) -> None:
    sample = Sample()
    budgets = even_budgets(sample, CONTEXT, 2)

    def rule(chunk: Chunk):
        counts = allocate([0.9, 0.4, 0.2], 3 * budgets[chunk.number], [12] * 3)  # 28 of 60 tokens: nearer to a half
        kept, alive = [], torch.arange(12)
        for layer in range(3):
            cross, own = cross_and_own(chunk, layer)
            scores = torch.tensor([c * o for c, o in zip(cross, own, strict=True)])
            alive = alive[best(scores[alive], counts[layer])]
            kept.append(alive)
        return kept

    expected, last = evicted(model, sample, 2, rule)
    got = run(sample, CONTEXT, name="fitprune", recipe=str(recipe))
    assert sum(got.trace.cache_length) == 3 * CONTEXT
    for of_chunk, theirs in zip(got.trace.recording.kept_indices, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(of_chunk, theirs, strict=True))
    assert torch.allclose(logits(got), last, atol=1e-4)
    small = run(sample, 12 + 15, name="fitprune", recipe=str(recipe)).trace  # a quarter: the other row
    assert small.kept[0] == allocate([0.6, 0.1, 0.05], 9, [12] * 3) != allocate([0.9, 0.4, 0.2], 9, [12] * 3)


def test_a_token_is_removed_where_both_attentions_let_it() -> None:
    cross, own = torch.tensor([4.0, 1.0, 3.0, 2.0]), torch.tensor([1.0, 5.0, 1.0, 3.0])
    # below and with it: cross 10, 1, 6, 3 of 10; own 1, 10, 2, 5 of 10
    assert removed_at(cross, own).tolist() == pytest.approx([1.0, 1.0, 0.6, 0.5])


def test_the_fit_is_that_of_bisection() -> None:
    """Second derivation: sets of tokens, layer by layer, at an alpha that is bisected until the target is met."""
    generator = torch.Generator().manual_seed(0)
    masses = [torch.rand(2, 3, 40, generator=generator) for _ in range(4)]  # cross and own, layers, tokens
    chunks = [[removed_at(m[0, layer], m[1, layer]) for layer in range(3)] for m in masses]

    def shares(alpha: float) -> list[float]:
        left_of_all = torch.zeros(3)
        for m in masses:
            left = set(range(40))
            for layer in range(3):
                for_removal = []
                for mass in m[:, layer]:
                    total, taken, low = float(mass.sum()), 0.0, set()
                    for token in torch.argsort(mass).tolist():
                        taken += float(mass[token])
                        if taken > alpha * total + 1e-9:
                            break
                        low.add(token)
                    for_removal.append(low)
                left -= for_removal[0] & for_removal[1]
                left_of_all[layer] += len(left) / 40 / 4
        return left_of_all.tolist()

    fitted = fit_recipe(chunks, "w", 4)
    assert [row.target for row in fitted.rows] == list(TARGETS)
    for row in fitted.rows[:8]:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if sum(shares(middle)) / 3 <= row.target + 1e-6 else (middle, high)
        assert row.kept == pytest.approx(shares(high), abs=1e-6) and row.alpha == pytest.approx(high, abs=1e-6)
        assert sum(row.kept) / 3 <= row.target + 1e-9 and row.kept == sorted(row.kept, reverse=True)


def test_calibration_keeps_everything_and_records_what_the_fit_needs(model, run) -> None:
    sample, method = Sample(), build_method("fitprune", chunk_frames=4).calibrator()
    got = generate(
        decoder(model), method, sample.prompt(), (sample.features,), max_new_tokens=1, record=True
    )  # without a context
    assert torch.allclose(logits(got), logits(run(sample, None, name="none")), atol=1e-4)
    expected: list[torch.Tensor] = []

    def rule(chunk: Chunk):
        for layer in range(3):
            expected.append(removed_at(*(torch.tensor(x) for x in cross_and_own(chunk, layer))))
        return [torch.arange(12)] * 3

    evicted(model, sample, 2, rule)
    scores = [of_layer for of_chunk in got.trace.recording.scores for of_layer in of_chunk]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(scores, expected, strict=True))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "recipe=.*does not exist.*fit method=fitprune"),
        ("no json", "is no recipe.*fit it again"),
        ('{"weights": "w", "samples": 1, "rows": []}', "rows that differ in layers, or none"),
        (
            json.dumps({"weights": "w", "samples": 1, "rows": [{"target": 0.5, "alpha": 0.1, "kept": [0.5]}]}),
            "1 layers",
        ),
    ],
)
def test_a_recipe_that_is_none_is_named_with_the_command(run, tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "recipe.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=says):
        run(Sample(), CONTEXT, name="fitprune", recipe=str(path))
    with pytest.raises(UserError, match="method.recipe=null.*fit method=fitprune"):
        run(Sample(), CONTEXT, name="fitprune")


def test_a_changed_recipe_makes_another_cell_and_a_missing_one_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"

    def cells(problems=None):
        words = ["matrix.task=[mlvu]", "method=fitprune", f"method.recipe={path}"]
        return build_cells(compose_config(words), problems)

    problems: list[str] = []
    cells(problems)
    assert len(problems) == 1 and problems[0].endswith("method=fitprune")
    with pytest.raises(UserError, match="does not exist"):
        cells()
    row = RecipeRow(0.5, 0.1, [0.9, 0.4, 0.2, 0.1])
    weights = cells(problems)[0].weights
    ids = []
    for rows in ([row], [dataclasses.replace(row, alpha=0.2)], [row]):
        Recipe(weights, 1, rows).write(path)
        ids.append(cells()[0].id)
    assert ids[0] == ids[2] != ids[1]
    planned = cells()[0].method
    Recipe(weights, 2, [row]).write(path)
    toy = open_model(str(CHECKPOINT), device="cpu")
    video = toy.encode(np.zeros((8, 112, 112, 3), np.uint8), second_per_grid=1.0)
    with pytest.raises(UserError, match="has changed since the run was planned"):
        toy.answer(video, "What?", planned, 40)
    Recipe("others", 1, [row]).write(path)
    with pytest.raises(UserError, match="fitted for other weights"):
        cells()


def test_a_run_without_its_recipe_is_refused_with_the_command_that_makes_it(tmp_path: Path, capsys) -> None:
    words = ["profile=published", f"model.path={CHECKPOINT}", f"data.root={tmp_path}", f"results={tmp_path}"]
    assert main(["plan", "matrix=methods", *words, "task.subset=mini"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("- method.recipe=")]
    assert "results/recipes/fitprune-qwen2_5_vl_7b.json does not exist" in line
    made = f"harness fit {' '.join(words)} method=fitprune fit.samples=FILE"
    assert line.endswith(made)
    assert fit_command([*words, "fit.samples=f"]).endswith("method=fitprune fit.samples=f")


def test_the_verb_fits_on_the_toy_and_the_toys_recipe_is_there(tmp_path: Path, capsys, monkeypatch) -> None:
    path = tmp_path / "fitted" / "recipe.json"
    words = ["fit", "method=fitprune", f"method.recipe={path}", "fit.toy_videos=2", "matrix.frames=[32]"]
    assert main(words) == 0 and "2 questions" in capsys.readouterr().out
    first, digest = read_recipe(str(path))
    assert len(first.rows[0].kept) == 4 and first.samples == 2
    assert main([*words, "fit.toy_videos=3"]) == 2  # never replaced: cells may be answered under it
    said = capsys.readouterr().err
    assert f"mv {path} {path}.old" in said and "method.recipe=FILE" in said and read_recipe(str(path))[1] == digest
    path.rename(f"{path}.old")
    assert main(words) == 0 and read_recipe(str(path)) == (first, digest)  # the same to the bit
    monkeypatch.chdir(tmp_path)  # the recipe that comes with the product is found from anywhere
    assert main(["fit", "method=fitprune"]) == 2 and "fitprune-toy.json is there already" in capsys.readouterr().err
    assert all(b.kept <= a.kept for a, b in zip(first.rows, first.rows[1:], strict=False))
    shipped = build_cells(compose_config(["matrix.task=[mlvu]", "method=fitprune"]))[0].method
    assert shipped.recipe_digest is not None


def test_samples_must_be_readable_and_not_the_tests(tmp_path: Path, capsys) -> None:
    (tmp_path / "data").mkdir()
    for name in ("own.mp4", "data/test.mp4"):
        (tmp_path / name).touch()
    file = tmp_path / "samples.jsonl"
    words = ["fit", "method=fitprune", f"fit.samples={file}", f"data.root={tmp_path / 'data'}"]
    for content, says in (
        (None, "cannot be read"),
        ("", "is empty"),
        ("own.mp4", "line 1 is not of the form"),
        ('\n{"video": "none.mp4", "question": "What?"}', "line 2: .*none.mp4 is not a file"),
        ('{"video": "data/test.mp4", "question": "What?"}', "among the videos of the tests"),
    ):
        if content is not None:
            file.write_text(content)
        assert main(words) == 2
        error = capsys.readouterr().err.replace("\n", " ")
        assert re.search(says, error), error
    assert main(["fit", "method=none"]) == 2 and "has nothing to fit" in capsys.readouterr().err
