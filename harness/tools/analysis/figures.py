"""The figures of the analyses: heavy hitters along a video and by layer (figures 3 and 4 of the paper), the bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.report.style import CYCLE, INK, MARKERS, OURS, WIDTH

GUARANTEE = 1 - 1 / math.e
"""What the greedy choice reaches of the best, at least."""


def write_figure(path: Path, draw: Callable[..., Any], *args: Any) -> None:
    """Draw a figure in the report's style, and write it as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from harness.report.figures import svg
    from harness.report.style import STYLE

    with plt.rc_context(STYLE):
        figure = draw(*args)
    path.write_text(svg(figure), encoding="utf-8")
    plt.close(figure)


MOST_NAMED = 24
"""Rows of a heatmap that are named one by one."""


def heatmap(ratios: pd.DataFrame, setting: str, seconds: float) -> Any:
    """Share of heavy hitters in each stretch: of every video, mean of the layers; of every layer, mean of the videos.

    Args:
        ratios: a row per video, layer and stretch.
        setting: what was analysed.
        seconds: length of a stretch.
    """
    import matplotlib.pyplot as plt

    panels = [("video", "mean of all layers"), ("layer", "mean of all videos")]
    tables = [ratios.pivot_table(index=key, columns="start_s", values="ratio", sort=False) for key, _ in panels]
    tables = [table.reindex(sorted(table.columns), axis=1) for table in tables]
    heights = [0.7 + 0.16 * min(len(table), 40) for table in tables]
    figure = plt.figure(figsize=(WIDTH, 0.6 + sum(heights)), layout="constrained")
    axes = figure.subplots(2, 1, height_ratios=heights)
    most = max(float(np.nanmax(table.to_numpy())) for table in tables)
    mesh: Any = None
    for axis, table, (key, text) in zip(axes, tables, panels, strict=True):
        edges = np.append(table.columns.to_numpy(dtype=float), float(table.columns.max()) + seconds)
        rows = np.arange(len(table) + 1) - 0.5
        mesh = axis.pcolormesh(
            edges, rows, 100 * table.to_numpy(), cmap="viridis", vmin=0, vmax=100 * most, rasterized=True
        )
        axis.invert_yaxis()
        axis.grid(visible=False)
        axis.set_title(f"Heavy hitters in {seconds:g} s: {text}")
        axis.set_ylabel(key)
        if key == "video" and len(table) <= MOST_NAMED:
            axis.set_yticks(range(len(table)), table.index, fontsize=7)
        else:
            axis.locator_params(axis="y", integer=True)
    axes[-1].set_xlabel(f"seconds from the start\n{setting}")
    figure.colorbar(mesh, ax=axes, label="percent of the tokens", fraction=0.05, aspect=30)
    return figure


def boxes(layers: pd.DataFrame, setting: str) -> Any:
    """Share of heavy hitters by layer: a box over the videos, its whiskers to the least and the most.

    Args:
        layers: a row per video and layer.
        setting: what was analysed.
    """
    import matplotlib.pyplot as plt

    numbers = sorted(layers["layer"].unique())
    values = [100 * layers.loc[layers["layer"] == number, "ratio"].to_numpy() for number in numbers]
    figure, axis = plt.subplots(figsize=(WIDTH, 3.0), layout="constrained")
    look = {"color": OURS}
    axis.boxplot(
        values, positions=range(len(numbers)), whis=(0, 100), widths=0.55, boxprops=look, whiskerprops=look,
        capprops=look, medianprops={"color": INK, "linewidth": 1.6},
    )  # fmt: skip
    step = -(-len(numbers) // 14)
    axis.set_xticks(range(0, len(numbers), step), [str(number) for number in numbers[::step]])
    axis.set_ylim(bottom=0)
    axis.set_title("Heavy hitters by layer")
    axis.set_xlabel(f"layer\n{setting}")
    axis.set_ylabel("percent of the video's tokens")
    return figure


def bound_figure(drawn: pd.DataFrame, errors: pd.DataFrame, setting: str) -> Any:
    """Two panels.

    Args:
        drawn: a row per instance: gains of `greedy`, `pooled`, `even` as shares of the best.
        errors: a row per answer: its `choice`, kept `log_mass`, and the error of its `logits`.
        setting: what was run.
    """
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(WIDTH, 6.0), layout="constrained")
    shares, answers = figure.subplots(2, 1)
    for i, name in enumerate(("greedy", "pooled", "even")):
        ordered = drawn[name].sort_values().to_numpy()
        ranks = [(rank + 1) / len(ordered) for rank in range(len(ordered))]
        shares.step(ordered, ranks, where="post", color=CYCLE[i], lw=1.8, label=name)
    shares.axvline(GUARANTEE, color=INK, lw=1, ls="--", label="1 − 1/e")
    shares.set_title("Gain in log-mass as a share of the best")
    shares.set_xlabel(f"share of the best of {len(drawn)} small instances")
    shares.set_ylabel("share of instances below")
    shares.legend(frameon=False)
    for i, choice in enumerate(errors["choice"].unique()):
        of_choice = errors[errors["choice"] == choice]
        answers.plot(
            of_choice["log_mass"], 100 * of_choice["logits"], MARKERS[i], color=CYCLE[i], ms=4, alpha=0.7, label=choice
        )
    answers.set_title("Error of the output against kept mass (measured)")
    answers.set_xlabel(f"log of the product over layers of kept mass\n{setting}")
    answers.set_ylabel("error of the logits, percent")
    answers.legend(frameon=False)
    return figure
