"""Files inside zip and tar archives, also archives cut into parts, without joining the parts on disk."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError

PART = re.compile(
    r"(?P<whole>.+\.(?:zip|tar|tgz|tar\.gz))[._-]?(?:part[._-]?)?(?P<number>[a-z]{2}|\d{1,4})$", re.IGNORECASE
)
WHOLE = re.compile(r".+\.(?:zip|tar|tgz|tar\.gz)$", re.IGNORECASE)


@dataclass(frozen=True)
class Archive:
    """An archive and the files that it is made of, in order."""

    name: str
    parts: tuple[Path, ...]


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path there, its size in bytes, and a function that opens it."""

    path: str
    size: int
    open: Callable[[], io.BufferedIOBase]


def archive_name(path: str) -> str | None:
    """The archive that a file is, or is a part of: ``videos.tar.part.aa`` and ``x.zip.001`` are parts."""
    if WHOLE.match(path):  # first: the end of x.tar.gz looks like the number of a part
        return path
    match = PART.match(path)
    return match["whole"] if match else None


def group_archives(paths: list[Path]) -> list[Archive]:
    """The archives among `paths`, parts brought together and sorted.

    Raises:
        UserError: a numbered part is missing in between.
    """
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        if whole := archive_name(str(path)):
            groups[whole].append(path)
    archives = [Archive(whole, tuple(sorted(parts))) for whole, parts in sorted(groups.items())]
    for archive in archives:
        _check_sequence(archive)
    return archives


def _check_sequence(archive: Archive) -> None:
    if archive.name == str(archive.parts[0]):
        return
    numbers = [PART.match(str(part))["number"].lower() for part in archive.parts]
    if numbers[0].isdigit():
        places = [int(number) for number in numbers]
    else:
        places = [26 * (ord(a) - ord("a")) + ord(b) - ord("a") for a, b in numbers]
    if places[0] > 1 or places != list(range(places[0], places[0] + len(places))):
        raise UserError(
            f"{archive.name} is cut into parts and one of them is missing: found {', '.join(numbers)}; "
            "get the missing part, then run the same command again"
        )


class JoinedFiles(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
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

    def readinto(self, buffer: memoryview) -> int:
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


def members(archive: Archive) -> Iterator[Member]:
    """The files in `archive`, in the order in which they are cheap to read.

    A member has to be read before the next one is asked for.

    Raises:
        UserError: the archive is damaged, or its last part is missing.
    """
    with io.BufferedReader(JoinedFiles(archive.parts), 1 << 20) as file:
        try:
            if archive.name.lower().endswith(".zip"):
                with zipfile.ZipFile(file) as opened:
                    for info in opened.infolist():
                        if not info.is_dir():
                            yield Member(info.filename, info.file_size, lambda i=info, z=opened: z.open(i))
            else:
                with tarfile.open(fileobj=file, mode="r:*") as opened:
                    for info in opened:
                        if info.isfile():
                            yield Member(info.name, info.size, lambda i=info, t=opened: t.extractfile(i))
        except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
            raise UserError(
                f"{archive.name} is damaged or incomplete ({error}); remove {archive.parts[-1]} and run the same "
                "command again to get it anew"
            ) from error


def write_member(member: Member, target: Path) -> None:
    """Unpack one member; `target` appears only when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    with member.open() as source, open(partial, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    if partial.stat().st_size != member.size:
        raise EOFError(f"{member.path} ends after {partial.stat().st_size} of {member.size} bytes")
    partial.rename(target)
