"""What has been computed of one video, kept for its next question."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

LIMIT_BYTES = 16 * 2**30  # all keys and values of 1024 frames of a 7B model are 4 GiB


def reused(memo: dict[Hashable, Any], key: Hashable, compute: Callable[[], T], limit_bytes: int | None = None) -> T:
    """The value of a key in `memo`, computed and kept if it is not there.

    Values that have `nbytes` take at most `limit_bytes` together (`None` = `LIMIT_BYTES`): those not used for longest
    go first, and one that is larger by itself is not kept.
    """
    limit = LIMIT_BYTES if limit_bytes is None else limit_bytes
    value: T = memo.pop(key) if key in memo else compute()
    if _nbytes(value) <= limit:
        memo[key] = value  # behind all others: in order of use
    total = sum(map(_nbytes, memo.values()))
    for old in list(memo):
        if total > limit and _nbytes(memo[old]):
            total -= _nbytes(memo.pop(old))
    return value


def _nbytes(value: Any) -> int:
    return int(getattr(value, "nbytes", 0))
