"""Unpacking an archive no further than it may go: what it says of itself is checked before a byte is written."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness.errors import UserError
from harness.fetch.archives import Archive, opened, write_member

SPARE = 1 << 30
"""Bytes of the disk that stay free."""
SMALL = 100_000_000
"""Bytes that any archive may unpack to."""
EXPANDS = 20
"""Larger ones may unpack to this many times their size: videos hardly compress, subtitles about eightfold."""


def unpack(archive: Archive, target_of: Callable[[str], Path | None], folder: Path, most: float) -> None:
    """Unpack the members of `archive` that have a target and are not there yet.

    Args:
        target_of: from a member's path to where it goes; None for what is not needed.
        folder: on the disk that has to hold them.
        most: bytes that they may have in all; see also `EXPANDS`.

    Raises:
        UserError: the archive is damaged, says that it has more than it may, or more than fits onto the disk. What is
            unpacked until then stays where it is known to be right.
    """
    written: list[Path] = []
    try:
        _unpack(archive, target_of, folder, max(SMALL, min(EXPANDS * archive.size, most)), written)
    except UserError:
        for path in written if archive.checked_at_end else []:
            path.unlink()
        raise


def _unpack(
    archive: Archive, target_of: Callable[[str], Path | None], folder: Path, most: float, written: list[Path]
) -> None:
    progress = _Progress(f"unpacking {Path(archive.name).name}")
    left = most
    with opened(archive) as members:
        for known in members:
            found = [(member, target_of(member.path)) for member in known]
            todo = [(m, t) for m, t in found if t and not (t.exists() and t.stat().st_size == m.size)]
            size = sum(member.size for member, _ in todo)
            if size > left:
                raise UserError(
                    f"{archive.name} ({gigabytes(archive.size)}) says that it unpacks to more than the "
                    f"{gigabytes(most)} that it may; nothing more of it is unpacked. Get it from its publisher"
                )
            check_disk(folder, size, archive.name)
            left -= size
            for member, target in todo:
                write_member(member, target)
                written.append(target)
            for member in known:
                progress.step(member.size)
    progress.close()


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Whether `needed` more bytes fit onto the disk of `folder`.

    Raises:
        UserError: they do not, with both numbers.
    """
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        raise UserError(
            f"{folder} has {gigabytes(free)} free; {what} needs {gigabytes(needed)} more (and {gigabytes(SPARE)} to "
            "spare): make room or choose another data.root"
        )


class _Progress:
    """Bytes unpacked so far, on one line of a terminal; silent elsewhere until the end."""

    def __init__(self, title: str) -> None:
        self._title, self._files, self._bytes, self._shown = title, 0, 0, 0.0

    def step(self, size: int) -> None:
        self._files, self._bytes = self._files + 1, self._bytes + size
        if sys.stderr.isatty() and time.monotonic() - self._shown > 0.5:
            self._shown = time.monotonic()
            print(f"\r{self._line()}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        print(f"{chr(13) if sys.stderr.isatty() else ''}{self._line()}", file=sys.stderr)

    def _line(self) -> str:
        return f"  {self._title}: {self._files} files, {gigabytes(self._bytes)}"


def gigabytes(size: float) -> str:
    """A number of bytes in print."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"
