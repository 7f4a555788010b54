"""Stored baselines and the score-regression check."""

from __future__ import annotations

from dataclasses import dataclass

from harness.settings.rules import setting
from harness.settings.verbs import Verb


@dataclass
class CheckConfig:
    """The regression gate: compare with a stored baseline, or write a new one."""

    baseline: str | None = setting(None, help="file; null: that of the matrix and profile in report.baselines")
    update_baseline: bool = setting(False, flag=True, help="write the baseline instead of comparing with it")
    exact: bool | None = setting(
        None, help="true: every answer must be the same; false: scores within noise; null: as the baseline says"
    )
    flip_rate: float | None = setting(
        None, least=0, most=1, help="largest share of answers that may change; null: measured, or as the baseline says"
    )


VERBS = [
    Verb(
        "check", "harness.gate.check", "compare with a stored baseline: 0 pass, 1 regression, 2 incomplete, 3 drift",
        "check", CheckConfig,
    ),
]  # fmt: skip
