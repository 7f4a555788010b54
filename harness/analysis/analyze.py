"""``analyze``: what the paper says of attention and of its bound, on any model and videos."""

from __future__ import annotations

import importlib

from harness.config import Config
from harness.errors import UserError

ANALYSES = {"heavy_hitters": "harness.analysis.heavy_study", "bound": "harness.analysis.bound_study"}
"""Name -> module whose ``study(config) -> int`` carries it out."""


def main(config: Config) -> int:
    """Carry out the verb.

    Returns:
        0; 1 where a video was left out, or what is proven does not hold.

    Raises:
        UserError: an analysis that there is not, no videos, or what a model or a disk refuses.
    """
    names = config.analyze.names
    if unknown := [name for name in names if name not in ANALYSES]:
        raise UserError(
            f"there is no analysis {unknown[0]!r}; allowed: {', '.join(ANALYSES)}, for example "
            "python -m harness analyze heavy_hitters"
        )
    statuses: list[int] = [importlib.import_module(ANALYSES[name]).study(config) for name in names]
    return max(statuses)
