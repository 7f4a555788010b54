"""From the model arguments of an lmms-eval command to the same configuration, and so the same cells, as our own."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from harness.errors import UserError
from harness.places import find
from harness.settings.cell import Cell
from harness.settings.compose import CONF, Recomposed, compose_config, options
from harness.settings.groups import Config, TaskConfig
from harness.settings.matrix import build_cells
from harness.settings.words import AXES

ALIASES = {"pretrained": "model.path", "device": "model.device", "max_frames": "video.max_frames"}
"""lmms-eval's names of settings; every other argument is an axis or a setting by its own name."""

GROUPS = ("profile", "model", "method", "video", "context", "matrix", "engine", "run", "results")
"""Settings that this command has a use for. What is asked is said to lmms-eval itself."""

IGNORED = {"batch_size", "max_batch_size"}
"""Passed by lmms-eval to every model; answers are given one at a time."""

OPEN_AXES = ("model", "task", "method", "variant")
"""Axes of the matrix that would make several cells of one command."""


def compose_arguments(arguments: Mapping[str, Any], model: str) -> Config:
    """The configuration that model arguments ask for, before a task is chosen.

    Args:
        arguments: as lmms-eval parsed them from `--model_args`.
        model: the group option of the model id, for what the arguments leave open.

    Raises:
        UserError: an unknown argument, with the allowed ones; a value that the configuration refuses.
    """
    given = {name: value for name, value in arguments.items() if name not in IGNORED}
    if given.get("device") is None:  # lmms-eval passes it on whether it is given or not
        given.pop("device", None)
    settings = {_setting(name, value): value for name, value in given.items()}
    model = str(settings.get("model") or _option_of(str(given.get("pretrained"))) or model)
    defaults = {"profile": "toy" if model == "toy" else "published", "model": model}
    words = {key: _word(key, value) for key, value in {**defaults, **settings}.items()}
    axes = {f"matrix.{axis}": "null" for axis in OPEN_AXES}
    return compose_config([f"{key}={word}" for key, word in {**axes, **words}.items()])


def choose_cell(words: Sequence[str], task: TaskConfig) -> Cell:
    """The one cell of a task under the words of the arguments.

    Raises:
        UserError: the arguments leave several cells open.
    """
    choice = {"task": task.name} if task.name in options("task") else {}  # which may choose more, such as the frames
    config = Recomposed(words).under(**choice)
    cells = build_cells(dataclasses.replace(config, task=task))
    if len(cells) > 1:
        raise UserError(
            f"the model arguments leave {len(cells)} cells open for {task.name}: {', '.join(c.id for c in cells)}; "
            "name one value each of semantics, max_frames, fps and context"
        )
    return cells[0]


def _setting(name: str, value: Any) -> str:
    known = [*ALIASES, *(axis for axis in AXES if axis not in ("task", "subset"))]
    if name in known or name.partition(".")[0] in GROUPS:  # the part after the dot is checked with the configuration
        return ALIASES.get(name, name)
    close = difflib.get_close_matches(name, [*known, *GROUPS], n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    raise UserError(
        f"model argument {name}={value} is not known{meant}; allowed: {', '.join(known)}, and settings of "
        f"{', '.join(GROUPS)} by their names, such as video.backend=pyav (all: python -m harness plan --config). What "
        "is asked is said by --tasks, how long answers may be by --gen_kwargs max_new_tokens=N, where the data are by "
        "the environment's ADARETAKE_DATA"
    )


def _option_of(path: str) -> str | None:
    """The option of the group `model` whose weights `path` names, if any."""
    for option in options("model"):
        own = str(yaml.safe_load((CONF / "model" / f"{option}.yaml").read_text()).get("path"))
        if path == own or (find(path).exists() and find(path).resolve() == find(own).resolve()):
            return option
    return None


def _word(key: str, value: Any) -> str:
    """A value as the command line writes it; `none` is a method, and elsewhere nothing."""
    if value is None or (key != "method" and str(value).lower() == "none"):
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
