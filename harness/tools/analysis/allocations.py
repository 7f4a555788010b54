"""Peak of what torch has allocated at a time, on devices whose allocator does not say (a CPU)."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class Allocations(TorchDispatchMode):
    """Within the context: bytes of the storages that operations have made and somebody still holds.

    Storages in files are not counted, for their memory can be taken back at any time; nor is what a single operation
    allocates and frees inside.

    Attributes:
        live: bytes now.
        peak: the most there were at a time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        if name in self._known or not size or storage.filename is not None:
            return
        self._known[name] = weakref.ref(storage, lambda _: self._gone(name, size))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _gone(self, name: int, size: int) -> None:
        del self._known[name]
        self.live -= size
