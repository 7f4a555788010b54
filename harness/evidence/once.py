"""What depends on one thing alone is found out once, and goes with it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Once:
    """Base of what remembers findings about itself; what is made of it with `dataclasses.replace` knows them too."""

    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False, kw_only=True)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns; it is called the first time."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found
