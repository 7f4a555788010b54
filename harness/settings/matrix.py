"""From the axes of a matrix to cells, and from cells to groups of siblings that share their videos."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError
from harness.settings.cell import VARIANTS, Cell, declared_versions, settle_method
from harness.settings.compose import Recomposed, options
from harness.settings.groups import Config, ContextConfig, TaskConfig, VideoConfig
from harness.settings.rules import CHOICES, Axes, MatrixConfig, Rule, check_value, rule_of
from harness.settings.weights import find_weights, resolve_dtype, weights_identity
from harness.settings.words import AXES

SWITCHES = {"semantics": {"semantics"}, "variant": {"temporal", "layers"}}
"""Axis -> the options of a method that it sets; methods without them are not spread over it."""


@dataclass(frozen=True)
class Group:
    """Sibling cells: they differ in compression only, so each video is decoded and encoded once for all of them."""

    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """Task, model and frames: what the siblings have in common."""
        cell = self.cells[0]
        return f"{cell.task.name}-{cell.model.name}-f{cell.video.max_frames}-fps{cell.video.fps:g}"


def build_cells(config: Config, problems: list[str] | None = None) -> list[Cell]:
    """The cells of a configuration's matrix in the order of its axes; variants of an uncompressed cell are one cell.

    Raises UserError where an axis is empty or names an option that does not exist, and for a switch that no method has.

    Args:
        config: the composed configuration. Group options named by an axis are composed with its overrides too, so
            that ``model.path=...`` reaches every model of the axis.
        problems: where missing weights are noted; without it they raise. A cell of unknown weights matches no
            stored answer.
    """
    matrix, cells, again = config.matrix, dict[str, Cell](), Recomposed(config.words)
    check_axes(matrix, "matrix")
    for i, row in enumerate(matrix.rows):
        check_axes(row, f"matrix.rows[{i}]")
    for place in ("by_model", "by_task"):
        for name, axes in getattr(matrix, place).items():
            check_axes(axes, f"matrix.{place}.{name}")
    composed: dict[tuple[str | None, ...], Config] = {}
    for i, part in enumerate(matrix.parts):
        chosen = (part.task, part.model, part.method)  # in the order of CHOICES
        for names in itertools.product(*([*axis] if axis else [None] for axis in chosen)):
            choice = {group: name for group, name in zip(CHOICES, names, strict=True) if name is not None}
            if names not in composed:
                composed[names] = again.under(**choice) if choice else config
            own = composed[names]
            base = Cell(own.model, own.method, own.video, own.context.tokens, own.task, "unknown", {})
            for cell in _cells_of(base, own.matrix.parts[i], own.words, problems):
                cells.setdefault(cell.id, cell)
    for word in config.words if cells else ():
        axis = word.partition("=")[0]
        if axis in SWITCHES and not any(SWITCHES[axis] <= vars(cell.method).keys() for cell in cells.values()):
            methods = ", ".join(dict.fromkeys(cell.method.name for cell in cells.values()))
            raise UserError(f"{word}: {methods} has no {axis}; leave it out, or set method=adaretake")
    return list(cells.values())


def cells_under(words: Sequence[str], settings: Sequence[str], problems: list[str] | None = None) -> list[Cell]:
    """The cells of a command line's words with further settings, which win over its own; a table's rows are left out.

    `settings` are ``key=value``, such as ``frames=64`` or ``video.long_side=336``; otherwise as :func:`build_cells`.
    """
    again = {word.partition("=")[0].removeprefix("matrix.") for word in settings}
    for axis in again & AXES.keys():
        again |= {f"matrix.{axis}", *(setting for setting in AXES[axis] if "." in setting)}
    kept = [word for word in words if word.partition("=")[0] not in again | {"matrix.rows"}]
    return build_cells(Recomposed([*kept, "matrix.rows=[]", *settings]).under(), problems)


def ids_under(words: Sequence[str]) -> Callable[[Sequence[str]], list[str]]:
    """From settings in brackets to the ids of the cells that a command line makes under them."""
    return lambda settings: [cell.id for cell in cells_under(words, settings, [])]


def as_groups(cells: Iterable[Cell]) -> list[Group]:
    """Cells with their siblings, in their order."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.video_key, []).append(cell)
    return [Group(tuple(siblings)) for siblings in groups.values()]


def _cells_of(base: Cell, matrix: MatrixConfig, words: Sequence[str], problems: list[str] | None) -> Iterator[Cell]:
    """The cells of a base's model, method and task under axes without rows; `problems` as for `build_cells`."""
    model, method, video, task, weights = base.model, base.method, base.video, base.task, base.weights
    try:
        weights = weights_identity(find_weights(model.path, model.fetch).resolve())
    except UserError as error:
        if problems is None:
            raise
        problems += [] if str(error) in problems else [str(error)]
    model = dataclasses.replace(model, dtype=resolve_dtype(model.dtype, model.device))
    versions = declared_versions(model, method, task)
    own: dict[str, list[Any]] = {
        "frames": [video.max_frames], "fps": [video.fps], "context": [base.context], "subset": [task.subset],
        "replicate": [task.replicate], "semantics": [None], "variant": [None],
    }  # fmt: skip
    axes = (
        matrix.values(axis, task.name, model.name) or value
        if SWITCHES.get(axis, set()) <= vars(method).keys()
        else value
        for axis, value in own.items()
    )
    for frames, fps, tokens, subset, replicate, semantics, variant in itertools.product(*axes):
        changes: dict[str, Any] = {} if semantics is None else {"semantics": semantics}
        if variant is not None:
            changes |= dict(zip(("temporal", "layers"), VARIANTS[variant], strict=True))
        if replicate and "seed" in vars(method):
            changes |= {"seed": vars(method)["seed"] + replicate}
        settled = settle_method(dataclasses.replace(method, **changes), task, weights, words, problems)
        seen = dataclasses.replace(video, max_frames=frames, fps=fps)
        asked = dataclasses.replace(task, subset=subset or task.subset, replicate=replicate)
        yield Cell(model, settled, seen, None if method.name == "none" else tokens, asked, weights, versions)


def check_axes(axes: Axes, place: str) -> None:
    """Raises UserError where an axis is empty, or a value breaks the rule of the setting that the axis stands for."""
    for axis in dataclasses.fields(axes):
        values = getattr(axes, axis.name)
        if axis.name not in AXES or values is None:
            continue
        where = f"{place}.{axis.name}"
        if not values:
            raise UserError(f"{where}=[] is empty; give at least one value, or null to leave the axis out")
        for value in values:
            check_value(where, value, _axis_rule(axis.name))


def _axis_rule(name: str) -> Rule:
    if name in CHOICES:
        return Rule(words=tuple(options(name)))
    if name == "variant":
        return Rule(words=tuple(VARIANTS))
    if name == "semantics":  # the method knows its own
        return Rule(name=True)
    fields = (field for schema in (VideoConfig, ContextConfig, TaskConfig) for field in dataclasses.fields(schema))
    return next(rule for rule in map(rule_of, fields) if rule.axis == name)
