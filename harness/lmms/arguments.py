"""From the model arguments of an lmms-eval command to the same configuration, and so the same cells, as our own."""

from __future__ import annotations

import difflib
from functools import lru_cache
from typing import Any

import yaml

from harness.config import CONF, Config, TaskConfig, compose_config, options
from harness.errors import UserError
from harness.plan.cell import Cell
from harness.plan.matrix import build_cells
from harness.plan.weights import local_path

ARGUMENTS = {
    "pretrained": "model.path",
    "dtype": "model.dtype",
    "attention": "model.attention",
    "device": "model.device",
    "device_map": "model.device_map",
    "yarn_factor": "model.yarn_factor",
    "method": "method",
    "semantics": "matrix.semantics",
    "temporal": "method.temporal",
    "layers": "method.layers",
    "chunk_frames": "method.chunk_frames",
    "max_guide_length": "method.max_guide_length",
    "reforge": "method.reforge",
    "positions": "method.positions",
    "seed": "method.seed",
    "context": "matrix.context",
    "fps": "matrix.fps",
    "max_frames": "matrix.frames",
    "long_side": "video.long_side",
    "resample": "video.resample",
    "backend": "video.backend",
    "window": "video.window",
    "timeout_s": "video.timeout_s",
    "results": "results",
    "retry": "run.retry",
    "prefetch": "run.prefetch",
    "feature_dir": "run.feature_dir",
    "profile": "profile",
}
"""Model argument -> setting of the configuration."""

IGNORED = {"batch_size", "max_batch_size"}
"""Passed by lmms-eval to every model; answers are given one at a time."""


def compose_arguments(arguments: dict[str, Any], model: str) -> Config:
    """The configuration that model arguments ask for, before a task is chosen.

    Args:
        arguments: as lmms-eval parsed them from `--model_args`.
        model: the group option of the model id, for what the arguments leave open.

    Raises:
        UserError: an unknown argument, with the allowed ones; a value that the configuration refuses.
    """
    arguments = {name: value for name, value in arguments.items() if name not in IGNORED}
    for name in arguments:
        if name not in ARGUMENTS:
            close = difflib.get_close_matches(name, ARGUMENTS, n=1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            allowed = ", ".join(ARGUMENTS)
            raise UserError(f"model argument {name}={arguments[name]} is not known{meant}; allowed: {allowed}")
    if "pretrained" in arguments:
        model = _option_of(str(arguments["pretrained"])) or model
    overrides = [f"profile={arguments.pop('profile', 'toy' if model == 'toy' else 'published')}"]
    overrides += [f"model={model}", *(f"matrix.{axis}=null" for axis in ("model", "task", "method", "variant"))]
    for name, value in arguments.items():
        key = ARGUMENTS[name]
        text = value if name == "method" else _quoted(value)  # method=none is a method
        overrides.append(f"{key}=[{text}]" if key.startswith("matrix.") else f"{key}={text}")
    return compose_config(overrides)


def choose_cell(config: Config, task: TaskConfig) -> Cell:
    """The one cell of a task under the arguments.

    Raises:
        UserError: the arguments leave several cells open.
    """
    config.task = task
    cells = build_cells(config)
    if len(cells) > 1:
        raise UserError(
            f"the model arguments leave {len(cells)} cells open for {task.name}: {', '.join(c.id for c in cells)}; "
            "name one value each of semantics, max_frames, fps and context"
        )
    return cells[0]


@lru_cache
def known_tasks() -> dict[str, str]:
    """Name of our lmms-eval tasks -> option of the configuration group `task` without a subset."""
    found = {}
    for option in options("task"):
        settings = yaml.safe_load((CONF / "task" / f"{option}.yaml").read_text())
        if not settings.get("subset"):
            found.setdefault(settings["lmms_task"], option)
    return found


def _option_of(path: str) -> str | None:
    """The option of the group `model` whose weights `path` names, if any."""
    for option in options("model"):
        own = str(yaml.safe_load((CONF / "model" / f"{option}.yaml").read_text()).get("path"))
        if path == own or (local_path(path).exists() and local_path(path).resolve() == local_path(own).resolve()):
            return option
    return None


def _quoted(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if value is None or str(value).lower() in ("none", "null"):
        return "null"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
