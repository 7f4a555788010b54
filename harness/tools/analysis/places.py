"""Where analyses are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_figure(path: Path, draw: Callable[..., Any], *args: Any) -> None:
    """Draw a figure in the report's style, and write it as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from harness.report.figures import svg
    from harness.report.style import STYLE

    with plt.rc_context(STYLE):
        figure = draw(*args)
    path.write_text(svg(figure), encoding="utf-8")
    plt.close(figure)
