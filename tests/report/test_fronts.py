"""Accuracy against cost: the front, what is left out, and that every panel is drawn."""

import pytest
from cell_folders import context, questions, rewrite, write_cell

from harness.evidence.loading import load_cells
from harness.evidence.statistics import score
from harness.report.costs import entries
from harness.report.figures import MEASURES, Point, draw, front, points_of
from harness.store import read_manifest, write_manifest


def point(at, right):
    return Point("m", "1", at, score([1.0] * right + [0.0] * (10 - right), list(range(10))), True)


def test_the_front_holds_what_no_other_point_beats():
    cheap, same_but_dearer, worse, better = point(1, 5), point(2, 5), point(3, 4), point(4, 8)
    assert front([better, worse, same_but_dearer, cheap]) == [cheap, better]
    assert front([point(1, 3), best := point(1, 6)]) == [best]


@pytest.fixture
def cells(tmp_path):
    asked = questions("lvbench", 4, 2)
    for i, method in enumerate(("fastv", "stride", "random")):
        for tokens in (100, 200):
            right = [True] * (2 + i + tokens // 100) + [False] * (6 - i - tokens // 100)
            folder = write_cell(
                tmp_path,
                asked,
                right,
                method__name=method,
                context=tokens,
                digest=f"{i}{tokens}",
                model__name="qwen2_5_vl_7b",
            )
            took = {"cache_length": [tokens, tokens + 10], "peak_memory": None if method == "random" else tokens << 20}
            rewrite(folder, lambda _, record, took=took: record | took)
    return tmp_path


def test_unknown_costs_and_other_machines_are_left_out_and_counted(cells):
    found = entries(context(load_cells(cells)))
    assert len(points_of(found, MEASURES["slots"])[0]) == 6 and points_of(found, MEASURES["slots"])[1] == ""
    points, left = points_of(found, MEASURES["memory"])
    assert sorted(p.at for p in points) == [100 / 1024] * 2 + [200 / 1024] * 2 and left == "2 of unknown cost"
    folder = found[0].cells[0].folder
    manifest = read_manifest(folder)
    object.__setattr__(manifest, "device", "NVIDIA H200")
    write_manifest(folder, manifest)
    found = entries(context(load_cells(cells)))
    assert points_of(found, MEASURES["seconds"])[1] == "1 of another machine"
    assert points_of(found, MEASURES["gflop"])[1] == ""


def test_one_figure_per_benchmark_with_a_panel_per_cost(cells):
    found = entries(context(load_cells(cells)))
    ((name, caption, figure),) = draw(found, 0.95)
    assert name == "front_lvbench" and "memory: 2 of unknown cost" in caption
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert labels == [MEASURES[cost].label for cost in ("slots", "gflop", "memory")]  # seconds: all the same
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"fastv 100", "stride 200"} <= texts
    ((_, _, figure),) = draw(found, 0.95, "slots")
    assert len(figure.axes) == 1
