"""Records as JSON that carries a digest of itself, so that a change by hand is noticed."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

_SEAL = re.compile(rb',\s*"check":\s*"([0-9a-f]{8})"\s*\}\s*\Z')


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


def unseal(data: bytes) -> dict[str, Any]:
    """The record that `seal` wrote.

    Raises:
        NotRecordError: not a JSON object.
        EditedError: the digest is not that of the record.
    """
    try:
        record = json.loads(data)
    except ValueError as error:  # not JSON, or not UTF-8
        raise NotRecordError("not JSON") from error
    if not isinstance(record, dict):
        raise NotRecordError("not a JSON object")
    found = _SEAL.search(data)
    if found is None or found[1] != _digest(data[: found.start()]):
        raise EditedError(record)
    del record["check"]
    return record


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:8].encode()
