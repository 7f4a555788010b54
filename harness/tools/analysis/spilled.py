"""Exact attention over keys and values that wait in files, so that memory does not grow with the video.

Shapes: h query heads, kv key heads, n queries that pass, m keys of which theirs are the last n, d head dim.
"""

from __future__ import annotations

import itertools
import math
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from harness.errors import UserError

_BLOCK_BYTES = 128 * 2**20  # most that the logits of one block of queries and keys may take
_MOST_KEYS = 1024  # in a block, however few the queries are: even a small model's memory is that of a short video
_MOST_ROWS = 16384  # queries of all heads in a block; with fewer keys in it, matrix products would be slow


class Spill:
    """Makes tensors in files of a folder: the system writes them out and takes their memory back when it needs it.

    A file has no name any more once it is open, so whatever ends the process frees the disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, itertools.count()

    def new(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Zeros of a shape.

        Raises:
            UserError: the disk has no room for them, or takes no file.
        """
        size = math.prod(shape)
        path = self._folder / f"spill-{next(self._numbers)}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
            if size * dtype.itemsize > free:
                raise UserError(
                    f"{self._folder}: {size * dtype.itemsize / 1e9:.1f} GB are needed for what the attention of the "
                    f"whole video reads, {free / 1e9:.1f} GB are free; set results= to a folder with room, or fewer "
                    "video.max_frames"
                )
            tensor = torch.from_file(str(path), shared=True, size=size, dtype=dtype)
            path.unlink()
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path} cannot be written: {str(error).splitlines()[0]}; set results=") from error
        return tensor.view(shape)

    def buffer(self, like: torch.Tensor, capacity: int) -> torch.Tensor:
        """The buffer of a cache (see `compress.cache.NewBuffer`)."""
        return self.new((*like.shape[:2], capacity, like.shape[3]), like.dtype)


def spilled_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Bottom-right causal attention [1, h, n, d], as `compress.attention.eager_attention`, block by block.

    Args:
        query: [1, h, n, d].
        key, value: [1, kv, m, d], anywhere; a block of them at a time is copied to where the queries are.
        scale: of the logits.
    """
    n = query.shape[2]
    size = max(1, _MOST_ROWS // query.shape[1])
    parts = [_rows(query[0], key[0], value[0], scale, slice(i, min(i + size, n))) for i in range(0, n, size)]
    return torch.cat(parts, dim=1)[None]


def attention_mass(query: torch.Tensor, key: torch.Tensor, scale: float, into: torch.Tensor) -> None:
    """Attention that every key gets from n queries: summed over them, mean over the heads; added to `into` [m].

    Args:
        query: [h, n, d].
        key: [kv, m, d], anywhere.
        scale: of the logits.
        into: float32, anywhere.
    """
    heads, n = query.shape[:2]
    size = max(1, _MOST_ROWS // heads)
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        top, mass = None, None
        for _, logits in _logits(query, key, scale, rows):
            highest = logits.amax(-1)
            higher = highest if top is None else torch.maximum(top, highest)
            more = logits.sub_(higher[..., None]).exp_().sum(-1)
            mass = more if top is None or mass is None else mass * (top - higher).exp() + more
            top = higher
        assert top is not None and mass is not None
        for columns, logits in _logits(query, key, scale, rows):
            weights = logits.sub_(top[..., None]).exp_().div_(mass[..., None])
            into[columns] += weights.sum((0, 1)).div_(heads).to(into.device)


def _rows(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, rows: slice) -> torch.Tensor:
    """Attention [h, r, d] of some of the queries: a softmax whose sums are corrected whenever a larger logit comes."""
    heads, groups, count = query.shape[0], key.shape[0], rows.stop - rows.start
    top = query.new_full((groups, heads // groups * count), -torch.inf, dtype=torch.float32)
    mass = torch.zeros_like(top)
    mixed = query.new_zeros((*top.shape, query.shape[2]), dtype=torch.float32)
    for columns, logits in _logits(query, key, scale, rows):
        higher = torch.maximum(top, logits.amax(-1))
        weights = logits.sub_(higher[..., None]).exp_()
        shrink = (top - higher).exp_()
        mass = mass * shrink + weights.sum(-1)
        values = value[:, columns].to(query.device).float()
        mixed = torch.baddbmm(mixed.mul_(shrink[..., None]), weights, values)
        top = higher
    return (mixed / mass[..., None]).to(query.dtype).view(heads, count, -1)


def _logits(query: torch.Tensor, key: torch.Tensor, scale: float, rows: slice) -> Iterator[tuple[slice, torch.Tensor]]:
    """The keys that some queries may see, in blocks: which they are, and the logits [kv, h / kv * r, b] in float32.

    Every query sees the first key, so that after the first block each has a finite one.
    """
    (heads, n, dim), (groups, m) = query.shape, key.shape[:2]
    asking = (query[:, rows].float() * scale).reshape(groups, -1, dim)
    seen = m - n + torch.arange(rows.start, rows.stop, device=query.device)  # the last key of each query
    seen = seen.repeat(heads // groups)
    size = max(1, min(_MOST_KEYS, _BLOCK_BYTES // (4 * asking.shape[0] * asking.shape[1])))
    stop_of_all = m - n + rows.stop
    for start in range(0, stop_of_all, size):
        columns = slice(start, min(start + size, stop_of_all))
        logits = asking @ key[:, columns].to(query.device).float().transpose(1, 2)
        if columns.stop > m - n + rows.start + 1:
            places = torch.arange(columns.start, columns.stop, device=query.device)
            logits.masked_fill_(places > seen[:, None], -torch.inf)
        yield columns, logits


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
