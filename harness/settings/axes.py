"""The axes of a table. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from harness.settings.rules import setting

A = TypeVar("A", bound="Axes")

CHOICES = ("task", "model", "method")
"""Axes that choose an option of a group."""


@dataclass
class Axes:
    """Axes that settings of one group make; null leaves the place above it, in the end the group's own value."""

    frames: list[int] | None = None
    fps: list[float] | None = None
    context: list[int | None] | None = None
    variant: list[str] | None = None
    semantics: list[str] | None = None
    subset: list[str | None] | None = None
    replicate: list[int] | None = None


@dataclass
class Row(Axes):
    """Some rows of a table: the combinations of its axes."""

    task: list[str] | None = None
    model: list[str] | None = None
    method: list[str] | None = None


AXIS_NAMES = tuple(field.name for field in dataclasses.fields(Row))


@dataclass
class ProfileAxes(Row):
    """What a table is under a profile; its rows take the place of the table's own."""

    rows: list[Any] | None = None


@dataclass
class MatrixConfig(Row):
    """The axes of a table; every combination is one cell.

    The more specific place wins: the command line, then a row, ``by_task``, ``by_model``, ``by_profile``, the matrix
    itself, and the groups. ``by_profile`` also wins over ``by_task`` and ``by_model`` where it sets the same axis: it
    is another table.

    A table that is no plain product of its axes lists ``rows``, each a :class:`Row` and a product of its own.
    """

    name: str = setting(name=True)
    rows: list[Any] = field(default_factory=list)
    by_profile: dict[str, Any] = field(default_factory=dict)
    by_model: dict[str, Any] = field(default_factory=dict)
    by_task: dict[str, Any] = field(default_factory=dict)

    def values(self, axis: str, task: str, model: str) -> list[Any] | None:
        """The values of an axis for one task and model, from the most specific place that sets it; None without."""
        places = (self.by_task.get(task), self.by_model.get(model), self)
        found = (getattr(place, axis) for place in places if place is not None)
        return next((list(values) for values in found if values is not None), None)

    @property
    def parts(self) -> list[MatrixConfig]:
        """A matrix without rows for each row of this one."""
        return [self._of(row) for row in self.rows] or [self]

    def _of(self, row: Row) -> MatrixConfig:
        own = {axis: values for axis in AXIS_NAMES if (values := getattr(row, axis)) is not None}
        return dataclasses.replace(
            self,
            **own,
            rows=[],
            by_model={name: unset(axes, own) for name, axes in self.by_model.items()},
            by_task={name: unset(axes, own) for name, axes in self.by_task.items()},
        )


def unset(axes: A, names: Iterable[str]) -> A:
    """Axes without those of these names."""
    return dataclasses.replace(axes, **dict.fromkeys({*names} & {field.name for field in dataclasses.fields(axes)}))
