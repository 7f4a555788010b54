"""Where lies what comes with the product: in a checkout at its root, in an installed package inside the package."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
"""The folder that `harness` is imported from."""
SHIPPED = PACKAGE / "shipped"
INSTALLED = SHIPPED.is_dir()
"""Whether this is an installed package: setup.py puts `conf`, `tasks` and the numbers of `results` into it."""
HOME = SHIPPED if INSTALLED else ROOT
"""The folder of `conf`, `tasks`, `results/expected`, `results/baselines` and `results/recipes`."""


def cache_folder() -> Path | None:
    """Where findings about files are remembered for this user; None where there is no home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adaretake"
    except RuntimeError:
        return None


def find(path: Path | str) -> Path:
    """A path of the configuration: as given where it exists, else among what comes with the product.

    Args:
        path: absolute, or below the current folder, `HOME`, or `ROOT` (``harness/toy/checkpoint``).

    Returns:
        A path that exists; where none does, the one in a checkout's root, for an installed package the one as given.
    """
    given = Path(path)
    if given.is_absolute() or given.exists():
        return given
    found = next((place / given for place in (HOME, ROOT) if (place / given).exists()), None)
    return found or (given if INSTALLED else ROOT / given)
