"""Where pictures of single answers lie: the verb `show` writes them, pages of answers hang them at their question."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

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
