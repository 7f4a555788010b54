"""The first-token trap: the token behind the question is computed from what is cached before and with the question."""

from __future__ import annotations

from harness.compress.cache import CompressedCache
from harness.errors import UserError

TRAP = (
    "a method that evicts only after the question was prefilled cannot change the first token, and the letter that "
    "answers a question is the first token"
)


def trapped(what: str, instead: str) -> UserError:
    """The error of a setting, or of a method, that evicts too late: what it is, and what to do instead."""
    return UserError(f"{what}: {TRAP}; {instead}")


def slots(cache: CompressedCache) -> list[list[int]]:
    """Slots of every layer and head [L][kv], to be compared later."""
    return [list(cache.head_lengths(layer)) for layer in range(cache.num_layers)]


def check_nothing_evicted(method: str, behind_question: list[list[int]], cache: CompressedCache) -> None:
    """Raise UserError where a method changed the cache between the question and the first token."""
    if slots(cache) != behind_question:
        raise trapped(f"method {method} evicts behind the question", "evict in before_question, or behind every chunk")
