"""Figures of cost: what one answer takes, and accuracy against the work of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from harness.report.cells import CellResult
from harness.report.costs import Cost, cost
from harness.report.scores import ScoreRow
from harness.report.style import CYCLE, MARKERS, MUTED, OURS, ROOM, ROW, WIDTH, label_rows, task_title, words_of

COST_PANELS: dict[str, Callable[[Cost], float | None]] = {
    "tokens kept": lambda spent: spent.kept,
    "seconds": lambda spent: spent.total,
    "GFLOP": lambda spent: None if spent.flops is None else spent.flops / 1e9,
    "peak GiB": lambda spent: None if spent.peak_memory is None else spent.peak_memory / 2**30,
}


def costs(cells: Sequence[CellResult]) -> Any | None:
    """Kept tokens, seconds per stage and language-model work per answer."""
    shown = [(cell, cost(cell)) for cell in cells]
    shown = [(cell, found) for cell, found in shown if found.kept is not None or found.total is not None]
    if not shown:
        return None
    import matplotlib.pyplot as plt

    panels = [title for title, has in COST_PANELS.items() if any(has(found) for _, found in shown)]
    size = (WIDTH + 1.2, ROOM + ROW * len(shown) + 0.3)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
    stages = sorted({stage for _, found in shown for stage in found.seconds})
    for axis, panel in zip(axes[0], panels, strict=True):
        axis.set_title(panel)
        axis.locator_params(axis="x", nbins=3)
        axis.grid(axis="y", visible=False)
        for y, (_, found) in enumerate(shown):
            if panel != "seconds":
                axis.barh(y, COST_PANELS[panel](found) or 0, color=OURS, height=0.6)
                continue
            left = 0.0
            for stage, colour in zip(stages, itertools.cycle(CYCLE)):
                width = found.seconds.get(stage, 0.0)
                axis.barh(y, width, left=left, color=colour, height=0.6, label=stage if y == 0 else None)
                left += width
    if stages:
        figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=len(stages))
    label_rows(axes[0, 0], [", ".join([cell.short_title, *words_of(cell, cells)]) for cell, _ in shown])
    return figure


def accuracy_cost(rows: Sequence[ScoreRow], confidence: float) -> Any | None:
    """Accuracy against language-model work per answer: a marker per benchmark, a colour per method."""
    spent = [(row, cost(row.cell).flops) for row in rows]
    points = [(flops / 1e9, row.estimate, row.cell) for row, flops in spent if flops is not None and row.estimate]
    if len({round(x, 9) for x, *_ in points}) < 2:
        return None
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(task_title(cell) for *_, cell in points))
    methods = list(dict.fromkeys(cell.short_title for *_, cell in points))
    colours = {method: CYCLE[i % len(CYCLE)] for i, method in enumerate(methods)}
    markers = {task: MARKERS[i % len(MARKERS)] for i, task in enumerate(tasks)}
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    for x, found, cell in points:
        colour = colours[cell.short_title]
        axis.plot([x, x], found.interval(confidence), color=colour, alpha=0.35, lw=1.2)
        axis.plot(x, found.value, markers[task_title(cell)], color=colour, ms=5.5, alpha=0.85)
    for method, colour in colours.items():
        axis.plot([], [], "o", color=colour, label=method)
    for task, marker in markers.items():
        axis.plot([], [], marker, color=MUTED, label=task)
    axis.set_xlabel("GFLOP of the language model per answer, counted from shapes")
    axis.set_ylabel("percent")
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=5)
    return figure
