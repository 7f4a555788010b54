"""Figures of the report: scores, paired differences, accuracy and effects along frames and context, cost.

Each drawing function makes one matplotlib figure, or returns None when there is nothing to show in it.
"""

from __future__ import annotations

import io
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.evidence.cells import CellResult, mean_known
from harness.evidence.statistics import Estimate
from harness.report.costs import Cost, Entry, cost
from harness.report.pages import Findings
from harness.report.style import (
    CYCLE,
    INK,
    MARKERS,
    MUTED,
    OURS,
    ROOM,
    ROW,
    STYLE,
    THEIRS,
    WIDTH,
    label_rows,
    task_title,
    words_of,
)
from harness.report.tables import ScoreRow
from harness.verdicts.pairs import TITLES, Pair, Rung, ladder

FRONTS_MANY = 10
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
    for point in front(points) if len(points) > FRONTS_MANY else points:
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


Lines = dict[str, dict[str, list[tuple[float, Estimate]]]]
"""Panel -> line -> points."""
MANY = 30
"""Rows of a picture of paired differences; of more, only those pooled over benchmarks are drawn."""


def draw_all(found: Findings) -> dict[str, tuple[Any, str]]:
    """Every figure that the cells allow: name -> (figure, caption). Toy cells have figures of their own."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    confidence = found.context.settings.confidence
    drawn = {}
    with plt.rc_context(STYLE):
        for suffix, toy in (("", False), ("_toy", True)):
            rows = [row for row in found.rows if row.cell.toy == toy and row.estimate is not None]
            pairs = [pair for pair in found.pairs if pair.cells[0][0].toy == toy]
            frames, context = (
                along(rung for rung in rungs if rung.cells[0].toy == toy)
                for rungs in (ladder(found.context, "frames"), found.rungs)
            )
            bars, gaps = score_bars(rows), difference_bars(pairs, confidence)
            interval, tokens = f"{100 * confidence:g} % interval", "context in tokens"
            percent, points = (
                f"percent, {interval}; hollow: incomplete",
                f"points, {interval}; hollow: not at equal budget",
            )
            kinds = [
                ("scores", "Scores and intervals; orange: expected", forest(bars, percent, confidence)),
                ("differences", "Paired differences, by video; a − b", forest(gaps, points, confidence)),
                ("frames", "Accuracy against the most frames", lines(frames, confidence, "max frames", "percent")),
                ("context", "Accuracy against the context", lines(context, confidence, tokens, "percent")),
                ("effects", "What variants are worth: a − b", lines(effects(pairs), confidence, tokens, "points")),
                ("cost", "What one answer costs", costs([row.cell for row in rows])),
                *draw(
                    [entry for entry in found.entries if entry.cells[0].toy == toy],
                    confidence,
                    found.context.settings.cost,
                ),
            ]
            for name, caption, figure in kinds:
                if figure is not None:
                    drawn[name + suffix] = (figure, f"{caption}{' (embedded toy)' if toy else ''}.")
                    plt.close(figure)
    return drawn


def svg(figure: Any) -> str:
    """The figure as an SVG element without XML header, the same bytes each time."""
    import matplotlib.pyplot as plt

    stream = io.StringIO()
    with plt.rc_context(STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


@dataclass(frozen=True)
class Bar:
    """One row of a forest plot."""

    label: str
    estimate: Estimate
    colour: str = OURS
    hollow: bool = False
    marks: Sequence[float] = ()


def score_bars(rows: Sequence[ScoreRow]) -> list[Bar]:
    """Score of each cell, with the published numbers (or the toy's baseline) beside it."""
    cells = [row.cell for row in rows]
    return [
        Bar(
            ", ".join([row.cell.short_title, *words_of(row.cell, cells)]), found, OURS, not row.cell.complete, row.marks
        )
        for row in rows
        if (found := row.estimate) is not None
    ]


def difference_bars(pairs: Sequence[Pair], confidence: float) -> list[Bar]:
    """Paired differences; grey where the interval holds zero."""
    shown = [pair for pair in pairs if pair.pooled] if len(pairs) > MANY else pairs
    several = len({pair.setting.get("context") for pair in shown}) > 1
    bars = []
    for pair in shown:
        low, high = pair.difference.interval(confidence)
        where = pair.benchmark if pair.pooled else task_title(pair.cells[0][0])
        method = [] if pair.axis in TITLES else [pair.cells[0][0].short_title]
        words = [where, *method, " − ".join(pair.names)]
        label = ", ".join(
            words + ([f"context {pair.setting['context']}"] if several and pair.axis != "context" else [])
        )
        bars.append(Bar(label, pair.difference, MUTED if low <= 0 <= high else OURS, pair.budget == "not equal"))
    return bars


def forest(bars: Sequence[Bar], x_label: str, confidence: float) -> Any | None:
    """Values with their intervals, one row each."""
    if not bars:
        return None
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(WIDTH, ROOM + ROW * len(bars)))
    axis.grid(axis="y", visible=False)
    for y, bar in enumerate(bars):
        axis.plot(bar.estimate.interval(confidence), [y, y], color=bar.colour, lw=2.2, solid_capstyle="round")
        face = "white" if bar.hollow else bar.colour
        axis.plot(bar.estimate.value, y, "o", color=bar.colour, markerfacecolor=face, ms=6)
        axis.plot(bar.marks, [y] * len(bar.marks), "d", color=THEIRS, ms=6, alpha=0.9)
    label_rows(axis, [bar.label for bar in bars])
    axis.set_xlabel(x_label)
    return figure


def along(rungs: Iterable[Rung]) -> Lines:
    """Scores along the axis of a ladder, a panel per benchmark; each line is named with its measured cache slots."""
    found: dict[str, dict[str, list[Rung]]] = defaultdict(lambda: defaultdict(list))
    for rung in sorted(rungs, key=lambda rung: rung.at):
        found[rung.benchmark][rung.title].append(rung)
    return {
        panel: {
            f"{title}; {', '.join('?' if r.slots is None else f'{r.slots:.0f}' for r in line)} slots": [
                (r.at, r.estimate) for r in line
            ]
            for title, line in of.items()
        }
        for panel, of in found.items()
    }


def effects(pairs: Iterable[Pair]) -> Lines:
    """What the variants are worth along the context: pooled over benchmarks where there are several."""
    found: Lines = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        context = pair.setting.get("context")
        if pair.axis == "variant" and isinstance(context, int):
            found[pair.benchmark][" − ".join(pair.names)].append((context, pair.difference))
    ladders = {
        panel: {line: points for line, points in of.items() if len({x for x, _ in points}) > 1}
        for panel, of in found.items()
    }
    ladders = {panel: of for panel, of in ladders.items() if of}
    return {panel: of for panel, of in ladders.items() if panel.startswith("mean of")} or ladders


def lines(panels: Lines, confidence: float, x_label: str, y_label: str) -> Any | None:
    """One panel each, one line per method or pair."""
    if not panels:
        return None
    import matplotlib.pyplot as plt

    heights = [2.2 + 0.17 * len(of) for of in panels.values()]
    figure = plt.figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axis, (panel, of) in zip(axes[:, 0], panels.items(), strict=True):
        for i, (line, points) in enumerate(of.items()):
            points = sorted(points, key=lambda point: point[0])
            x, bounds = [x for x, _ in points], [found.interval(confidence) for _, found in points]
            colour, marker = CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)]
            axis.plot(x, [found.value for _, found in points], marker=marker, color=colour, lw=1.6, ms=5, label=line)
            axis.fill_between(x, [b[0] for b in bounds], [b[1] for b in bounds], color=colour, alpha=0.12, lw=0)
        if y_label == "points":
            axis.axhline(0, color=INK, lw=1)
        axis.set_title(panel)
        axis.set_ylabel(y_label)
        axis.set_xscale("log", base=2)
        ticks = sorted({x for points in of.values() for x, _ in points})
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel(x_label)
        axis.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.34), borderaxespad=0)
    return figure
