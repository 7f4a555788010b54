"""A bridge in print: the table on the terminal, ``bridge.md``, ``bridge.json`` and the waterfall as a figure."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.records import made_folder
from harness.report.figures import svg
from harness.report.style import INK, MUTED, OURS, ROOM, ROW, STYLE, THEIRS, WIDTH, label_rows
from harness.tools.bridge.chain import Bridge
from harness.tools.bridge.measure import Step, Waterfall

_HEADS = ("factor", "points", "interval", "score", "right / wrong", "")
_FIGURES = ("waterfall", "waterfall_reverse")
_COUNTS = ("start", "end", "difference", "n", "videos", "only_a", "only_b")


def print_bridge(bridge: Bridge, waterfalls: Sequence[Waterfall], rejected: Sequence[str], console: Console) -> None:
    """Print one table per chain, with notes."""
    console.print(f"A: {bridge.a.title}\nB: {bridge.b.title}", markup=False, highlight=False)
    for waterfall in waterfalls:
        table = Table(*_HEADS)
        for row in _rows(waterfall):
            table.add_row(*map(escape, row))
        console.print(table, soft_wrap=False)
    for line in _notes(bridge, waterfalls, rejected):
        console.print(line, markup=False, highlight=False)


def _rows(waterfall: Waterfall) -> list[tuple[str, ...]]:
    """A, one row per factor, the remainder, B."""
    steps = [*waterfall.steps, waterfall.remainder]
    return [
        ("A", "", "", f"{waterfall.start:.2f}", "", ""),
        *(_row(step) for step in steps),
        ("B", f"{waterfall.difference:+.2f}", "", f"{waterfall.end:.2f}", "", "B - A"),
    ]


def _row(step: Step) -> tuple[str, ...]:
    flips = "" if step.gained is None else f"+{step.gained} / -{step.lost}"
    said = [step.verdict] if step.verdict else []
    said += [f"{step.failed} failed answers"] if step.failed else []
    return (
        step.text, f"{step.value:+.2f}", f"{step.low:+.2f} to {step.high:+.2f}", f"{step.score:.2f}", flips,
        ", ".join(said),
    )  # fmt: skip


def _notes(bridge: Bridge, waterfalls: Sequence[Waterfall], rejected: Sequence[str]) -> list[str]:
    """Notes below the table."""
    first = waterfalls[0]
    notes = [f"{first.n} questions about {first.videos} videos are shared by all cells of the chain"]
    apart = [(name, n) for name, n in (("A", first.only_a), ("B", first.only_b)) if n]
    notes += [f"{n} questions of {name} are not among them and do not count here" for name, n in apart]
    notes += [
        f"not changed: {factor.text}: {why.rstrip('.')}; its effect is part of the unexplained difference"
        for factor, why in first.left
    ]
    notes += [f"not taken: {candidate}" for candidate in rejected]
    if len(waterfalls) > 1:
        there, back = ({step.name: step.value for step in waterfall.steps} for waterfall in waterfalls[:2])
        notes += [
            f"{name}: {value:+.2f} in this order, {back[name]:+.2f} in the reverse one, interaction "
            f"{value - back[name]:+.2f}"
            for name, value in there.items()
            if name in back
        ]
    if bridge.b.published is not None:
        notes.append(
            "a published number has no answers to pair with: the interval of the unexplained difference is that of our "
            "score"
        )
    return notes + list(bridge.notes)


def draw_waterfall(waterfall: Waterfall, confidence: float) -> Any:
    """One row per factor from the score of A on top to that of B; bars run from the score before to the score after."""
    import matplotlib.pyplot as plt

    steps = [*waterfall.steps, waterfall.remainder]
    labels = ["A", *(step.text for step in steps), "B"]
    figure = plt.figure(figsize=(WIDTH, ROOM + ROW * len(labels)), layout="constrained")
    axis = figure.subplots()
    before = waterfall.start
    reached = [waterfall.start, waterfall.end]
    for row, step in enumerate(steps, start=1):
        told = step.low > 0 or step.high < 0
        colour = (OURS if step.value > 0 else THEIRS) if told else MUTED
        axis.barh(
            row, step.value, left=before, height=0.62, color=colour, alpha=0.45 if step is waterfall.remainder else 0.9
        )
        axis.plot([before + step.low, before + step.high], [row, row], color=INK, lw=1.1)
        axis.plot([before + step.value] * 2, [row, row + 1], color=MUTED, lw=0.7)
        axis.annotate(
            f"{step.value:+.2f}", (max(before + step.high, before), row), (4, 0), textcoords="offset points",
            va="center", fontsize=7, color=INK,
        )  # fmt: skip
        reached += [before + step.low, before + step.high]
        before += step.value
    axis.plot(waterfall.start, 0, "D", color=INK, ms=5)
    axis.plot(waterfall.end, len(labels) - 1, "D", color=INK, ms=5)
    for at, row in ((waterfall.start, 0), (waterfall.end, len(labels) - 1)):
        axis.annotate(f"{at:.2f}", (at, row), (6, 0), textcoords="offset points", va="center", fontsize=7, color=INK)
    low, high = min(reached), max(reached)
    room = 0.12 * max(high - low, 1.0)
    axis.set_xlim(low - room, high + 2 * room)
    label_rows(axis, labels)
    axis.set_xlabel(f"percent; lines: {100 * confidence:g} % intervals of paired differences; grey: not told from zero")
    return figure


def write_bridge(
    bridge: Bridge,
    waterfalls: Sequence[Waterfall],
    rejected: Sequence[str],
    folder: Path,
    confidence: float,
    console: Console,
) -> None:
    """Write the page, the figures and the numbers into a folder."""
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        for name, waterfall in zip(_FIGURES, waterfalls, strict=False):
            figure = draw_waterfall(waterfall, confidence)
            (folder / f"{name}.svg").write_text(svg(figure), encoding="utf-8")
            figure.savefig(folder / f"{name}.png", dpi=200, metadata={"Software": None})
            plt.close(figure)
    page = _page(bridge, waterfalls, rejected, confidence)
    (folder / "bridge.md").write_text(page, encoding="utf-8")
    numbers = json.dumps(_numbers(bridge, waterfalls, rejected), indent=1) + "\n"
    (folder / "bridge.json").write_text(numbers, encoding="utf-8")
    console.print(f"written: {folder / 'bridge.md'}", markup=False, highlight=False)


def bridge_folder(bridge: Bridge, output: str | None, results: Path) -> Path:
    """The folder that a bridge is written into, created.

    Raises:
        StoreError: it cannot be written.
    """
    if output:
        return made_folder(Path(output), "output=<folder>")
    names = [re.sub(r"[^A-Za-z0-9_.-]+", "_", end.name).strip("_") for end in (bridge.a, bridge.b)]
    return made_folder(results / "bridge" / "__".join(names), "output=<folder>")


def _page(bridge: Bridge, waterfalls: Sequence[Waterfall], rejected: Sequence[str], confidence: float) -> str:
    """``bridge.md``."""
    parts = [
        f"# Why {bridge.a.title} and {bridge.b.title} differ",
        f"A: {bridge.a.title}\nB: {bridge.b.title}\nPoints are percent accuracy; intervals ({100 * confidence:g} %) "
        "are of differences paired by question.",
    ]
    for name, title, waterfall in zip(_FIGURES, ("", "Reverse order"), waterfalls, strict=False):
        head, *rows = ["| " + " | ".join(text or " " for text in row) + " |" for row in (_HEADS, *_rows(waterfall))]
        parts += [f"## {title}"] if title else []
        parts += ["\n".join([head, "|" + "---|" * len(_HEADS), *rows]), f"![waterfall]({name}.svg)"]
    parts.append("\n".join(f"- {note}" for note in _notes(bridge, waterfalls, rejected)))
    return "\n\n".join(parts) + "\n"


def _numbers(bridge: Bridge, waterfalls: Sequence[Waterfall], rejected: Sequence[str]) -> dict[str, Any]:
    """``bridge.json``: every number of the page."""
    return {
        "a": bridge.a.title,
        "b": bridge.b.title,
        "notes": list(bridge.notes),
        "rejected": list(rejected),
        "chains": [
            {name: getattr(waterfall, name) for name in _COUNTS}
            | {
                "steps": [dataclasses.asdict(step) for step in waterfall.steps],
                "remainder": dataclasses.asdict(waterfall.remainder),
                "left": [{"factor": factor.text, "why": why} for factor, why in waterfall.left],
            }
            for waterfall in waterfalls
        ],
    }
