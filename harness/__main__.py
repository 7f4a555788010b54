"""``python -m harness <verb> [settings]``."""

import gc
import importlib.util
import sys

from harness.cli import main

GARBAGE = (50_000, 20, 20)
"""Containers made before each look for reference cycles, and looks before a longer one. With Python's own numbers a
third of the time to read a large results folder goes into looking again and again through what stays; answering leaves
no cycle behind."""


def load_late(name: str) -> None:
    """Import a module only when one of its attributes is first used.

    The options of a method are the fields of a class in a module that computes with torch; reading them needs no torch.
    """
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def run() -> None:
    """The command ``adaretake`` of an installed package."""
    gc.set_threshold(*GARBAGE)
    load_late("torch")
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
