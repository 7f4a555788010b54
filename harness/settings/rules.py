"""What a setting may be, declared with the field of its schema. Standard library only: schemas are leaf modules."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.errors import UserError

REQUIRED: Any = "???"
"""Default of a setting that a yaml has to give (OmegaConf's mark of a missing value)."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""Names become parts of file names, so they hold no separator and do not start with a dot."""

_KEY = "setting"
_NOTHING = object()


@dataclass(frozen=True)
class Rule:
    """Everything that is declared of one setting.

    help: what the setting is for, in one line of ``--help``.
    above, least, below, most: bounds of a number, or of every number of a list. words: the only texts allowed.
    name: whether the text is a name, see `NAME`.
    runtime: whether the field cannot change an answer; all others enter the identity of a cell.
    neutral: value under which answers are as they were before the field existed; with it the field stays out of the
    identity, so that a new field orphans no stored answer.
    axis: the axis of a matrix that stands for this setting.
    label: its name in tables, imports and the bridge; empty for the axis, or else the field's own name.
    flag: whether a verb also takes the setting as an option (``update_baseline``: ``--update-baseline``).
    positional: whether a verb's words without ``=`` are the values of this setting.
    of_cells: whether the values of the option are settings of a cell (``--candidates video=stock context=130``).
    """

    help: str = ""
    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None
    words: tuple[str, ...] = ()
    name: bool = False
    runtime: bool = False
    neutral: Any = _NOTHING
    axis: str = ""
    label: str = ""
    flag: bool = False
    positional: bool = False
    of_cells: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value that is not null is allowed."""
        if isinstance(value, list | dict) or isinstance(value, float) and not math.isfinite(value):
            return False
        if isinstance(value, str):
            words = value in self.words if self.words else value != ""
            return words and (not self.name or value == REQUIRED or NAME.fullmatch(value) is not None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )

    @property
    def range(self) -> str:
        """The allowed values; empty where every finite number and every text is allowed."""
        if self.words:
            return ", ".join(self.words)
        if self.name:
            return "a name of letters, digits, '_', '-' and '.', at most 100, that starts with a letter or digit"
        bounds = [("above", self.above), ("at least", self.least), ("below", self.below), ("at most", self.most)]
        listed = [f"{word} {bound:.12g}" for word, bound in bounds if bound is not None]
        return "a number " + " and ".join(listed) if listed else ""


def setting(default: Any = REQUIRED, **declared: Any) -> Any:
    """A field of a schema with its rule: `declared` are fields of `Rule`. Null passes where the field's type allows it.

    The default is used where no yaml and no override sets the field; without a default a yaml has to. A list is copied.
    """
    rule = {_KEY: Rule(**declared)}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=rule)
    return dataclasses.field(default=default, metadata=rule)


def rule_of(field: dataclasses.Field[Any]) -> Rule:
    """A field's rule; one that was declared without has the rules of all: finite, and not an empty text."""
    rule = field.metadata.get(_KEY, Rule())
    assert isinstance(rule, Rule)
    return rule


def label_of(field: dataclasses.Field[Any]) -> str:
    """A setting's name in tables, imports and the bridge."""
    return rule_of(field).label or rule_of(field).axis or field.name


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's default; None for one that a yaml has to give."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default in (dataclasses.MISSING, REQUIRED) else field.default


def check_settings(config: Any, prefix: str = "") -> None:
    """Check every field of a schema's instance, and of the schemas inside it; raises as `check_value`."""
    for where, value, rule in _values(config, prefix):
        check_value(where, value, rule)


def check_value(where: str, value: Any, rule: Rule) -> None:
    """Raises UserError where the value is neither null nor allowed; the message holds what is allowed."""
    if value is None or rule.holds(value):
        return
    kind = "not known" if rule.words else "not allowed"
    text = isinstance(value, str)
    shown = repr(value) if text and (value == "" or not value.isprintable()) else value
    wanted = rule.range or ("a text that is not empty" if text else "a finite number")
    raise UserError(f"{where}={shown} is {kind}; allowed: {wanted}")


def _values(config: Any, prefix: str) -> Iterator[tuple[str, Any, Rule]]:
    for field in dataclasses.fields(config):
        value, where = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _values(value, f"{where}.")
        elif isinstance(value, dict):
            for key, inner in value.items():
                if dataclasses.is_dataclass(inner):
                    yield from _values(inner, f"{where}.{key}.")
                else:
                    yield f"{where}.{key}", inner, rule_of(field)
        else:
            for item in value if isinstance(value, list) else [value]:
                yield where, item, rule_of(field)


def identity_fields(config: Any) -> dict[str, Any]:
    """The fields of a schema's instance that can change an answer, without those at their neutral value."""
    rules = {field.name: rule_of(field) for field in dataclasses.fields(config)}
    kept = {name: getattr(config, name) for name, rule in rules.items() if not rule.runtime}
    return {name: value for name, value in kept.items() if value != rules[name].neutral}


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
    rows: list[Any] = dataclasses.field(default_factory=list)
    by_profile: dict[str, Any] = dataclasses.field(default_factory=dict)
    by_model: dict[str, Any] = dataclasses.field(default_factory=dict)
    by_task: dict[str, Any] = dataclasses.field(default_factory=dict)

    def values(self, axis: str, task: str, model: str) -> list[Any] | None:
        """The values of an axis for one task and model, from the most specific place that sets it; None without."""
        places = (self.by_task.get(task), self.by_model.get(model), self)
        set_there = (getattr(place, axis) for place in places if place is not None)
        return next((list(values) for values in set_there if values is not None), None)

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
