"""Which file this is: a digest of all of its bytes, remembered until the file changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from pathlib import Path

from harness.places import cache_folder

SETTLED_S = 2.0
"""A file that changed this recently is not remembered: a further change might leave its times as they are."""
MANY_BYTES = 2**30
"""From this size on all processors share the work."""


def file_digest(path: Path | str) -> str:
    """`<bytes>-<digest>` of a file: its size, and 32 hexadecimal digits of BLAKE3 over all of its bytes.

    Remembered in the user's cache folder by place, size, times and inode of the file. The time of the last change of
    the inode counts because copying with `cp -p` keeps the other one.

    Raises OSError when the file cannot be read, or is no regular file.
    """
    name = os.path.abspath(path)
    status = os.stat(name)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{name} is not a regular file")
    state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]
    note = _note(name)
    with contextlib.suppress(OSError, ValueError, TypeError):  # absent or damaged: the file is read again
        *known, digest = json.loads(note.read_bytes()) if note is not None else [None]
        if known == state and isinstance(digest, str):
            return f"{status.st_size}-{digest}"
    from blake3 import blake3

    hasher = blake3(max_threads=blake3.AUTO if status.st_size > MANY_BYTES else 1)
    digest = hasher.update_mmap(name).hexdigest()[:32]
    settled = time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_S
    if note is not None and settled:
        with contextlib.suppress(OSError):  # a cache folder that cannot be written costs another reading
            note.parent.mkdir(parents=True, exist_ok=True)
            draft = note.with_suffix(f".{os.getpid()}.tmp")
            draft.write_text(json.dumps([*state, digest]))
            draft.replace(note)
    return f"{status.st_size}-{digest}"


def digest_now(path: Path | str) -> str | None:
    """`file_digest`; None where there is no such file."""
    try:
        return file_digest(path)
    except OSError:
        return None


def is_remembered(path: Path | str) -> bool:
    """Whether some digest of a file at this place was taken before; a changed file is read again all the same."""
    note = _note(os.path.abspath(path))
    return note is not None and note.exists()


def _note(name: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "digests" / hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
