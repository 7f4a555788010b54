"""Methods against each other: accuracy over each of the two budgets, as measured."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from harness.report.account import Account, Entry
from harness.report.style import CYCLE, INK, MARKERS, MUTED, WIDTH

FEW = 3
"""Methods that make a comparison; of fewer the figures along the context say all."""
FULL_PREFILL = 0.95
"""A method that passes a smaller share of the longest prompt through the model saves prefill, not only cache."""
BUDGETS: dict[str, tuple[str, Callable[[Account], float | None]]] = {
    "methods": ("cache slots at answer time, mean over layers", lambda took: took.slots),
    "methods_prefill": ("tokens through the language model at prefill, mean over layers", lambda took: took.prefilled),
}


def draw(entries: Sequence[Entry], confidence: float) -> list[tuple[str, str, Any | None]]:
    """(name, caption, figure) for each budget; a figure is None where too few methods were run."""
    shown = [entry for entry in entries if len(entry.cells) > 1] or entries
    titles = {"methods": "Methods over cache slots", "methods_prefill": "Methods over tokens prefilled"}
    return [(name, titles[name], _figure(shown, *BUDGETS[name], confidence)) for name in BUDGETS]


def kind(line: Sequence[Entry], whole: float) -> str:
    """The panel of a method: what the question and the prefill of a prompt of `whole` tokens are to it."""
    took = [entry.account for entry in line]
    if all(a.prefilled is not None and a.prefilled < FULL_PREFILL * whole for a in took):
        return "fewer tokens pass the model"
    return "the question is seen at prefill" if any(a.sees_question for a in took) else "the question is not seen"


def _figure(
    entries: Sequence[Entry], label: str, budget: Callable[[Account], float | None], confidence: float
) -> Any | None:
    named: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.estimate is not None and budget(entry.account) is not None:
            named[_name(entry, entries)].append(entry)
    whole = {name: line for name, line in named.items() if line[0].cells[0].setting["context"] == "full"}
    longest = max((entry.account.prompt or 0.0 for entry in entries), default=0.0)
    panels: dict[str, dict[str, list[Entry]]] = defaultdict(dict)
    for name, line in named.items():
        if name not in whole:
            panels[kind(line, longest)][name] = line
    if sum(map(len, panels.values())) < FEW:
        return None
    import matplotlib.pyplot as plt

    budgets = [budget(entry.account) or 1.0 for lines in panels.values() for line in lines.values() for entry in line]
    ticks = [2**k for k in range(math.floor(math.log2(min(budgets))), math.ceil(math.log2(max(budgets))) + 1)]
    heights = [2.6 + 0.09 * len(lines) for lines in panels.values()]
    figure = plt.figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights, sharex=True, sharey=True)[:, 0]
    for axis, (panel, lines) in zip(axes, sorted(panels.items()), strict=True):
        for i, (name, line) in enumerate(lines.items()):
            known = ((budget(entry.account) or 0.0, entry.estimate) for entry in line if entry.estimate)
            points = sorted(known, key=lambda point: point[0])
            x, y = [at for at, _ in points], [found.value for _, found in points]
            lap = i // len(CYCLE)
            colour, marker, style = CYCLE[i % len(CYCLE)], MARKERS[(i + lap) % len(MARKERS)], ("-", "--", ":")[lap % 3]
            axis.plot(x, y, style, marker=marker, color=colour, lw=1.5, ms=4.5, label=name)
            for at, found in points:
                axis.plot([at, at], found.interval(confidence), color=colour, lw=1, alpha=0.3)
        for name, line in whole.items():
            axis.axhline(line[0].estimate.value, color=INK, lw=1, ls="--", label=name)  # type: ignore[union-attr]
        axis.set_title(panel)
        axis.set_ylabel("percent")
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), labelcolor=MUTED)
    axes[-1].set_xlabel(label)
    return figure


def _name(entry: Entry, entries: Sequence[Entry]) -> str:
    """The method, and of the rest what differs among all."""
    cell = entry.cells[0]
    names = {e.cells[0].method_title for e in entries if e.cells[0].setting["method"] == cell.setting["method"]}
    words = [cell.method_title if len(names) > 1 or cell.setting["method"] == "none" else cell.setting["method"]]
    if len({e.benchmark for e in entries}) > 1:
        words.append(entry.benchmark)
    for key, form in {"model": "{}", "semantics": "{}", "frames": "{} frames"}.items():
        if len({e.cells[0].setting[key] for e in entries if key in e.cells[0].setting}) > 1 and key in cell.setting:
            words.append(form.format(cell.setting[key]))
    return ", ".join(words)
