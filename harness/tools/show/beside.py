"""One picture of several cells on one question: the same frames, a row per cell, with what each kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.tools.show.again import Again
from harness.tools.show.figure import budget, layers, one_line, tile_of
from harness.tools.show.kept import choose_grids, clock

COLUMNS = 6
"""Frames."""


def draw_beside(path: Path, shown: Sequence[Again], labels: Sequence[str], question: str) -> None:
    """Write the picture; of cells that recorded nothing only the answer stands there.

    Args:
        path: of the file; its folder is there.
        shown: cells with the same frames.
        labels: of each cell.
        question: above all.
    """
    from matplotlib.figure import Figure

    shares = [again.kept.share for again in shown if again.kept is not None]
    frames = shown[0].frames
    chosen = choose_grids(np.mean(shares, axis=0), list(frames), COLUMNS)
    first = frames[chosen[0]]
    tall = 1.75 * min(max(first.shape[0] / first.shape[1], 0.5), 1.3) + 0.75
    heights = [0.6, *(0.6 if again.kept is None else tall for again in shown)]
    figure = Figure(figsize=(19, sum(heights)), dpi=110, layout="constrained", facecolor="white")
    areas: Any = figure.subfigures(len(shown) + 1, 1, height_ratios=heights)
    head, *rows = areas
    head.text(0.005, 0.5, one_line(question), fontsize=13, weight="bold", va="center")
    shares = [a.kept.of_chunks.max() for a in shown if a.kept is not None and a.generation.trace.compressed]
    most = max(shares, default=1.0)
    for row, again, label in zip(rows, shown, labels, strict=True):
        _row(row, again, label, chosen, max(float(most), 1e-9))
    figure.savefig(path)


def _row(area: Any, again: Again, label: str, chosen: Sequence[int], most: float) -> None:
    mark = "" if not again.differs else "   (not the stored answer)"
    title = one_line(f"{label}:  {again.text or '(empty)'}{mark}")
    area.suptitle(title, x=0.005, ha="left", fontsize=11, color="#b3261e" if again.differs else "#222222")
    if again.kept is None:
        area.text(0.005, 0.2, "what is kept is not recorded", fontsize=9, color="#555555")
        return
    axes = area.subplots(1, COLUMNS + 2, width_ratios=[*[1.0] * COLUMNS, 1.9, 1.9])
    for axis in axes[:COLUMNS]:
        axis.set_axis_off()
    share = again.kept.share
    for axis, grid in zip(axes, chosen, strict=False):
        tile_of(axis, again.frames[grid], share[grid])
        axis.set_title(f"{clock(again.timeline.grids[grid])}  {share[grid].mean():.0%}", fontsize=9, color="#333333")
    budget(axes[-2], again.kept, again.timeline, chosen)
    mesh = layers(axes[-1], again.kept, again.timeline, most)
    area.colorbar(mesh, ax=axes[-1], format=lambda value, _: f"{value:.0%}")
    for axis, name in ((axes[-2], "budget over time"), (axes[-1], "share kept, by layer and chunk")):
        axis.set_title(name, loc="left", fontsize=9, color="#333333")
        axis.tick_params(labelsize=8)
