"""The axes of a table, and which place wins where several set one. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UserError
from harness.setting import setting

AXES: dict[str, tuple[str, ...]] = {
    "task": ("task",),
    "model": ("model",),
    "method": ("method",),
    "frames": ("video.max_frames", "video"),
    "fps": ("video.fps", "video"),
    "context": ("context.tokens", "context"),
    "semantics": ("method.semantics",),
    "variant": ("method.temporal", "method.layers"),
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


@dataclass
class MatrixConfig(Axes):
    """The axes of a table; every combination is one cell.

    The more specific place wins: the command line, then ``by_task``, ``by_model``, ``by_profile``, the matrix itself,
    and the groups. ``by_profile`` also wins over the other two where it sets the same axis: it is another table.
    """

    name: str = setting(name=True)
    model: list[str] | None = None
    method: list[str] | None = None
    task: list[str] | None = None
    by_profile: dict[str, Any] = field(default_factory=dict)
    by_model: dict[str, Any] = field(default_factory=dict)
    by_task: dict[str, Any] = field(default_factory=dict)

    def values(self, axis: str, task: str, model: str) -> list[Any] | None:
        """The values of an axis for one task and model, from the most specific place that sets it; None without."""
        places = (self.by_task.get(task), self.by_model.get(model), self)
        found = (getattr(place, axis) for place in places if place is not None)
        return next((list(values) for values in found if values is not None), None)


def settle(matrix: MatrixConfig, profile: str, overrides: Iterable[str]) -> MatrixConfig:
    """Give each axis to the place that wins, see `MatrixConfig`; only `by_model` and `by_task` are left to look up.

    Args:
        matrix: with `Axes` as the values of its three mappings.
        overrides: words of the command line, ``key=value``.

    Raises:
        UserError: the command line gives both an axis and a setting that the axis stands for.
    """
    given = {key: value for key, _, value in (word.partition("=") for word in overrides)}
    own: Axes = matrix.by_profile.get(profile, Axes())
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
        elif getattr(own, axis, None) is not None:
            won[axis] = getattr(own, axis)
    return dataclasses.replace(
        matrix,
        **won,
        by_profile={},
        by_model=_without(matrix.by_model, "matrix.by_model", won, given),
        by_task=_without(matrix.by_task, "matrix.by_task", won, given),
    )


def _without(places: dict[str, Axes], prefix: str, won: Iterable[str], given: Mapping[str, str]) -> dict[str, Axes]:
    """The exceptions for single models or tasks, less the axes won by another place."""
    kept = {}
    for name, axes in places.items():
        said = {
            axis for axis in won if any(k in given for k in (prefix, f"{prefix}.{name}", f"{prefix}.{name}.{axis}"))
        }
        lost = [axis.name for axis in dataclasses.fields(axes) if axis.name in won and axis.name not in said]
        kept[name] = dataclasses.replace(axes, **dict.fromkeys(lost))
    return kept
