"""The figure of the bound: how near choices come to the best, and the output's error against kept mass."""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.report.style import CYCLE, INK, MARKERS, WIDTH
from harness.tools.analysis.bound import GUARANTEE


def draw(drawn: pd.DataFrame, errors: pd.DataFrame, setting: str) -> Any:
    """Two panels.

    Args:
        drawn: a row per instance: gains of `greedy`, `pooled`, `even` as shares of the best.
        errors: a row per answer: its `choice`, kept `log_mass`, and the error of its `logits`.
        setting: what was run.
    """
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(WIDTH, 6.0), layout="constrained")
    shares, answers = figure.subplots(2, 1)
    for i, name in enumerate(("greedy", "pooled", "even")):
        ordered = drawn[name].sort_values().to_numpy()
        ranks = [(rank + 1) / len(ordered) for rank in range(len(ordered))]
        shares.step(ordered, ranks, where="post", color=CYCLE[i], lw=1.8, label=name)
    shares.axvline(GUARANTEE, color=INK, lw=1, ls="--", label="1 − 1/e")
    shares.set_title("Gain in log-mass as a share of the best")
    shares.set_xlabel(f"share of the best of {len(drawn)} small instances")
    shares.set_ylabel("share of instances below")
    shares.legend(frameon=False)
    for i, choice in enumerate(errors["choice"].unique()):
        of_choice = errors[errors["choice"] == choice]
        answers.plot(
            of_choice["log_mass"], 100 * of_choice["logits"], MARKERS[i], color=CYCLE[i], ms=4, alpha=0.7, label=choice
        )
    answers.set_title("Error of the output against kept mass (measured)")
    answers.set_xlabel(f"log of the product over layers of kept mass\n{setting}")
    answers.set_ylabel("error of the logits, percent")
    answers.legend(frameon=False)
    return figure
