"""What a method leaves open, filled in: by its task, and by itself."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.benchmarks.config import TaskConfig
    from harness.compress.method import Method


def resolve_method(method: Method, task: TaskConfig) -> Method:
    """The method with the task's values where it has these options and leaves them null, and with its position rule.

    The releases set position reforge per benchmark; semantics ``paper`` has none.
    """
    options = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    changes: dict[str, Any] = {"positions": method.position_rule}
    if "reforge" in options and options["reforge"] is None:
        changes["reforge"] = task.reforge and options.get("semantics") != "paper"
    if "max_guide_length" in options and options["max_guide_length"] is None:
        changes["max_guide_length"] = task.max_guide_length
    return dataclasses.replace(method, **changes)
