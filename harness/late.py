"""torch, imported when one of its attributes is first used.

The options of a method are the fields of a class in a module that computes with torch. Verbs that only read stored
answers need these options and no tensor, and start in a third of the time.

    from harness.late import F, torch
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

__all__ = ["F", "inference_mode", "torch"]

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:
    import torch as torch
    import torch.nn.functional as F
else:

    class Late:
        """A module under its own name: the first attribute that is used imports it."""

        def __init__(self, name: str) -> None:
            self.__name__ = name

        def __getattr__(self, name: str) -> Any:
            module = importlib.import_module(self.__name__)
            self.__dict__.update(vars(module))  # from now on as fast as the module itself
            return getattr(module, name)

    torch, F = Late("torch"), Late("torch.nn.functional")


def inference_mode(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function as `torch.inference_mode` does, which would import torch here."""

    @wraps(function)
    def without_gradients(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode():
            return function(*args, **kwargs)

    return without_gradients
