"""Where each file of a download goes, so that every benchmark ends in one layout whatever its upload looked like."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from harness.benchmarks.files import VIDEO_SUFFIXES

VIDEO = "<video>"
SUFFIXES = {suffix.lower() for suffix in VIDEO_SUFFIXES}


def destination(path: str, rules: Sequence[dict[str, str]], split: str) -> PurePosixPath | None:
    """Where the file `path` of a download goes below the benchmark's folder; None for what is not needed.

    A rule is ``{match, to}``, optionally with the ``split`` that it is for. ``match`` is compared with the path after a
    leading slash, case-insensitively; its end ``.<video>`` stands for any suffix of a video. ``to`` may name the
    file's ``{name}`` and the ``{parent}`` folder.

    Only the last two parts of `path` are ever used, so that no archive can write outside.
    """
    pure = PurePosixPath(path.replace("\\", "/"))
    if pure.name.startswith(".") or "__MACOSX" in pure.parts or ".." in pure.parts[-2:]:
        return None
    for rule in rules:
        if rule.get("split", split) == split and _matches(f"/{pure}".replace("//", "/").lower(), rule["match"].lower()):
            return PurePosixPath(rule["to"].format(name=pure.name, parent=pure.parent.name))
    return None


def _matches(path: str, pattern: str) -> bool:
    if pattern.endswith(f".{VIDEO}"):
        stem, dot, suffix = path.rpartition(".")
        return f"{dot}{suffix}" in SUFFIXES and fnmatchcase(stem, pattern.removesuffix(f".{VIDEO}"))
    return fnmatchcase(path, pattern)


def link(source: Path, target: Path) -> None:
    """Make `target` a link to `source`: loose files on disk are not copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() and not target.exists():
        target.unlink()
    if not target.exists():
        target.symlink_to(source.resolve())
