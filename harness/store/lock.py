"""One writer per place, enforced by the operating system: a lock ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from harness.store.atomic import StoreError


def lock_descriptor(descriptor: int, path: Path, wait_s: float = 0.0) -> None:
    """Take the exclusive lock on an open file, waiting at most `wait_s` seconds for its holder to end.

    Raises StoreError when another process still holds it.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"another process is writing {path}. Wait for that run to end or stop it "
                    f"(fuser -v {path} names it); then start the same command again."
                ) from error
            time.sleep(0.05)


class FolderLock:
    """Context manager: this process alone starts work in `folder` (the lock is the file `.lock` in it).

    The file stays behind on purpose: deleting it would let two processes lock two different files.

    Raises StoreError on entry when another live process holds the folder.
    """

    def __init__(self, folder: Path | str, wait_s: float = 0.0) -> None:
        self.path = Path(folder) / ".lock"
        self._wait_s = wait_s
        self._descriptor: int | None = None

    def __enter__(self) -> FolderLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(
                f"cannot create {self.path}: {error.strerror or error}. "
                "Choose a folder you may write to with results=<folder>."
            ) from error
        try:
            lock_descriptor(descriptor, self.path, self._wait_s)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
