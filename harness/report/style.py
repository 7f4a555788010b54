"""How figures look: colours, sizes, and how cells are named in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.benchmarks.benchmark import benchmark
from harness.evidence.cells import CellResult

BESIDE = "side_by_side"
"""Behind the name of a benchmark, the picture of all cells of it that were shown together."""


def picture(report: Path, question: str, name: str) -> Path:
    """``pictures/<question>/<name>.png`` in the report's folder.

    Args:
        report: the report's folder.
        question: id of a question; signs that a file name may not hold are escaped as in a URL.
        name: id of a cell, or ``<benchmark>.side_by_side``.
    """
    folder = quote(question, safe=" ") if question.strip(".") else quote(question).replace(".", "%2E")
    return report / "pictures" / folder / f"{name}.png"


OURS, THEIRS, MUTED, INK = "#1f5fa8", "#d1521a", "#8a93a0", "#39424e"
CYCLE = ("#1f5fa8", "#d1521a", "#2a8a57", "#8b4fa3", "#b28a00", "#5d6b7a")
MARKERS = "osD^vP"
WIDTH, ROOM, ROW = 5.6, 0.75, 0.3
"""Inches; narrow enough that the text stays readable on a phone."""
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#b9c0c9", "axes.labelcolor": INK,
    "axes.grid": True, "grid.color": "#e8ebef", "axes.axisbelow": True,
    "xtick.color": INK, "ytick.color": INK, "svg.fonttype": "none", "svg.hashsalt": "report",
    "figure.facecolor": "white", "savefig.bbox": "tight", "savefig.pad_inches": 0.06,
}  # fmt: skip


def task_title(cell: CellResult) -> str:
    """The task's name in print."""
    task = cell.cell["task"]
    return benchmark(cell.benchmark).task_title(task["split"], task["protocol"])


def words_of(cell: CellResult, cells: Sequence[CellResult]) -> list[str]:
    """The benchmark, and of the setting only what differs among the cells."""
    found = [task_title(cell)]
    units = {"model": "{}", "semantics": "{}", "frames": "{} frames", "fps": "{:g} fps", "context": "context {}"}
    for key, form in units.items():
        if len({str(c.setting[key]) for c in cells if key in c.setting}) > 1 and key in cell.setting:
            found.append(form.format(cell.setting[key]))
    return found


def label_rows(axis: Any, labels: list[str]) -> None:
    """One label per row of a picture, the first on top."""
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
