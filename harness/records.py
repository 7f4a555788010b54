"""How records lie on disk: each with a digest of itself, files whole or not at all, one writer per place."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.errors import UserError

_SEAL = re.compile(rb',\s*"check":\s*"([0-9a-f]{8})"\s*\}\s*\Z')
_SEAL_ROOM = 64
"""Bytes at the end of a record in which its digest stands."""


class StoreError(UserError):
    """The results folder cannot take a record (full disk, no permission, a second writer).

    It stops a run: going on would only lose what comes next.
    """


class NotRecordError(ValueError):
    """Not the JSON of an object at all: torn, or foreign."""


class EditedError(ValueError):
    """Whole, but not as it was written: its digest is absent or another one. `record` is what it says now."""

    def __init__(self, record: dict[str, Any]) -> None:
        super().__init__("it is not as it was written, its digest differs")
        self.record = record


def seal(record: dict[str, Any], indent: int | None = None) -> bytes:
    """A record as ASCII JSON, newline included, whose last member `check` is a digest of what stands before it."""
    text = json.dumps(record, allow_nan=False, indent=indent, separators=None if indent else (",", ":"))
    body = text.encode("ascii")[:-1].rstrip()
    gap = b"\n" + b" " * indent if indent else b""
    return body + b',%s"check":"%s"}\n' % (gap, _digest(body))


def sealed_body(data: bytes) -> bytes | None:
    """A record of one line without its digest and closing brace, where the digest is right; else None."""
    found = _SEAL.search(data, max(0, len(data) - _SEAL_ROOM))
    return data[: found.start()] if found is not None and found[1] == _digest(data[: found.start()]) else None


def unseal(data: bytes) -> dict[str, Any]:
    """The record that `seal` wrote.

    Raises:
        NotRecordError: not a JSON object.
        EditedError: the digest is not that of the record.
    """
    try:
        record = json.loads(data.decode("utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise NotRecordError("not JSON") from error
    if not isinstance(record, dict):
        raise NotRecordError("not a JSON object")
    if sealed_body(data) is None:
        raise EditedError(record)
    del record["check"]
    return record


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:8].encode()


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
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")  # process ids of two machines may be equal
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
            f"cannot write {path}: {error.strerror or error}. Free space there (df -h {path.parent}), change its "
            "owner, or choose another folder (results=<folder>, output=<folder>); then start the same command."
        ) from error


def made_folder(folder: Path, instead: str) -> Path:
    """A folder that can be written, made where it is absent: asked before long work whose end is written there.

    Args:
        instead: the setting that names another one, as in ``output=<folder>``.

    Raises StoreError when it cannot be made, or takes no file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or error
        raise StoreError(f"{folder} cannot be written: {why}; choose another with {instead}") from error
    return folder


class _ExclusiveLock(FileLock):
    """A class of our own, because lmms-eval makes filelock's classes reentrant in the process that it runs in."""


def hold(lock: Path, wait_s: float = 0.0) -> AbstractContextManager[Any]:
    """Take a lock for this process, waiting at most `wait_s` seconds; leaving the context frees it.

    Args:
        lock: the file that stands for it; its folder is made. The operating system frees the lock with the process
            that holds it. The file stays behind on purpose: deleting it would let two processes lock two files.

    Raises StoreError when another process holds it, or it cannot be made.
    """
    try:
        return _ExclusiveLock(lock, thread_local=False).acquire(timeout=wait_s, poll_interval=0.05)
    except Timeout as error:
        raise StoreError(
            f"another process is writing in {lock.parent}. Wait for that run to end or stop it "
            f"(fuser -v {lock} names it); then start the same command again."
        ) from error
    except OSError as error:
        raise StoreError(
            f"cannot write {lock}: {error.strerror or error}. Choose a folder you may write to with results=<folder>."
        ) from error
