"""``analyze``: what the paper says of attention and of its bound, on any model and videos."""

from __future__ import annotations

import importlib
from pathlib import Path

from harness.errors import UserError
from harness.fetch.prepare import prepare_embedded
from harness.settings.groups import Config
from harness.settings.matrix import build_cells
from harness.tools.analysis import AnalyzeConfig

ANALYSES = {"heavy_hitters": "harness.tools.analysis.heavy_study", "bound": "harness.tools.analysis.bound_study"}
"""Name -> module whose ``study(cell, data_root, folder, settings) -> int`` carries it out."""


def main(config: Config, analyze: AnalyzeConfig) -> int:
    """Carry out the verb.

    Returns:
        0; 1 where a video was left out, or what is proven does not hold.

    Raises:
        UserError: an analysis that there is not, no videos, or what a model or a disk refuses.
    """
    names = analyze.names
    if unknown := [name for name in names if name not in ANALYSES]:
        raise UserError(
            f"there is no analysis {unknown[0]!r}; allowed: {', '.join(ANALYSES)}, for example "
            "python -m harness analyze heavy_hitters"
        )
    prepare_embedded(config.profile, config.data)
    cell = build_cells(config, [])[0]  # loading says what is wrong with the weights
    places = Path(config.data.root), Path(config.results) / "analysis"
    statuses: list[int] = [importlib.import_module(ANALYSES[name]).study(cell, *places, analyze) for name in names]
    return max(statuses)
