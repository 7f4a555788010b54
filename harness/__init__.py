"""Benchmark reproduction harness for long-video multimodal models.

The public interface, as a library:

    import harness

    model = harness.open_model("harness/toy/checkpoint")  # any checkpoint of a family with an adapter
    video = model.encode(frames, second_per_grid=1.0)  # frames: uint8 [T, height, width, 3]
    answer = model.answer(video, "What is seen?", harness.method("adaretake"), context=130)

`open_model` is :func:`harness.models.families.open_model`, `method` is :func:`harness.compress.method.build_method`.
Both are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.compress.method import build_method as method
    from harness.models.families import open_model

__all__ = ["method", "open_model"]

_PLACES = {
    "method": ("harness.compress.method", "build_method"),
    "open_model": ("harness.models.families", "open_model"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)
