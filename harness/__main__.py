"""``python -m harness <verb> [settings]``."""

import gc
import sys

from harness.cli import main

GARBAGE = (50_000, 20, 20)
"""Containers made before each look for reference cycles, and looks before a longer one. With Python's own numbers a
third of the time to read a large results folder goes into looking again and again through what stays; answering leaves
no cycle behind."""


def run() -> None:
    """The command ``adaretake`` of an installed package."""
    gc.set_threshold(*GARBAGE)
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
