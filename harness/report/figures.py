"""Figures of the report: intervals against published values, paired differences, accuracy against frames and cost.

Each function draws one matplotlib figure from cells, or returns None when the cells have nothing to show in it.
"""

from __future__ import annotations

import io
import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from harness.report.baseline import Baseline
from harness.report.cells import CellResult
from harness.report.config import ReportConfig
from harness.report.expected import Table
from harness.report.measures import estimate, main_metric, paired
from harness.report.shapes import cost
from harness.report.tables import matching_numbers, reference

OURS, THEIRS, MUTED = "#1f5fa8", "#d1521a", "#8a93a0"
CYCLE = ("#1f5fa8", "#d1521a", "#2a8a57", "#8b4fa3", "#b28a00", "#5d6b7a")
MARKERS = "osD^vP"
WIDTH = 5.6
"""Inches; narrow enough that the text stays readable on a phone."""
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#b9c0c9",
    "axes.labelcolor": "#39424e",
    "xtick.color": "#39424e",
    "ytick.color": "#39424e",
    "axes.grid": True,
    "grid.color": "#e8ebef",
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "figure.facecolor": "white",
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.06,
}
COST_PANELS = {
    "tokens kept": lambda spent: spent.kept,
    "seconds": lambda spent: spent.total,
    "GFLOP": lambda spent: None if spent.flops is None else spent.flops / 1e9,
    "peak GiB": lambda spent: None if spent.peak_memory is None else spent.peak_memory / 2**30,
}
BENCHMARKS = {"videomme": "Video-MME", "mlvu": "MLVU", "longvideobench": "LongVideoBench", "lvbench": "LVBench"}


def draw_all(
    cells: Sequence[CellResult], tables: list[Table], baselines: list[Baseline], config: ReportConfig
) -> dict[str, tuple[Any, str]]:
    """Every figure that the cells allow: name -> (figure, caption). Toy cells have figures of their own."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds = {
        "scores": (lambda c: forest(c, tables, baselines, config), "Scores and intervals; orange: expected"),
        "differences": (lambda c: ablation(c, config), "Paired differences; right of zero: the first named is better"),
        "frames": (lambda c: ladder(c, "frames", config), "Accuracy against the largest number of frames"),
        "context": (lambda c: ladder(c, "context", config), "Accuracy against the context"),
        "cost": (costs, "What one answer costs: cache slots kept, seconds, work of the language model"),
        "accuracy_cost": (lambda c: accuracy_cost(c, config), "Accuracy against the work of one answer"),
    }
    drawn = {}
    with plt.rc_context(STYLE):
        for suffix, toy in (("", False), ("_toy", True)):
            group = [cell for cell in cells if cell.toy == toy]
            for name, (draw, caption) in kinds.items():
                if (figure := draw(group)) is not None:
                    drawn[name + suffix] = (figure, f"{caption}{' (embedded toy)' if toy else ''}.")
                    plt.close(figure)
    return drawn


def svg(figure: Any) -> str:
    """The figure as an SVG element without XML header, the same bytes each time."""
    text = _saved(figure, "svg", metadata={"Date": None, "Creator": None}).decode()
    return text[text.index("<svg") :]


def png(figure: Any) -> bytes:
    """The figure as PNG at 200 dots per inch."""
    return _saved(figure, "png", dpi=200, metadata={"Software": None})


def forest(
    cells: Sequence[CellResult], tables: list[Table], baselines: list[Baseline], config: ReportConfig
) -> Any | None:
    """Score and interval of each cell, with the published numbers (or the toy's baseline) beside it."""
    shown = [(cell, estimate(cell, config=config)) for cell in cells]
    shown = [(cell, found) for cell, found in shown if found is not None]
    if not shown:
        return None
    figure, axis = _canvas(len(shown), "Scores")
    for y, (cell, found) in enumerate(shown):
        low, high = found.interval(config.confidence)
        axis.plot([low, high], [y, y], color=OURS, lw=2.2, solid_capstyle="round")
        face = OURS if cell.complete else "white"
        axis.plot(found.value, y, "o", color=OURS, markerfacecolor=face, ms=6)
        for value in _expected_values(cell, tables, baselines):
            axis.plot(value, y, "d", color=THEIRS, ms=6, alpha=0.9)
    _label_rows(axis, [_row_label(cell, cells) for cell, _ in shown])
    axis.set_xlabel(f"percent, {100 * config.confidence:g} % interval; hollow: incomplete")
    return figure


def ablation(cells: Sequence[CellResult], config: ReportConfig) -> Any | None:
    """Paired difference of each cell to its sibling."""
    shown = []
    for cell in cells:
        other = reference(cell, cells)
        found = paired(cell, other, config=config) if other is not None else None
        if found is not None:
            shown.append((cell, other, found))
    if not shown:
        return None
    figure, axis = _canvas(len(shown), "Paired differences")
    axis.axvline(0, color="#39424e", lw=1)
    for y, (_, _, found) in enumerate(shown):
        low, high = found.interval(config.confidence)
        colour = MUTED if low <= 0 <= high else OURS
        axis.plot([low, high], [y, y], color=colour, lw=2.2, solid_capstyle="round")
        axis.plot(found.value, y, "o", color=colour, ms=6)
    _label_rows(axis, [_row_label(cell, cells, against=other) for cell, other, _ in shown])
    axis.set_xlabel(f"points, {100 * config.confidence:g} % interval, clustered by video")
    return figure


def ladder(cells: Sequence[CellResult], axis_name: str, config: ReportConfig) -> Any | None:
    """Accuracy along frames or context, one line per benchmark and method; needs two points on a line."""
    rest = [key for key in ("model", "method", "semantics", "variant", "frames", "fps", "context") if key != axis_name]
    lines = defaultdict(list)
    for cell in cells:
        value, found = cell.setting[axis_name], estimate(cell, config=config)
        if found is not None and isinstance(value, int | float):
            lines[cell.task, *(cell.setting.get(key) for key in rest)].append((value, found, cell))
    lines = {key: points for key, points in lines.items() if len({value for value, *_ in points}) > 1}
    if not lines:
        return None
    tasks = list(dict.fromkeys(key[0] for key in lines))
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(tasks), 1, figsize=(WIDTH, 2.3 * len(tasks)), sharex=True, squeeze=False)
    for axis, task in zip(axes[:, 0], tasks, strict=True):
        own = [points for key, points in lines.items() if key[0] == task]
        for i, points in enumerate(own):
            points = sorted(points, key=lambda point: point[0])
            x = [value for value, *_ in points]
            y = [found.value for _, found, _ in points]
            bounds = [found.interval(config.confidence) for _, found, _ in points]
            colour = CYCLE[i % len(CYCLE)]
            axis.plot(
                x, y, marker=MARKERS[i % len(MARKERS)], color=colour, lw=1.6, ms=5, label=points[0][2].short_title
            )
            axis.fill_between(x, [b[0] for b in bounds], [b[1] for b in bounds], color=colour, alpha=0.12, lw=0)
        axis.set_title(BENCHMARKS.get(task, task))
        axis.set_ylabel("percent")
        axis.set_xscale("log", base=2)
        ticks = sorted({value for points in own for value, *_ in points})
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.legend(frameon=False, fontsize=8)
    axes[-1, 0].set_xlabel("max frames" if axis_name == "frames" else "context in tokens")
    figure.tight_layout()
    return figure


def costs(cells: Sequence[CellResult]) -> Any | None:
    """Kept tokens, seconds per stage and language-model work per answer."""
    shown = [(cell, cost(cell)) for cell in cells]
    shown = [(cell, found) for cell, found in shown if found.kept is not None or found.total is not None]
    if not shown:
        return None
    import matplotlib.pyplot as plt

    panels = [title for title, has in COST_PANELS.items() if any(has(found) for _, found in shown)]
    size = (WIDTH + 1.2, _height(len(shown)) + 0.3)
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
    _label_rows(axes[0, 0], [_row_label(cell, cells) for cell, _ in shown])
    return figure


def accuracy_cost(cells: Sequence[CellResult], config: ReportConfig) -> Any | None:
    """Accuracy against language-model work per answer (seconds where shapes are unknown)."""
    points = []
    for cell in cells:
        found, spent = estimate(cell, config=config), cost(cell)
        x = spent.flops / 1e9 if spent.flops is not None else None
        if found is not None and x is not None:
            points.append((x, found, cell))
    if len({round(x, 9) for x, *_ in points}) < 2:
        return None
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(cell.task for *_, cell in points))
    methods = list(dict.fromkeys(cell.short_title for *_, cell in points))
    rows = -(-len(tasks) // 2)
    size = (WIDTH, 0.6 + 2.1 * rows)
    figure, axes = plt.subplots(
        rows, min(2, len(tasks)), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axis, task in zip(axes.flat, tasks, strict=False):
        axis.set_title(BENCHMARKS.get(task, task))
        for x, found, cell in points:
            if cell.task == task:
                place = methods.index(cell.short_title)
                colour, marker = CYCLE[place % len(CYCLE)], MARKERS[place % len(MARKERS)]
                axis.plot([x, x], found.interval(config.confidence), color=colour, alpha=0.35, lw=1.2)
                axis.plot(x, found.value, marker, color=colour, ms=5.5, alpha=0.85)
    for axis in list(axes.flat)[len(tasks) :]:
        axis.set_visible(False)
    for place, method in enumerate(methods):
        axes[0, 0].plot([], [], MARKERS[place % len(MARKERS)], color=CYCLE[place % len(CYCLE)], label=method)
    figure.supxlabel("GFLOP of the language model per answer, counted from shapes", fontsize=9)
    figure.supylabel("percent", fontsize=9)
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=min(5, len(methods)))
    return figure


def _expected_values(cell: CellResult, tables: list[Table], baselines: list[Baseline]) -> list[float]:
    if cell.toy:
        stored = next((s for baseline in baselines if (s := baseline.find(cell)) is not None), None)
        return [] if stored is None else [stored.score[main_metric(cell.benchmark)]]
    return [published.score for published in matching_numbers(cell, tables)]


def _row_label(cell: CellResult, cells: Sequence[CellResult], against: CellResult | None = None) -> str:
    """Benchmark and method, and of the setting only what differs among the cells."""
    method = cell.short_title if against is None else f"{cell.short_title} − {against.short_title}"
    words = [BENCHMARKS.get(cell.task, cell.task), method]
    units = {"model": "{}", "semantics": "{}", "frames": "{} frames", "fps": "{:g} fps", "context": "context {}"}
    for key, form in units.items():
        if len({str(c.setting[key]) for c in cells if key in c.setting}) > 1 and key in cell.setting:
            words.append(form.format(cell.setting[key]))
    return ", ".join(words)


def _height(rows: int) -> float:
    return 0.75 + 0.3 * rows


def _canvas(rows: int, title: str) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(WIDTH, _height(rows)))
    axis.set_title(title)
    axis.grid(axis="y", visible=False)
    return figure, axis


def _label_rows(axis: Any, labels: list[str]) -> None:
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)


def _saved(figure: Any, form: str, **options: Any) -> bytes:
    import matplotlib.pyplot as plt

    stream = io.BytesIO()
    with plt.rc_context(STYLE):
        figure.savefig(stream, format=form, **options)
    return stream.getvalue()
