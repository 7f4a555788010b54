"""What one answer takes, as a figure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from harness.evidence.cells import CellResult
from harness.report.costs import Cost, cost
from harness.report.style import CYCLE, OURS, ROOM, ROW, WIDTH, label_rows, words_of

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
