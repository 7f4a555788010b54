"""What may be written, and when: whole files or none, and one writer per place."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.errors import UserError


class StoreError(UserError):
    """The results folder cannot take a record (full disk, no permission, a second writer).

    It stops a run: going on would only lose what comes next.
    """


def sync_folder(folder: Path) -> None:
    """Make a new or renamed entry of `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Write `content` to `path`, creating its folder: a reader sees the old file or the new one, never a part.

    Raises StoreError when the file cannot be written; the old file is then still there.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder itself may be what is missing
            draft.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}. Free space there (df -h {path.parent}), change "
            "its owner, or choose another folder with results=<folder>; then start the same command again."
        ) from error


def hold(lock: Path, wait_s: float = 0.0) -> AbstractContextManager[Any]:
    """Take a lock for this process, waiting at most `wait_s` seconds; leaving the context frees it.

    Args:
        lock: the file that stands for it; its folder is made. The operating system frees the lock with the process
            that holds it. The file stays behind on purpose: deleting it would let two processes lock two files.

    Raises StoreError when another process holds it, or it cannot be made.
    """
    try:
        return FileLock(lock, thread_local=False).acquire(timeout=wait_s, poll_interval=0.05)
    except Timeout as error:
        raise StoreError(
            f"another process is writing in {lock.parent}. Wait for that run to end or stop it "
            f"(fuser -v {lock} names it); then start the same command again."
        ) from error
    except OSError as error:
        raise StoreError(
            f"cannot write {lock}: {error.strerror or error}. Choose a folder you may write to with results=<folder>."
        ) from error
