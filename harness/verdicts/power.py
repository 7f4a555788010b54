"""What a benchmark can tell at all: how small a gap or a difference its questions can show."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import pandas as pd
from scipy import special

from harness.evidence.loading import Replicates, newest, replicates
from harness.evidence.section import Section
from harness.evidence.statistics import POINTS, main_metric
from harness.settings.groups import ReportConfig
from harness.verdicts.context import Context
from harness.verdicts.noise import FlipRate, flip_rate, weighed

RATES = (0.005, 0.01, 0.02, 0.05)
"""Shares of answers that flip between two runs."""
DISAGREE = (0.03, 0.08, 0.15)
"""Shares of answers on which two cells disagree."""
ROUNDING = 0.05
"""Of a score that is published with one digit, in points."""


def smallest_gap(n: float, rate: float, confidence: float, power: float, rounding: float = ROUNDING) -> float:
    """Systematic gap to a published score, in points, that is found with that power on the same questions.

    Args:
        n: effective number of questions.
        rate: share of answers that flip between two runs.
    """
    return rounding + _shifts(confidence, power) * POINTS * math.sqrt(rate / n)


def smallest_difference(n: float, disagree: float, confidence: float, power: float) -> float:
    """Difference between two cells, in points, that is shown to hold for other videos with that power.

    Args:
        n: effective number of questions.
        disagree: share of answers on which the cells disagree.
    """
    return _shifts(confidence, power) * POINTS * math.sqrt(disagree / n)


def largest_rate(n: float, margin: float, confidence: float, rounding: float = ROUNDING) -> float:
    """Share of answers that may flip between runs so that an equal score still is reproduced within ``margin``."""
    return n * (max(0.0, margin - rounding) / (POINTS * float(special.ndtri(confidence)))) ** 2


def _shifts(confidence: float, power: float) -> float:
    return float(special.ndtri(0.5 + confidence / 2) + special.ndtri(power))


def power_section(context: Context) -> Section:
    """One row per set of questions that some cell answered, on its benchmark's published metric."""
    settings, rows = context.settings, {}
    for cell in newest(context.cells):
        found = context.estimate(cell)
        if found is None or not cell.complete:
            continue
        low, high = found.interval(settings.confidence)
        key = cell.task, found.n, found.clusters
        if key not in rows:
            rows[key] = {
                "benchmark": cell.task,
                "metric": main_metric(cell.benchmark),
                "questions": str(found.n),
                "videos": str(found.clusters),
                "score": f"± {(high - low) / 2:.1f}",
                **_power(weighed(found), settings),
            }
    notes = (
        "score: half the interval of the first cell's score, for other videos. flip rate up to: so many answers may "
        f"flip between two runs for an equal score to count as reproduced within {settings.margin:g} points.",
        f"gap found: to a published score, with power {settings.power:g}, if so many answers flip between runs over "
        "the same questions. difference shown: between two cells, for other videos, that disagree on so many answers.",
        "Where flips of a video come together (long videos with many questions), it takes more. A claim smaller than "
        "these is beyond the benchmark, whatever a run says.",
    )
    return Section("What a benchmark can tell", pd.DataFrame(list(rows.values())), ("benchmark", "metric"), notes)


def _power(n: float, config: ReportConfig) -> dict[str, str]:
    gaps = [smallest_gap(n, rate, config.confidence, config.power) for rate in RATES]
    shown = [smallest_difference(n, rate, config.confidence, config.power) for rate in DISAGREE]
    return {
        "flip rate up to": f"{100 * min(1.0, largest_rate(n, config.margin, config.confidence)):.2g} %",
        f"gap found at {_rates(RATES)}": " / ".join(f"{gap:.2f}" for gap in gaps),
        f"difference shown at {_rates(DISAGREE)}": " / ".join(f"{gap:.2f}" for gap in shown),
    }


def _rates(rates: Sequence[float]) -> str:
    return " / ".join(f"{100 * rate:g}" for rate in rates) + " %"


def flips_of(found: Replicates, context: Context) -> FlipRate | None:
    """Flips between the first cell of a set and each other one; None where they share no scored question."""
    first, *others = found.cells
    pairs = [context.runs(first, other, main_metric(first.benchmark)) for other in others]
    known = [pair for pair in pairs if pair is not None]
    return flip_rate(known) if known else None


def spread_section(context: Context) -> Section:
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
