"""The waterfall as a figure."""

from __future__ import annotations

from typing import Any

from harness.report.style import INK, MUTED, OURS, ROOM, ROW, THEIRS, WIDTH, label_rows
from harness.tools.bridge.measure import Waterfall


def draw(found: Waterfall, confidence: float) -> Any:
    """One row per factor from the score of A on top to that of B; bars run from the score before to the score after."""
    import matplotlib.pyplot as plt

    steps = [*found.steps, found.remainder]
    labels = ["A", *(step.text for step in steps), "B"]
    figure = plt.figure(figsize=(WIDTH, ROOM + ROW * len(labels)), layout="constrained")
    axis = figure.subplots()
    before = found.start
    reached = [found.start, found.end]
    for row, step in enumerate(steps, start=1):
        told = step.low > 0 or step.high < 0
        colour = (OURS if step.value > 0 else THEIRS) if told else MUTED
        axis.barh(
            row, step.value, left=before, height=0.62, color=colour, alpha=0.45 if step is found.remainder else 0.9
        )
        axis.plot([before + step.low, before + step.high], [row, row], color=INK, lw=1.1)
        axis.plot([before + step.value] * 2, [row, row + 1], color=MUTED, lw=0.7)
        axis.annotate(
            f"{step.value:+.2f}", (max(before + step.high, before), row), (4, 0), textcoords="offset points",
            va="center", fontsize=7, color=INK,
        )  # fmt: skip
        reached += [before + step.low, before + step.high]
        before += step.value
    axis.plot(found.start, 0, "D", color=INK, ms=5)
    axis.plot(found.end, len(labels) - 1, "D", color=INK, ms=5)
    for at, row in ((found.start, 0), (found.end, len(labels) - 1)):
        axis.annotate(f"{at:.2f}", (at, row), (6, 0), textcoords="offset points", va="center", fontsize=7, color=INK)
    low, high = min(reached), max(reached)
    room = 0.12 * max(high - low, 1.0)
    axis.set_xlim(low - room, high + 2 * room)
    label_rows(axis, labels)
    axis.set_xlabel(f"percent; lines: {100 * confidence:g} % intervals of paired differences; grey: not told from zero")
    return figure
