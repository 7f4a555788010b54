"""A plan on the screen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil
from rich.console import Console

from harness.advice import harness
from harness.plan.rates import clock

if TYPE_CHECKING:
    from harness.plan.plan import Plan

SHOWN = 4
"""Cells named where all of them would fill the screen."""
BYTES_PER_ANSWER = 1000
BYTES_PER_FRAME = 14
"""A record of frames holds index and time of each."""


def time_lines(plan: Plan, start_s: float) -> list[str]:
    """How long the plan takes, on each device that was measured at all of its settings."""
    if plan.seconds_on:
        return [
            f"time: about {clock(start_s + seconds)} on one {device}, by what these settings took in {plan.results}"
            for device, seconds in plan.seconds_on.items()
        ]
    cells = ", ".join(plan.unmeasured[:SHOWN]) + (" ..." if len(plan.unmeasured) > SHOWN else "")
    which = f" of {cells}" if cells else " on one device"
    unknown = f"time: not known; nothing was measured at the settings{which}"
    subsets = {cell.cell.task.subset for group in plan.groups for cell in group.cells}
    if plan.words is None or subsets == {"mini"}:
        return [unknown]
    return [f"{unknown}. This measures them: {harness('run', plan.words, 'task.subset=mini')}"]


def show(plan: Plan, console: Console) -> None:
    """Print a plan: one row per cell, one line per total. Nothing where problems left no group to plan."""
    start_s = time.time() - psutil.Process().create_time()  # a run takes as long until it starts to answer
    if not plan.groups:
        return
    rows = [(cell.cell.id, cell) for group in plan.groups for cell in group.cells]
    width = max(len(name) for name, _ in rows)
    heads = ("questions", "answered", "failed", "to answer")
    lines = ["  ".join(("cell".ljust(width), *heads))]
    for name, cell in rows:
        numbers = (cell.questions, cell.answered, cell.failed, cell.to_answer)
        cells = (str(n).rjust(len(head)) for n, head in zip(numbers, heads, strict=True))
        lines.append("  ".join((name.ljust(width), *cells)))
    console.print("\n".join(lines), highlight=False, markup=False)
    decode = sum(group.videos_to_decode for group in plan.groups)
    hours = sum(group.hours_to_decode for group in plan.groups)
    tokens = sum(group.tokens for group in plan.groups)
    n_cells = sum(len(group.cells) for group in plan.groups)
    console.print(
        f"{n_cells} cells in {len(plan.groups)} groups; {plan.to_answer:,} questions to answer on {decode:,} videos "
        f"({hours:,.1f} h of video, {tokens:,} video tokens, each decoded and encoded once)"
    )
    for note in plan.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    if not plan.to_answer:
        return
    for line in time_lines(plan, start_s):
        console.print(line, highlight=False, markup=False)
    frames = max((g.group.cells[0].video.max_frames for g in plan.groups), default=0)
    disk = plan.to_answer * BYTES_PER_ANSWER + decode * frames * BYTES_PER_FRAME
    features = sum(group.feature_bytes for group in plan.groups)
    largest = max((group.largest_feature_bytes for group in plan.groups), default=0)
    console.print(
        f"disk: up to {disk / 1e6:,.1f} MB of answers, and {features / 1e9:,.3f} GB of features where run.feature_dir "
        f"is set; host memory: up to {largest / 1e9:,.3f} GB of features at a time"
    )
