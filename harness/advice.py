"""Commands that a message tells the user to run: they can be pasted as they stand."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
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


def program(name: str) -> str:
    """How to call a program of this Python environment from the current folder: `python`, `.venv/bin/hf` ..."""
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if found is not None and Path(found).absolute() == own.absolute():
        return name
    if not own.exists():
        return name
    here = os.path.relpath(own)
    return shlex.quote(str(own) if here.startswith("..") else here)


def harness(verb: str, overrides: Iterable[str] = (), *more: str) -> str:
    """A command of the harness.

    Args:
        overrides: words of the user's own command line; those that `more` sets again are left out. ``frames=[16]`` and
            ``matrix.frames=[32]`` set the same axis.
        more: further words.
    """
    again = {word.split("=")[0].removeprefix("matrix.") for word in more}
    words = [word for word in overrides if word.split("=")[0].removeprefix("matrix.") not in again]
    return f"{program('python')} -m harness {shlex.join([verb, *words, *more])}"


def install(*packages: str) -> str:
    """What puts packages into this Python environment."""
    return f"{program('python')} -m pip install {shlex.join(packages)}"


def aside(path: Path) -> str:
    """What moves a file or folder out of the way."""
    return shlex.join(["mv", str(path), f"{path}.old"])


def removal(folder: Path) -> str:
    """What removes a folder."""
    return shlex.join(["rm", "-r", str(folder)])


def download() -> str:
    """The hub's own command-line program."""
    if Path(sys.executable).with_name("hf").exists():
        return program("hf")
    return f"{program('python')} -m huggingface_hub.cli.hf"
