"""Where tables are printed: a terminal has a width, a pipe or a file has none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

UNBROKEN = 10_000
"""Columns of an output that is no terminal: the id of a cell stays on one line, whole."""


def open_console(stream: TextIO | None = None) -> Console:
    """A console that breaks the lines of tables at the width of a terminal, and nowhere else.

    Args:
        stream: where it prints; standard output where none is given.
    """
    from rich.console import Console

    stream = stream or sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else UNBROKEN)
