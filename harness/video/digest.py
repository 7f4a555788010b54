"""Which file a video is, by its size and a digest of some of its bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from harness.store import StoreError, write_atomic

BLOCKS = 16
BLOCK_BYTES = 2**16


def video_digest(path: Path | str) -> str:
    """`<bytes>-<digest>` of a file: its size, and 16 hexadecimal digits of `BLOCKS` blocks from first to last.

    At most one MiB is read, however long the video: two encodings of a video, or two videos, differ in size or in the
    tables at the beginning or the end that name the length of every frame.

    Raises OSError when the file cannot be read.
    """
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        digest = hashlib.sha256()
        last = max(0, size - BLOCK_BYTES)
        for start in sorted({last * number // (BLOCKS - 1) for number in range(BLOCKS)}):
            stream.seek(start)
            digest.update(stream.read(BLOCK_BYTES))
    return f"{size}-{digest.hexdigest()[:16]}"


class Digests:
    """`video_digest` of many files, remembered in a JSON file until size or times of a video change.

    The time of the last change of the inode counts too: copying with `cp -p` keeps the other one.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._known: dict[str, list[str | int]] = {}
        with contextlib.suppress(OSError, ValueError):  # absent or damaged: all is read again
            found = json.loads(memory.read_bytes())
            self._known = found if isinstance(found, dict) else {}
        self._changed = False

    def of(self, path: Path) -> str | None:
        """The digest; None where there is no such file."""
        try:
            status = os.stat(path)
            name, key = os.path.abspath(path), [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            held = self._known.get(name)
            if not (isinstance(held, list) and held[1:] == key and isinstance(held[0], str)):
                held = [video_digest(path), *key]
                self._known[name], self._changed = held, True
            return str(held[0])
        except OSError:
            return None

    def save(self) -> None:
        """Write what was learnt. A folder that takes nothing costs only time, at the next start."""
        if self._changed:
            with contextlib.suppress(StoreError):
                write_atomic(self._memory, json.dumps(self._known, indent=0) + "\n")
            self._changed = False
