"""The axes of a table, and which place wins where several set one. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from harness.errors import UserError
from harness.setting import setting

A = TypeVar("A", bound="Axes")

AXES: dict[str, tuple[str, ...]] = {
    "task": ("task",),
    "model": ("model",),
    "method": ("method",),
    "frames": ("video.max_frames", "video"),
    "fps": ("video.fps", "video"),
    "context": ("context.tokens", "context"),
    "semantics": ("method.semantics",),
    "variant": ("method.temporal", "method.layers"),
    "subset": ("task.subset",),
    "replicate": ("task.replicate",),
}
"""Axis -> the settings that it stands for. One of these on the command line replaces the axis."""


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
        own = {axis: values for axis in AXES if (values := getattr(row, axis)) is not None}
        return dataclasses.replace(
            self,
            **own,
            rows=[],
            by_model={name: _unset(axes, own) for name, axes in self.by_model.items()},
            by_task={name: _unset(axes, own) for name, axes in self.by_task.items()},
        )


def settle(matrix: MatrixConfig, profile: str, overrides: Iterable[str]) -> MatrixConfig:
    """Give each axis to the place that wins, see `MatrixConfig`; only `by_model` and `by_task` are left to look up.

    Args:
        matrix: with `Axes` as the values of its three mappings.
        overrides: words of the command line, ``key=value``.

    Raises:
        UserError: the command line gives both an axis and a setting that the axis stands for.
    """
    given = {key: value for key, _, value in (word.partition("=") for word in overrides)}
    own: ProfileAxes = matrix.by_profile.get(profile, ProfileAxes())
    won: dict[str, Any] = {}
    for axis, settings in AXES.items():
        word = next((key for key in settings if key in given), None)
        if f"matrix.{axis}" in given:
            if word is not None and given[f"matrix.{axis}"] != "null":
                raise UserError(
                    f"{word}={given[word]} and matrix.{axis}={given[f'matrix.{axis}']} both set what matrix.{axis} "
                    "stands for; keep one of them"
                )
            won[axis] = getattr(matrix, axis)
        elif word is not None:
            won[axis] = None
        elif getattr(own, axis) is not None:
            won[axis] = getattr(own, axis)
    given_axes = {axis for axis, settings in AXES.items() if given.keys() & {*settings, f"matrix.{axis}"}}
    rows = matrix.rows if own.rows is None or "matrix.rows" in given else own.rows
    return dataclasses.replace(
        matrix,
        **won,
        rows=[_unset(row, given_axes) for row in rows],
        by_profile={},
        by_model=_without(matrix.by_model, "matrix.by_model", won, given),
        by_task=_without(matrix.by_task, "matrix.by_task", won, given),
    )


def _unset(axes: A, names: Iterable[str]) -> A:
    """Axes without those of these names."""
    return dataclasses.replace(axes, **dict.fromkeys({*names} & {field.name for field in dataclasses.fields(axes)}))


def _without(places: dict[str, Axes], prefix: str, won: Iterable[str], given: Mapping[str, str]) -> dict[str, Axes]:
    """The exceptions for single models or tasks, less the axes won by another place."""
    kept = {}
    for name, axes in places.items():
        said = {
            axis for axis in won if any(k in given for k in (prefix, f"{prefix}.{name}", f"{prefix}.{name}.{axis}"))
        }
        kept[name] = _unset(axes, {*won} - said)
    return kept
