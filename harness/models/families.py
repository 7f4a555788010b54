"""From a checkpoint, or the dotted path of a configuration, to the adapter of its family."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import harness.models
from harness.errors import UserError
from harness.models.adapter import Adapter
from harness.models.loading import config_at


def open_model(path: str, **options: Any) -> Adapter:
    """Load a checkpoint with the adapter of its family.

    Example:
        >>> model = open_model("harness/toy/checkpoint")
        >>> video = model.encode(frames, second_per_grid=1.0)  # uint8 [T, height, width, 3]
        >>> model.answer(video, "What colour is the ring?", build_method("adaretake"), context=130).text

    Args:
        path: a model folder or hub id.
        options: of `Adapter.load`.

    Raises:
        UserError: no model there, or of a family without an adapter.
    """
    family = config_at(path).model_type
    adapters = {adapter.family: adapter for adapter in _adapters()}
    if family not in adapters:
        raise UserError(f"{path} is a {family} model: adapters exist for {', '.join(sorted(adapters))}")
    return adapters[family].load(path, **options)


def _adapters() -> list[type[Adapter]]:
    """The classes below `Adapter` that name a family, one or more in each module of this room."""
    found = []
    for module in pkgutil.iter_modules(harness.models.__path__):
        if not module.ispkg:
            members = vars(importlib.import_module(f"{harness.models.__name__}.{module.name}")).values()
            found += [m for m in members if isinstance(m, type) and issubclass(m, Adapter) and "family" in vars(m)]
    return found


def find_adapter(path: str) -> type[Adapter]:
    """The adapter class at a dotted path.

    Raises:
        UserError: there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"model.adapter={path} cannot be imported: {error}; {_example()}") from error
    if not (isinstance(found, type) and issubclass(found, Adapter)) or found is Adapter:
        raise UserError(f"model.adapter={path} is not an adapter; {_example()}")
    return found


def _example() -> str:
    files = ", ".join(sorted(module.name for module in pkgutil.iter_modules(harness.models.__path__)))
    return f"give the path of a class below Adapter, such as harness.models.qwen2_5_vl.Qwen25VL (files there: {files})"
