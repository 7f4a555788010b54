"""From the dotted path of a configuration to the adapter class of a model family."""

from __future__ import annotations

import importlib
import pkgutil

import harness.models
from harness.errors import UserError
from harness.models.adapter import Adapter


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
