"""Where benchmarks lie on disk, and the files of one of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.advice import harness
from harness.errors import UserError
from harness.places import HOME, INSTALLED, ROOT

TASKS = HOME / "tasks"
TOY = Path("data/toy") if INSTALLED else ROOT / "data" / "toy"
VIDEO_SUFFIXES = (".mp4", ".MP4", ".mkv", ".webm", ".avi", ".mov")
LONGEST_NAME = 250
"""Bytes of a file's name, a suffix of a video to come; file systems take 255."""


def data_root() -> Path:
    """The folder of all benchmarks: the environment's ``ADARETAKE_DATA``, else where the toy is made."""
    return Path(os.environ.get("ADARETAKE_DATA") or TOY)


def is_toy(root: Path) -> bool:
    """Whether the benchmarks below `root` are the toy's: it leaves a manifest there."""
    manifest = root / "manifest.json"
    return manifest.exists() and "generator" in manifest.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Folder:
    """A benchmark's folder below a data root. ``task`` is the one to prepare where a file is missing."""

    root: Path
    benchmark: str
    task: str

    def place(self, name: str) -> Path:
        """The path of `name` in the folder, whether it exists or not.

        Names come from annotations, so none leads out of the folder. Links are followed: prepare makes some.

        Raises:
            UserError: it is absolute, holds ``..``, or is no name that a file can have.
        """
        if not all(map(usable, name.split("/"))):
            raise UserError(
                f"the annotation of {self.benchmark} names the file {name[:80]!r}; allowed: files below "
                f"{self.root / self.benchmark}, with names of at most {LONGEST_NAME} bytes. {self._remedy()}"
            )
        return self.root / self.benchmark / name

    def file(self, name: str, what: str) -> Path:
        """The path of `name`, which exists; `what` names it in a message.

        Raises:
            UserError: it does not; the message holds the command that puts it there.
        """
        path = self.place(name)
        if not path.exists():
            raise UserError(f"{what} is missing: {path}. {self._remedy()}")
        return path

    def video(self, names: Iterable[str]) -> Path:
        """The first of `names` that exists, else where the first should be, so that opening it names the place."""
        found = [_with_any_suffix(self.place(name)) for name in names]
        return next((path for path in found if path.exists()), found[0])

    def _remedy(self) -> str:
        where = f"data.root={self.root}"
        if is_toy(self.root):
            return (
                f"The data root {self.root} holds the toy, which has no such file: name another task or data.root, or "
                f"build it anew: rm -r {shlex.quote(str(self.root))} && {harness('prepare', ['profile=toy', where])}"
            )
        toy = self.root.resolve() == TOY.resolve()
        words = ["profile=toy"] if toy else ["profile=published", f"task={self.task}", where]
        return f"Get it with: {harness('prepare', words)}"


def usable(name: str) -> bool:
    """Whether a file of a benchmark, or a folder on the way to it, can have this name."""
    try:
        return 0 < len(name.encode()) <= LONGEST_NAME and name != ".." and all(char >= " " for char in name)
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can hold it, no file can
        return False


def _with_any_suffix(path: Path) -> Path:
    """The video `path`, with or without suffix, also where the file's suffix differs from the name's.

    Uploads of the same benchmark differ in ``.mp4``, ``.MP4`` and ``.mkv``.
    """
    if path.suffix in VIDEO_SUFFIXES and path.exists():
        return path
    stem = path.with_suffix("") if path.suffix in VIDEO_SUFFIXES else path
    found = (stem.with_name(stem.name + suffix) for suffix in VIDEO_SUFFIXES)
    missing = path if stem != path else stem.with_name(stem.name + VIDEO_SUFFIXES[0])
    return next((candidate for candidate in found if candidate.exists()), missing)
