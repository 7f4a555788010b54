"""Where benchmarks lie on disk, and finding files there."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import UserError

REPO = Path(__file__).resolve().parents[2]
TASKS = REPO / "tasks"
TOY = ("videomme", "mlvu", "longvideobench", "lvbench")
"""Tasks whose data the toy has."""
VIDEO_SUFFIXES = (".mp4", ".MP4", ".mkv", ".webm", ".avi", ".mov")


def data_root() -> Path:
    """The folder of all benchmarks: the environment's ``ADARETAKE_DATA``, else the toy in the repository."""
    return Path(os.environ.get("ADARETAKE_DATA") or REPO / "data" / "toy")


def is_toy(root: Path) -> bool:
    """Whether the benchmarks below `root` are the toy's: it leaves a manifest there."""
    manifest = root / "manifest.json"
    return manifest.exists() and "generator" in manifest.read_text(encoding="utf-8")


def require(path: Path, what: str, task: str) -> Path:
    """`path`, if it exists.

    Raises:
        UserError: naming the path and the command that puts it there.
    """
    if path.exists():
        return path
    root = data_root()
    toy = root.resolve() == (REPO / "data" / "toy").resolve()
    if toy and task.removesuffix("_subtitles") not in TOY:
        raise UserError(f"the toy has no {task}; name another task, or another data.root (ADARETAKE_DATA)")
    where = "profile=toy" if toy else f"profile=published task={task} data.root={root}"
    raise UserError(f"{what} is missing: {path}. Get it with: python -m harness prepare {where}")


def find_video(folder: Path, name: str) -> Path:
    """The video `name` in `folder`, with or without suffix, also where the file's suffix differs from the name's.

    Uploads of the same benchmark differ in ``.mp4``, ``.MP4`` and ``.mkv``. A video that is nowhere comes back as
    the path where it should be, so that opening it names the place.
    """
    path = folder / name
    if path.suffix in VIDEO_SUFFIXES:
        if path.exists():
            return path
        path = path.with_suffix("")
    for suffix in VIDEO_SUFFIXES:
        if (candidate := path.with_name(path.name + suffix)).exists():
            return candidate
    return folder / name if Path(name).suffix in VIDEO_SUFFIXES else path.with_name(path.name + VIDEO_SUFFIXES[0])
