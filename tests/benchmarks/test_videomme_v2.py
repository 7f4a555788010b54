"""Video-MME-v2 from the annotation to the report, on two videos of the toy; intervals of graded scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from videomme_v2_rows import videomme_v2_row

from harness.benchmarks.benchmark import benchmark, differences
from harness.benchmarks.questions import load_rows, subset_ids
from harness.errors import UserError
from harness.evidence.statistics import difference, score
from harness.settings.compose import compose_config


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from harness.toy.benchmarks import build

    root = tmp_path_factory.mktemp("made") / "data"
    build(root, scale=0.06)
    folder = root / "videomme_v2"
    (folder / "videos").mkdir(parents=True)
    for k, video in enumerate(sorted((root / "videomme" / "videos").iterdir())[:2]):
        shutil.copy(video, folder / "videos" / f"{k + 1:03}{video.suffix}")
    groups = {"001": ("relevance", None, "1"), "002": ("logic", "[1, [2, 3], 4]", "2")}
    rows = [videomme_v2_row(video, place, *group) for video, group in groups.items() for place in (1, 2, 3, 4)]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    return root


def test_from_the_annotation_to_the_report(root: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    from harness.fetch import verify
    from harness.lmms import score as scoring
    from harness.plan import plan
    from harness.report import report
    from harness.run import run

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("ADARETAKE_DATA", str(root))
    words = ["profile=toy", "matrix=ablation", "task=videomme_v2", "matrix.variant=[full]"]
    words += ["matrix.frames=[16]", "matrix.context=[300]", "engine.threads=1", "task.max_new_tokens=2"]
    config = compose_config([*words, f"data.root={root}", f"results={tmp_path / 'results'}"])
    assert verify.main(config) == 0 and "8 questions, 2 videos" in capsys.readouterr().out
    assert plan.main(config) == 0 and run.main(config) == 0 and scoring.main(config) == 0
    (record,) = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("runs/*/score.json")]
    assert record["scored_by"].startswith("lmms-eval") and record["parser"] == "videomme_v2"
    assert {"overall", "accuracy", "level_1", "level_2", "group_type_logic"} <= record["metrics"].keys()
    assert report.main(config) in (0, 1)
    page = (tmp_path / "results" / "report" / "report.md").read_text()
    assert "videomme_v2" in page
    own = (record["metrics"]["group_type_logic"] + record["metrics"]["group_type_relevance"]) / 2
    assert record["metrics"]["overall"] == pytest.approx(own)


def test_counts_are_the_published_ones_and_a_subset_takes_whole_groups(root: Path, task: Any) -> None:
    items = [item for _, item in load_rows(task("videomme_v2", "lmms_eval"), root)]
    found = differences(items, benchmark("videomme_v2"), "test")
    assert found == {"questions": "8 found, 3200 expected", "videos": "2 found, 800 expected"}
    ids = subset_ids(items, benchmark("videomme_v2"), 4)
    assert len(ids) == 4 and len({name[:3] for name in ids}) == 1


@pytest.mark.parametrize("change", [{"group_type": "other"}, {"group_structure": "[1, 2]", "group_type": "logic"}])
def test_a_group_that_no_rule_scores_is_refused(change: dict[str, str]) -> None:
    row = videomme_v2_row("001", 1, "relevance", None, "1") | change
    with pytest.raises(UserError, match="cannot be scored at place 1"):
        benchmark("videomme_v2").item(row)


GRADES = np.array([0, 1 / 16, 4 / 16, 9 / 16, 1])


def graded(generator: np.random.Generator, ability: np.ndarray) -> np.ndarray:
    return GRADES[generator.binomial(4, ability)]


@pytest.mark.parametrize("n", [40, 800])
def test_intervals_of_graded_scores_cover_what_they_say(n: int) -> None:
    """As wide as the values vary, not as coins of the same mean would."""
    generator, draws = np.random.default_rng(0), 300
    ability = generator.beta(1.0, 1.2, 200_000)
    first, second = graded(generator, ability), graded(generator, ability * 0.95)
    truth = 100 * first.mean(), 100 * (first - second).mean()
    inside, widths = np.zeros(2), np.zeros(2)
    for _ in range(draws):
        taken = generator.integers(0, len(ability), n)
        a, b = first[taken], second[taken]
        for k, found in enumerate((score(a, np.arange(n)), difference(a, b, np.arange(n)))):
            low, high = found.interval(0.95)
            inside[k] += low <= truth[k] <= high
            widths[k] += (high - low) / draws
    assert (inside / draws >= 0.93).all()
    if n == 800:
        exact = 3.92 * 100 / n**0.5 * np.array([first.std(), (first - second).std()])
        assert (widths < 1.05 * exact).all() and (inside / draws <= 0.98).all()


def test_values_of_zero_and_one_are_not_worth_more_than_they_are() -> None:
    values = np.arange(100) % 2
    assert 95 < score(values, np.arange(100)).n_eff <= 100
    assert score(values / 2 + 0.25, np.arange(100)).n_eff > 300
