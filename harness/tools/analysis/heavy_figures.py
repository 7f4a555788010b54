"""Figures 3 and 4 of the paper: heavy hitters along a video, and by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from harness.report.style import INK, OURS, WIDTH

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
