"""The words of a command line as settings of the matrix: which axis a word means, and which place wins."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from harness.errors import UserError
from harness.settings.groups import SCHEMAS
from harness.settings.rules import AXIS_NAMES, CHOICES, Axes, MatrixConfig, ProfileAxes, rule_of, unset

_STANDS_FOR: dict[str, tuple[str, ...]] = {
    # An option of the task leaves subset and replicate alone; an option of another group sets its fields.
    rule_of(field).axis: (f"{group}.{field.name}", *(() if group in CHOICES else (group,)))
    for group, schema in SCHEMAS.items()
    for field in (dataclasses.fields(schema) if schema is not None else ())
}
_STANDS_FOR |= {axis: (axis,) for axis in CHOICES}
_STANDS_FOR |= {"semantics": ("method.semantics",), "variant": ("method.temporal", "method.layers")}
AXES = {axis: _STANDS_FOR[axis] for axis in (*CHOICES, *AXIS_NAMES)}
"""Axis -> the settings that it stands for. One of these on the command line replaces the axis."""


def spelled(words: Iterable[str], contexts: Mapping[str, int | None]) -> list[str]:
    """The words of a command line, ``key=value``, with each axis as a setting.

    A list is the axis of the matrix (``frames=[64,128]``: ``matrix.frames=[64,128]``); a single value is the setting
    that the axis stands for, or an axis of one value where it stands for several. ``context=16k`` stays an option.

    Args:
        contexts: options of the group `context` and their tokens; in a list an option stands for its tokens.
    """
    return [_spelled(word, contexts) for word in words]


def _spelled(word: str, contexts: Mapping[str, int | None]) -> str:
    key, _, value = word.partition("=")
    place, _, axis = key.rpartition(".")
    if axis not in AXES or not value:
        return word
    if axis == "context" and value.startswith("["):
        numbers = {name: "null" if tokens is None else str(tokens) for name, tokens in contexts.items()}
        parts = (part.strip() for part in value.strip("[]").split(","))
        value = f"[{','.join(numbers.get(part, part) for part in parts)}]"
        word = f"{key}={value}"
    listed = value.startswith("[") or value == "null"
    if place == "matrix" or place.startswith("matrix.by_"):
        return word if listed else f"{key}=[{value}]"
    if place:
        return word
    if value.startswith("["):
        return f"matrix.{axis}={value}"
    if axis in CHOICES or value in contexts and axis == "context":
        return word
    if axis == "context":
        digits = value.isascii() and value.isdigit()
        number = digits or value in ("null", "none", "full")
        return f"context.tokens={value if digits else 'null'}" if number else word
    return f"matrix.{axis}=[{value}]" if axis in ("semantics", "variant") else f"{AXES[axis][0]}={value}"


def settle(matrix: MatrixConfig, profile: str, overrides: Iterable[str]) -> MatrixConfig:
    """Give each axis to the place that wins, see `MatrixConfig`; only `by_model` and `by_task` are left to look up.

    Raises UserError where the overrides, ``key=value``, set both an axis and a setting that the axis stands for.
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
    if any(key.startswith("method.") for key in given):  # an option of the configured method: no row has another
        given_axes.add("method")
    rows = matrix.rows if own.rows is None or "matrix.rows" in given else own.rows

    def exceptions(group: str) -> dict[str, Axes]:
        """Those for single models or tasks, without the axes that another place won."""
        kept: dict[str, Axes] = getattr(matrix, group)
        for name, axes in kept.items():
            place = f"matrix.{group}.{name}"
            whole = given.keys() & {f"matrix.{group}", place}
            kept = {**kept, name: unset(axes, {axis for axis in won if not whole and f"{place}.{axis}" not in given})}
        return kept

    won |= {"by_profile": {}, "by_model": exceptions("by_model"), "by_task": exceptions("by_task")}
    return dataclasses.replace(matrix, **won, rows=[unset(row, given_axes) for row in rows])
