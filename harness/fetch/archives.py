"""Files inside zip and tar archives, also archives cut into parts, without joining the parts on disk."""

from __future__ import annotations

import io
import lzma
import re
import shutil
import struct
import sys
import tarfile
import time
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from harness.errors import UserError

ARCHIVE = r"\.(?:zip|tgz|tar(?:\.(?:gz|bz2|xz))?)"
WHOLE = re.compile(rf".+{ARCHIVE}", re.IGNORECASE)
PART = re.compile(rf"(?P<whole>.+{ARCHIVE})[._-]?(?:part[._-]?)?(?P<number>[a-z]{{1,2}}|\d{{1,4}})", re.IGNORECASE)
STEP = 1 << 20
"""Bytes copied at a time."""
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error, UnicodeError,
    NotImplementedError,
)  # fmt: skip
"""What the libraries raise for data that are no whole archive."""


@dataclass(frozen=True)
class Archive:
    """An archive and the files that it is made of, in order."""

    name: str
    parts: tuple[Path, ...]

    @property
    def checked_at_end(self) -> bool:
        """Whether only its end tells that its members are right: one checksum, and it is that of all."""
        return not self.name.lower().endswith((".zip", ".tar"))

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.stat().st_size for part in self.parts)


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path there, the bytes that it is said to have, and a function that opens it."""

    path: str
    size: int
    open: Callable[[], IO[bytes]]


def archive_name(path: str) -> str | None:
    """The archive that a file is, or is a part of: ``videos.tar.part.aa``, ``x.tar.gz.part-a`` and ``x.zip.001``."""
    if WHOLE.fullmatch(path):  # first: the end of x.tar.gz looks like the number of a part
        return path
    match = PART.fullmatch(path)
    return match["whole"] if match else None


def group_archives(paths: Sequence[Path]) -> list[Archive]:
    """The archives among `paths`, parts brought together and sorted.

    Raises:
        UserError: a part is missing in between, or parts are numbered in two ways.
    """
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        if whole := archive_name(str(path)):
            groups[whole].append(path)
    return [_in_order(whole, parts) for whole, parts in sorted(groups.items())]


def _in_order(whole: str, parts: list[Path]) -> Archive:
    numbers = {_number(part): part for part in parts if str(part) != whole}
    if not numbers:
        return Archive(whole, tuple(parts))
    order = sorted(numbers, key=_place)
    places = [_place(text) for text in order]
    kinds = {"digits" if text.isdigit() else len(text) for text in numbers}
    unbroken = places[0] <= int(order[0].isdigit()) and places == list(range(places[0], places[0] + len(places)))
    if len(kinds) > 1 or len(numbers) < len(parts) or not unbroken:
        raise UserError(
            f"{whole} is cut into parts and one of them is missing or there twice: found {', '.join(order)}; leave one "
            "whole set of parts there, then run the same command again"
        )
    return Archive(whole, tuple(numbers[text] for text in order))


def _number(part: Path) -> str:
    match = PART.fullmatch(str(part))
    assert match is not None
    return match["number"].lower()


def _place(text: str) -> int:
    if text.isdigit():
        return int(text)
    places = [ord(letter) - ord("a") for letter in text]
    return 26 * places[0] + places[1] if len(places) == 2 else places[0]


class JoinedFiles(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [open(path, "rb") for path in paths]
        self._sizes = [path.stat().st_size for path in paths]
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: sum(self._sizes)}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        start = 0
        for file, size in zip(self._files, self._sizes, strict=True):
            if self._place < start + size:
                file.seek(self._place - start)
                n = file.readinto(buffer)
                self._place += n
                return n
            start += size
        return 0

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


@contextmanager
def opened(archive: Archive) -> Iterator[Iterator[list[Member]]]:
    """The files in `archive`, in the order in which they are cheap to read, as many at a time as are known: a zip's all
    at once, a tar's one by one. They have to be read before the next ones are asked for.

    Raises:
        UserError: the archive is damaged or encrypted, or its last part is missing; also where reading a member inside
            the ``with`` shows it.
    """
    with io.BufferedReader(JoinedFiles(archive.parts), STEP) as file:
        try:
            if archive.name.lower().endswith(".zip"):
                with zipfile.ZipFile(file) as zipped:
                    yield iter([_zip_members(zipped, archive)])
            else:
                with tarfile.open(fileobj=file, mode="r:*") as tarred:
                    yield _tar_members(tarred)
        except DAMAGE as error:
            raise _damaged(archive, error) from error
        except OSError as error:
            if error.errno is None:  # gzip and bz2 raise it so for damaged data
                raise _damaged(archive, error) from error
            raise UserError(f"unpacking {archive.name} failed: {error}") from error


def _zip_members(zipped: zipfile.ZipFile, archive: Archive) -> list[Member]:
    infos = [info for info in zipped.infolist() if not info.is_dir()]
    if locked := [info.filename for info in infos if info.flag_bits & 1]:
        raise UserError(
            f"{archive.name} is encrypted ({len(locked)} files, the first is {locked[0]!r}); no benchmark is given out "
            "so: get the archive from its publisher"
        )
    return [Member(info.filename, info.file_size, partial(zipped.open, info)) for info in infos]


def _tar_members(tarred: tarfile.TarFile) -> Iterator[list[Member]]:
    for info in tarred:
        if info.isfile():
            yield [_tar_member(tarred, info)]
    while tarred.fileobj and tarred.fileobj.read(STEP):  # a compressed file's checksum stands at its end
        pass


def _tar_member(tarred: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    def read() -> IO[bytes]:
        found = tarred.extractfile(info)
        assert found is not None  # it is a file
        return found

    return Member(info.name, info.size, read)


def _damaged(archive: Archive, error: Exception) -> UserError:
    return UserError(
        f"{archive.name} is damaged or incomplete ({error}); remove {archive.parts[-1]} and run the same command again "
        "to get it anew"
    )


def write_member(member: Member, target: Path) -> None:
    """Unpack one member; `target` appears only when it is complete.

    Raises:
        EOFError: it has fewer or more bytes than it is said to have; no more than those are written.
        OSError: of the disk.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    left = member.size
    try:
        with member.open() as source, open(partial, "wb") as out:
            while chunk := source.read(min(STEP, left + 1)):
                left -= len(chunk)
                if left < 0:
                    break
                out.write(chunk)
        if left:
            raise EOFError(f"{member.path[:200]!r} has {'more' if left < 0 else 'less'} than its {member.size} bytes")
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


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
