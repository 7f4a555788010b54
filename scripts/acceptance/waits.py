"""How often the host waits for the device, counted where there is none.

Everything may be on the CPU, so what would be on a device is followed: the weights are, what is computed from a tensor
there is, and what is moved to a `torch.device` is. Reading such a tensor's numbers, or moving it to "cpu", is a wait.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

READS = {
    torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__bool__, torch.Tensor.__int__,
    torch.Tensor.__float__, torch.Tensor.__index__, torch.Tensor.cpu, torch.Tensor.nonzero, torch.nonzero,
    torch.Tensor.unique, torch.unique, torch.Tensor.masked_select, torch.equal, torch.Tensor.equal,
}  # fmt: skip


class Waits(TorchFunctionMode):
    """Follows what would be on a device, and notes every wait for it."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.there = {id(t): t for t in (*module.parameters(), *module.buffers())}  # holding them keeps ids unique
        self.found: list[str] = []

    def is_there(self, tree: Any) -> bool:
        return any(isinstance(t, torch.Tensor) and id(t) in self.there for t in tree_iter(tree))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        there = self.is_there((args, kwargs))
        down = func is torch.Tensor.cpu or (func is torch.Tensor.to and "cpu" in (*args[1:], kwargs.get("device")))
        by_mask = func is torch.Tensor.__getitem__ and any(
            isinstance(t, torch.Tensor) and t.dtype == torch.bool and self.is_there(t) for t in tree_iter(args[1])
        )
        if there and (down or by_mask or func in READS) and not kwargs.get("copy"):
            self.found.append(func.__name__)
        result = func(*args, **kwargs)
        if args and result is args[0]:
            result = result.clone() if func in (torch.Tensor.to, torch.Tensor.cpu) else result  # as if it were moved
        up = func is torch.Tensor.to and any(isinstance(a, torch.device) for a in (*args[1:], *kwargs.values()))
        if func is torch.Tensor.__setitem__ and self.is_there(args[2:]):
            self.there[id(args[0])] = args[0]
        if (there and not down) or up:
            self.there |= {id(t): t for t in tree_iter(result) if isinstance(t, torch.Tensor)}
        return result
