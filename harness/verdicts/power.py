"""What a benchmark can tell at all: how small a gap or a difference its questions can show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from scipy import special

from harness.evidence.choose import newest
from harness.evidence.samples import main_metric
from harness.evidence.section import Section
from harness.evidence.statistics import POINTS
from harness.settings.groups import ReportConfig
from harness.verdicts.context import Context
from harness.verdicts.noise import weighed

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


def section(context: Context) -> Section:
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
