"""From the axes of a matrix to cells, and from cells to groups of siblings that share their videos."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

from harness.config import Config, compose_config, options
from harness.errors import UserError
from harness.plan.cell import VARIANTS, Cell, resolve_method
from harness.plan.weights import find_weights, resolve_dtype, weights_identity


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
    """Expand the matrix of a configuration.

    Args:
        config: the composed configuration. Group options named by an axis are composed with its overrides too, so
            that ``model.path=...`` reaches every model of the axis.
        problems: where missing weights are noted; without it they raise. A cell of unknown weights matches no
            stored answer.

    Returns:
        The cells in the order of the axes, without duplicates: variants of an uncompressed cell are one cell.

    Raises:
        UserError: an axis names an option that does not exist, or is empty.
    """
    matrix = config.matrix
    _check_axes(config)
    composed: dict[tuple[str, str, str], Config] = {}
    cells: dict[str, Cell] = {}
    group_axes = [matrix.task or [None], matrix.model or [None], matrix.method or [None]]
    for task, model, method in itertools.product(*group_axes):
        key = (task, model, method)
        if key not in composed:
            choice = [f"{g}={n}" for g, n in zip(("task", "model", "method"), key, strict=True) if n is not None]
            composed[key] = _recompose(config.overrides, choice) if choice else config
        for cell in _task_cells(composed[key], problems):
            cells.setdefault(cell.id, cell)
    return list(cells.values())


def build_groups(config: Config, problems: list[str] | None = None) -> list[Group]:
    """The cells of a matrix, siblings together, in matrix order; `problems` as in :func:`build_cells`."""
    groups: dict[str, list[Cell]] = {}
    for cell in build_cells(config, problems):
        groups.setdefault(cell.video_key, []).append(cell)
    return [Group(tuple(cells)) for cells in groups.values()]


def _task_cells(config: Config, problems: list[str] | None) -> list[Cell]:
    matrix = config.matrix
    own = matrix.by_task.get(config.task.name)
    try:
        identity = weights_identity(find_weights(config.model.path).resolve())
    except UserError as error:
        if problems is None:
            raise
        problems.append(str(error))
        identity = "unknown"
    model = dataclasses.replace(config.model, dtype=resolve_dtype(config.model.dtype, config.model.device))
    axes: list[list[Any]] = [
        (own and own.frames) or matrix.frames or [config.video.max_frames],
        (own and own.fps) or matrix.fps or [config.video.fps],
        (own and own.context) or matrix.context or [config.context.tokens],
        matrix.semantics or [config.method.semantics],
        matrix.variant or [None],
    ]
    cells = []
    for frames, fps, context, semantics, variant in itertools.product(*axes):
        method = dataclasses.replace(config.method, semantics=semantics)
        if variant is not None:
            temporal, layers = VARIANTS[variant]
            method = dataclasses.replace(method, temporal=temporal, layers=layers)
        video = dataclasses.replace(config.video, max_frames=frames, fps=fps)
        context = None if method.name == "none" else context
        method = resolve_method(method, config.task)
        cells.append(Cell(model, method, video, context, config.task, identity))
    return cells


def _recompose(overrides: list[str], choice: list[str]) -> Config:
    groups = {word.split("=")[0] for word in choice}
    kept = [word for word in overrides if word.split("=")[0] not in groups]
    return compose_config(kept + choice)


def _check_axes(config: Config) -> None:
    matrix = config.matrix
    allowed = {"task": options("task"), "model": options("model"), "method": options("method"), "variant": VARIANTS}
    allowed["semantics"] = ["paper", "release_2025", "release_2026"]
    for axis in dataclasses.fields(matrix):
        values = getattr(matrix, axis.name)
        if axis.name in ("name", "by_task") or values is None:
            continue
        if not values:
            raise UserError(f"matrix.{axis.name}=[] is empty; give at least one value, or null to leave the axis out")
        for value in values:
            if axis.name in allowed and value not in allowed[axis.name]:
                raise UserError(f"matrix.{axis.name}: {value!r} is not known; allowed: {', '.join(allowed[axis.name])}")
            if axis.name in ("frames", "fps", "context") and value is not None and value <= 0:
                raise UserError(f"matrix.{axis.name}: {value} must be above 0")
