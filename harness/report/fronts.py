"""Accuracy against cost: one figure per benchmark over all methods and contexts, a panel per cost, its Pareto front."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.evidence.cells import CellResult, mean_known
from harness.evidence.statistics import Estimate
from harness.report.costs import Cost, Entry, cost
from harness.report.style import CYCLE, INK, MARKERS, MUTED, WIDTH

MANY = 10
"""Points of a panel that are all labelled; of more, only those on the front."""
OFFSETS = (5, -11, -20, 14, -29, -38, 23)
"""Points by which a label is moved up, the first at which it covers no other."""
TALL, WIDE, LETTER = 150.0, 330.0, 3.6
"""Of a panel, and of a letter of its labels, about, in points."""


@dataclass(frozen=True)
class Measure:
    """A cost: its axis, what it is of a cell's answers, and whether it depends on the machine."""

    label: str
    of: Callable[[Cost], float | None]
    of_machine: bool = False


MEASURES = {
    "slots": Measure("cache slots at answer time, mean over layers", lambda c: c.kept),
    "gflop": Measure("GFLOP of the language model per answer", lambda c: None if c.flops is None else c.flops / 1e9),
    "seconds": Measure("seconds per answer, decoding and encoding shared", lambda c: c.total, True),
    "memory": Measure("peak GiB on the accelerators", lambda c: c.peak_memory and c.peak_memory / 2**30, True),
}


@dataclass(frozen=True)
class Point:
    """A method at one context on one benchmark, or on several."""

    method: str
    context: str
    at: float
    score: Estimate
    sees_question: bool


def draw(entries: Sequence[Entry], confidence: float, which: str = "all") -> list[tuple[str, str, Any]]:
    """(name, caption, figure) per benchmark of which some cost is known at two points.

    Args:
        entries: of the account.
        confidence: of the intervals.
        which: a key of `MEASURES`, or ``all``.
    """
    wanted = list(MEASURES) if which == "all" else [which]
    found = []
    for benchmark in dict.fromkeys(entry.benchmark for entry in entries):
        own = [entry for entry in entries if entry.benchmark == benchmark and entry.estimate is not None]
        panels = {name: points_of(own, MEASURES[name]) for name in wanted}
        said = "; ".join(f"{name}: {left}" for name, (_, left) in panels.items() if left)
        shown = {name: points for name, (points, _) in panels.items() if len({point.at for point in points}) > 1}
        if shown:
            slug = "".join(sign if sign.isalnum() else "_" for sign in benchmark).strip("_")
            caption = (
                f"Accuracy against cost, {benchmark}; line: the Pareto front; bars: {100 * confidence:g} % intervals; "
                f"hollow: the question takes no part in choosing{'. Left out of ' + said if said else ''}"
            )
            found.append((f"front_{slug}", caption, _figure(shown, confidence)))
    return found


def points_of(entries: Sequence[Entry], measure: Measure) -> tuple[list[Point], str]:
    """The points of a panel, and in words how many are left out: costs that no answer says, and for those of a machine
    cells of another machine than most."""
    costs = {id(entry): _mean([measure.of(cost(cell)) for cell in entry.cells]) for entry in entries}
    known = [entry for entry in entries if costs[id(entry)] is not None]
    shown = known
    if measure.of_machine and known:
        most = Counter(machine(entry.cells) for entry in known).most_common(1)[0][0]
        shown = [entry for entry in known if machine(entry.cells) == most and ", " not in most]
    counts = {"of unknown cost": len(entries) - len(known), "of another machine": len(known) - len(shown)}
    cells = [entry.cells[0] for entry in entries]
    points = [
        Point(
            name_of(entry.cells[0], cells),
            str(entry.cells[0].setting["context"]),
            costs[id(entry)] or 0.0,
            entry.estimate,
            entry.account.sees_question is not False,
        )
        for entry in shown
        if entry.estimate is not None
    ]
    return points, ", ".join(f"{n} {why}" for why, n in counts.items() if n)


def machine(cells: Sequence[CellResult]) -> str:
    """On what the cells were answered; several names where it was not one."""
    starts = [start for cell in cells for start in (vars(cell.manifest), *cell.manifest.starts)]
    return ", ".join(sorted({str(start.get("device")) for start in starts}))


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other point beats: none is at most as dear and better, or cheaper and as good; cheapest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.at, -p.score.value)):
        if not kept or point.score.value > kept[-1].score.value:
            kept.append(point)
    return kept


def name_of(cell: CellResult, cells: Sequence[CellResult]) -> str:
    """The method, and of the rest what differs among all."""
    titles = {other.method_title for other in cells if other.setting["method"] == cell.setting["method"]}
    plain = len(titles) == 1 and cell.setting["method"] != "none"
    words = [str(cell.setting["method"]) if plain else cell.method_title]
    for key, form in {"model": "{}", "frames": "{} frames", "fps": "{:g} fps"}.items():
        if len({str(other.setting[key]) for other in cells}) > 1:
            words.append(form.format(cell.setting[key]))
    return ", ".join(words)


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else mean_known(values)


def _figure(panels: dict[str, list[Point]], confidence: float) -> Any:
    import matplotlib.pyplot as plt

    methods = list(dict.fromkeys(point.method for points in panels.values() for point in points))
    looks = {
        name: (CYCLE[i % len(CYCLE)], MARKERS[(i + i // len(CYCLE)) % len(MARKERS)]) for i, name in enumerate(methods)
    }
    tall = max(3.0, 0.14 * len(methods) / len(panels) + 1.2)
    figure = plt.figure(figsize=(WIDTH + 1.6, tall * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, sharey=True)[:, 0]
    for axis, (name, points) in zip(axes, panels.items(), strict=True):
        _panel(axis, points, looks, confidence)
        _labels(axis, points)
        axis.set_xlabel(MEASURES[name].label)
        axis.set_ylabel("percent")
    seen = {point.method: point.sees_question for points in panels.values() for point in points}
    for name, (colour, marker) in looks.items():
        face = colour if seen[name] else "white"
        axes[0].plot([], [], marker, color=colour, markerfacecolor=face, ms=5, label=name)
    axes[0].plot([], [], "-", color=INK, lw=1, label="Pareto front")
    figure.legend(frameon=False, fontsize=7, loc="outside right upper", labelcolor=INK)
    return figure


def _panel(axis: Any, points: Sequence[Point], looks: dict[str, tuple[str, str]], confidence: float) -> None:
    best = front(points)
    for point in points:
        colour, marker = looks[point.method]
        strong = any(point is other for other in best)
        axis.plot([point.at] * 2, point.score.interval(confidence), color=colour, lw=1, alpha=0.6 if strong else 0.22)
        face = colour if point.sees_question else "white"
        axis.plot(
            point.at, point.score.value, marker, color=colour, markerfacecolor=face, ms=5, alpha=1 if strong else 0.7
        )
    axis.step([p.at for p in best], [p.score.value for p in best], where="post", color=INK, lw=1, zorder=1)
    axis.set_xscale("log", base=2)
    axis.margins(x=0.12)
    low, high = (math.log2(limit) for limit in axis.get_xlim())
    step = max(1, round((high - low) / 6))
    ticks = [2.0**k for k in range(math.ceil(low), math.floor(high) + 1, step)]
    if len(ticks) < 2:
        ticks = sorted({float(f"{2 ** (low + (high - low) * k / 4):.2g}") for k in range(5)})
    axis.set_xticks(ticks, [f"{tick:.3g}" if tick < 100 else f"{tick:.0f}" for tick in ticks], color=MUTED)
    axis.minorticks_off()


def _labels(axis: Any, points: Sequence[Point]) -> None:
    low, high = (math.log2(limit) for limit in axis.get_xlim())
    bottom, top = axis.get_ylim()
    placed: list[tuple[float, float, float]] = []
    for point in front(points) if len(points) > MANY else points:
        text = f"{point.method} {point.context}"
        left = (math.log2(point.at) - low) / (high - low) * WIDE
        y = (point.score.value - bottom) / (top - bottom) * TALL
        right = left + LETTER * len(text)
        near = [height for first, last, height in placed if left < last and first < right]
        free = [up for up in OFFSETS if all(abs(y + up - height) >= 8 for height in near)]
        up = free[0] if free else OFFSETS[0]
        placed.append((left, right, y + up))
        axis.annotate(
            text, (point.at, point.score.value), fontsize=6.5, color=INK, xytext=(4, up), textcoords="offset points",
            zorder=1.5,
        )  # fmt: skip
