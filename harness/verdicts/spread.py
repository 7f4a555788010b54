"""Spread over replicates beside the sampling error: what chance in a reproduction is worth, and what flips."""

from __future__ import annotations

import statistics

import pandas as pd

from harness.evidence.replicates import Replicates, replicates
from harness.evidence.samples import main_metric
from harness.evidence.section import Section
from harness.verdicts.context import Context
from harness.verdicts.noise import FlipRate, flip_rate


def flips_of(found: Replicates, context: Context) -> FlipRate | None:
    """Flips between the first cell of a set and each other one; None where they share no scored question."""
    first, *others = found.cells
    pairs = [context.runs(first, other, main_metric(first.benchmark)) for other in others]
    known = [pair for pair in pairs if pair is not None]
    return flip_rate(known) if known else None


def section(context: Context) -> Section:
    """One row per set of cells that are alike but for one kind of chance."""
    rows = []
    for found in replicates(context.cells):
        cells = [cell for cell in found.cells if cell.complete]
        estimates = [context.estimate(cell) for cell in cells]
        scored = [estimate for estimate in estimates if estimate is not None]
        flips = flips_of(Replicates(found.kind, tuple(cells)), context) if len(cells) > 1 else None
        if len(scored) < 2 or flips is None:
            continue
        low, high = scored[0].interval(context.settings.confidence)
        setting = cells[0].setting
        rows.append(
            {
                "benchmark": cells[0].task,
                "model": setting["model"],
                "method": cells[0].method_title,
                "frames": str(setting["frames"]),
                "context": str(setting["context"]),
                "drawn anew": found.kind,
                "scores": " / ".join(f"{estimate.value:.1f}" for estimate in scored),
                "spread": f"{statistics.stdev(estimate.value for estimate in scored):.2f}",
                "sampling": f"± {(high - low) / 2:.1f}",
                "flips": f"{flips.flips} of {flips.n}",
                "in videos": f"{flips.flipped_videos} of {flips.videos}",
                "flip rate": f"{100 * flips.d:.2g} % (up to {100 * flips.d_high:.2g} %)",
            }
        )
    notes = (
        "Cells alike but for what a reproduction draws anew: replicate (order of the options, seed), numerics (dtype, "
        "backend) or prompt (protocol). spread: standard deviation of their scores, in points. sampling: half the "
        "interval of the first one's score, which is about other videos and is no smaller for more replicates.",
        "flips: answers of the others that are right where the first is wrong, or the other way round; the upper end "
        "is one-sided 95 %. Verdicts on published numbers use that of numerics.",
    )
    left = ("benchmark", "model", "method", "drawn anew", "scores")
    return Section("Spread over replicates", pd.DataFrame(rows), left, notes)
