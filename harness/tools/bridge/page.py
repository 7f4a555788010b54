"""A bridge in print: the table on the terminal, ``bridge.md``, ``bridge.json`` and the drawn waterfall."""

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

from harness.report.figures import svg
from harness.report.style import STYLE
from harness.store.records import made_folder
from harness.tools.bridge.build import Bridge
from harness.tools.bridge.draw import draw
from harness.tools.bridge.measure import Step, Waterfall

HEADS = ("factor", "points", "interval", "score", "right / wrong", "")


def show(bridge: Bridge, found: Sequence[Waterfall], rejected: Sequence[str], console: Console) -> None:
    """Print one table per chain, and what has to be known of it."""
    console.print(f"A: {bridge.a.title}\nB: {bridge.b.title}", markup=False, highlight=False)
    for waterfall in found:
        table = Table(*HEADS)
        for row in rows(bridge, waterfall):
            table.add_row(*map(escape, row))
        console.print(table, soft_wrap=False)
    for line in lines(bridge, found, rejected):
        console.print(line, markup=False, highlight=False)


def rows(bridge: Bridge, found: Waterfall) -> list[tuple[str, ...]]:
    """A, one row per factor, the remainder, B."""
    steps = [*found.steps, found.remainder]
    return [
        ("A", "", "", f"{found.start:.2f}", "", ""),
        *(_row(step) for step in steps),
        ("B", f"{found.difference:+.2f}", "", f"{found.end:.2f}", "", "B - A"),
    ]


def _row(step: Step) -> tuple[str, ...]:
    flips = "" if step.gained is None else f"+{step.gained} / -{step.lost}"
    said = [step.verdict] if step.verdict else []
    said += [f"{step.failed} failed answers"] if step.failed else []
    return (
        step.text, f"{step.value:+.2f}", f"{step.low:+.2f} to {step.high:+.2f}", f"{step.score:.2f}", flips,
        ", ".join(said),
    )  # fmt: skip


def lines(bridge: Bridge, found: Sequence[Waterfall], rejected: Sequence[str]) -> list[str]:
    """What has to be known beside the table."""
    first = found[0]
    listed = [f"{first.n} questions about {first.videos} videos are shared by all cells of the chain"]
    apart = [(name, n) for name, n in (("A", first.only_a), ("B", first.only_b)) if n]
    listed += [f"{n} questions of {name} are not among them and count nowhere here" for name, n in apart]
    for waterfall in found[:1]:
        listed += [
            f"not changed: {factor.text}: {why.rstrip('.')}; its part is in what is unexplained"
            for factor, why in waterfall.left
        ]
    listed += [f"not taken: {each}" for each in rejected]
    if len(found) > 1:
        listed += interaction(found)
    if bridge.b.published is not None:
        listed.append(
            "a published number has no answers to pair with: the interval of what is unexplained is that of our score"
        )
    return listed + list(bridge.notes)


def interaction(found: Sequence[Waterfall]) -> list[str]:
    """What a factor is worth in either order; a difference is interaction with the factors between."""
    there, back = ({step.name: step.value for step in waterfall.steps} for waterfall in found[:2])
    return [
        f"{name}: {there[name]:+.2f} in this order, {back[name]:+.2f} in the reverse one, interaction "
        f"{there[name] - back[name]:+.2f}"
        for name in there
        if name in back
    ]


def write(
    bridge: Bridge,
    found: Sequence[Waterfall],
    rejected: Sequence[str],
    folder: Path,
    confidence: float,
    console: Console,
) -> None:
    """Write the page, the figure and the numbers into a folder."""
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        for name, waterfall in zip(("waterfall", "waterfall_reverse"), found, strict=False):
            figure = draw(waterfall, confidence)
            (folder / f"{name}.svg").write_text(svg(figure), encoding="utf-8")
            figure.savefig(folder / f"{name}.png", dpi=200, metadata={"Software": None})
            plt.close(figure)
    (folder / "bridge.md").write_text(page(bridge, found, rejected, confidence), encoding="utf-8")
    (folder / "bridge.json").write_text(json.dumps(record(bridge, found, rejected), indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {folder / 'bridge.md'}", markup=False, highlight=False)


def folder_of(bridge: Bridge, output: str | None, results: str) -> Path:
    """Where a bridge is written; made.

    Raises:
        StoreError: it cannot be written.
    """
    if output:
        return made_folder(Path(output), "output=<folder>")
    names = [re.sub(r"[^A-Za-z0-9_.-]+", "_", _short(end)).strip("_") for end in (bridge.a, bridge.b)]
    return made_folder(Path(results) / "bridge" / "__".join(names), "output=<folder>")


def _short(end: Any) -> str:
    if end.published is not None:
        return str(end.published.id)
    return str(end.result.id if end.result is not None else end.cell.id)


def page(bridge: Bridge, found: Sequence[Waterfall], rejected: Sequence[str], confidence: float) -> str:
    """``bridge.md``."""
    parts = [
        f"# Why {bridge.a.title} and {bridge.b.title} differ",
        f"A: {bridge.a.title}\nB: {bridge.b.title}\nPoints are percent accuracy; intervals ({100 * confidence:g} %) "
        "are of differences paired by question.",
    ]
    for name, title, waterfall in zip(("waterfall", "waterfall_reverse"), ("", "Reverse order"), found, strict=False):
        table = ["| " + " | ".join(each or " " for each in row) + " |" for row in (HEADS, *rows(bridge, waterfall))]
        rule = "|" + "---|" * len(HEADS)
        parts += [f"## {title}"] if title else []
        parts += ["\n".join([table[0], rule, *table[1:]]), f"![waterfall]({name}.svg)"]
    parts.append("\n".join(f"- {line}" for line in lines(bridge, found, rejected)))
    return "\n\n".join(parts) + "\n"


def record(bridge: Bridge, found: Sequence[Waterfall], rejected: Sequence[str]) -> dict[str, Any]:
    """``bridge.json``: every number of the page."""
    return {
        "a": bridge.a.title,
        "b": bridge.b.title,
        "notes": list(bridge.notes),
        "rejected": list(rejected),
        "chains": [
            {
                **{
                    name: getattr(each, name)
                    for name in ("start", "end", "difference", "n", "videos", "only_a", "only_b")
                },
                "steps": [dataclasses.asdict(step) for step in each.steps],
                "remainder": dataclasses.asdict(each.remainder),
                "left": [{"factor": factor.text, "why": why} for factor, why in each.left],
            }
            for each in found
        ],
    }
