"""Attention for layers that read a compressed cache, on every backend, with an observer of queries and keys.

Attention here is causal from the bottom right: the last query sees every key, the one before it all but the last, and
so on, whatever was evicted before. flash-attn 2 does exactly this; SDPA and eager attention are given the same rule.

The function is handed to transformers through its `AttentionInterface` under names of our own, while the forward pass
of one segment runs (`attached`); the behaviour of stock names is never changed.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from harness.advice import install
from harness.errors import UserError
from harness.late import F, torch

BACKENDS = ("flash_attention_2", "sdpa", "eager")
_BLOCK_BYTES = 256 * 2**20  # most that the attention weights of one block of queries may take in eager attention
_CPU_BLOCK = 256  # queries that share a mask in SDPA on a CPU, whose kernel also computes what the mask hides

Heads: TypeAlias = "torch.Tensor | list[torch.Tensor]"
"""Keys or values [1, kv, m, d]; or, where heads differ in length, one [1, 1, m, d] per key-value head."""

Kernel: TypeAlias = "Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]"

Observer: TypeAlias = "Callable[[int, torch.Tensor, Heads, float], tuple[Heads, Heads] | None]"
"""Called once per layer with: layer index, queries [h, n, d] and all keys (`Heads`) after rotation, logit scale.

It may answer with other keys and values, which the layer then attends to instead.
"""


def last_keys(keys: Heads, count: int) -> torch.Tensor:
    """The last `count` keys of every head [kv, count, d]."""
    if isinstance(keys, torch.Tensor):
        return keys[0, :, keys.shape[2] - count :]
    return torch.cat([head[0, :, head.shape[2] - count :] for head in keys])


class KeysCached(Exception):
    """Ends a forward pass whose output nobody wants, once the last layer's keys and values are cached and observed."""


def flash_attention_available(device: torch.device) -> bool:
    """Whether flash-attn 2 is installed and the device can run it."""
    return device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None


def choose_backend(requested: str, device: torch.device, dtype: torch.dtype) -> str:
    """The attention backend for a device: `requested`, or for `auto` the fastest that works there.

    Raises:
        UserError: unknown name, or a backend that this device, dtype or installation cannot run.
    """
    flash = flash_attention_available(device) and dtype in (torch.float16, torch.bfloat16)
    if requested == "auto":
        if device.type in ("cuda", "cpu"):
            return "flash_attention_2" if flash else "sdpa"
        return "eager"  # plain matrix products: works on any accelerator
    if requested not in BACKENDS:
        allowed = ", ".join(("auto", *BACKENDS))
        raise UserError(f"unknown attention {requested!r}: allowed are {allowed}; set model.attention=auto")
    if requested == "flash_attention_2" and not flash:
        raise UserError(
            f"attention flash_attention_2 needs the package flash-attn, a CUDA device and bf16 or fp16 (this is "
            f"{device.type}, {dtype}): {install('flash-attn')}, or set model.attention=sdpa"
        )
    return requested


def _expand_heads(states: torch.Tensor, groups: int) -> torch.Tensor:
    return states.repeat_interleave(groups, dim=1) if groups > 1 else states


def _visible(n: int, m: int, like: torch.Tensor) -> torch.Tensor:
    """Mask [n, m], true where query i may see key j, aligned at the bottom right."""
    return torch.arange(m, device=like.device) <= torch.arange(m - n, m, device=like.device)[:, None]


def _hiding(n: int, m: int, like: torch.Tensor) -> torch.Tensor:
    """The same for n of at most `_CPU_BLOCK` queries as what is added to the logits, cut out of one large mask."""
    before = 1 << (m - n).bit_length()
    return _hiding_behind(before, like.dtype)[:n, before - (m - n) : before + n]


@functools.lru_cache(maxsize=4)
def _hiding_behind(before: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.full((_CPU_BLOCK, before + _CPU_BLOCK), -torch.inf, dtype=dtype).triu_(before + 1)


def eager_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Bottom-right causal attention by matrix products; [1, h, n, d] from [1, h, n, d] and two of [1, kv, m, d].

    Computed in blocks of queries, each over the keys it may see, so that memory does not grow with n * m.
    """
    (heads, n), m = query.shape[1:3], key.shape[2]
    groups = heads // key.shape[1]
    key, value = _expand_heads(key, groups), _expand_heads(value, groups)
    block = max(1, _BLOCK_BYTES // (4 * heads * m))
    outputs = []
    for start in range(0, n, block):
        part = query[:, :, start : start + block]
        seen = m - n + start + part.shape[2]
        logits = part @ key[:, :, :seen].transpose(2, 3) * scale
        if part.shape[2] > 1:
            visible = _visible(part.shape[2], seen, query)
            logits = logits.masked_fill(~visible, torch.finfo(logits.dtype).min)
        weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(query.dtype)
        outputs.append(weights @ value[:, :, :seen])
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]


def sdpa_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Bottom-right causal attention through torch's fused kernels; shapes as in `eager_attention`."""
    n, m = query.shape[2], key.shape[2]
    gqa = query.shape[1] != key.shape[1]
    if n == 1:
        return F.scaled_dot_product_attention(query, key, value, scale=scale, enable_gqa=gqa)
    if n == m:
        return F.scaled_dot_product_attention(query, key, value, scale=scale, is_causal=True, enable_gqa=gqa)
    if query.device.type == "cuda" and _flash_kernel_takes(query, key, value, gqa):
        from torch.nn.attention.bias import causal_lower_right

        bias = causal_lower_right(n, m)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale, enable_gqa=gqa)
    if gqa and query.device.type != "cpu":  # no masked kernel but the slow reference one knows grouped heads
        groups, gqa = query.shape[1] // key.shape[1], False
        key, value = _expand_heads(key, groups), _expand_heads(value, groups)
    on_cpu = query.device.type == "cpu"
    block = _CPU_BLOCK if on_cpu else n
    outputs = []
    for start in range(0, n, block):
        part = query[:, :, start : start + block]
        seen = m - n + start + part.shape[2]
        mask = (_hiding if on_cpu else _visible)(part.shape[2], seen, query)
        keys, values = key[:, :, :seen], value[:, :, :seen]
        outputs.append(F.scaled_dot_product_attention(part, keys, values, attn_mask=mask, scale=scale, enable_gqa=gqa))
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]


def _flash_kernel_takes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gqa: bool) -> bool:
    # The lower-right bias is only cheap on the flash kernel; its other routes know no grouped heads.
    from torch.backends.cuda import SDPAParams, can_use_flash_attention

    return can_use_flash_attention(SDPAParams(query, key, value, None, 0.0, False, gqa))


def flash_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Bottom-right causal attention by flash-attn 2 (2.1 or newer); shapes as in `eager_attention`."""
    from flash_attn import flash_attn_func

    states = (x.transpose(1, 2) for x in (query, key, value))
    output: torch.Tensor = flash_attn_func(*states, softmax_scale=scale, causal=True)
    return output.transpose(1, 2)


def attend(kernel: Kernel, query: torch.Tensor, key: Heads, value: Heads, scale: float) -> torch.Tensor:
    """Attention [1, h, n, d] by one of the kernels above, also where key-value heads differ in length."""
    if isinstance(key, torch.Tensor) and isinstance(value, torch.Tensor):
        return kernel(query, key, value, scale)
    groups = query.split(query.shape[1] // len(key), dim=1)  # the query heads of each key-value head
    return torch.cat([kernel(q, k, v, scale) for q, k, v in zip(groups, key, value, strict=True)], dim=1)


def _interface(kernel: Kernel) -> Callable[..., tuple[torch.Tensor, None]]:
    def attention(
        module: Any,
        query: torch.Tensor,
        key: Heads,
        value: Heads,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        observer: Observer | None = None,
        final_layer: int | None = None,
        **_kwargs: object,
    ) -> tuple[torch.Tensor, None]:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        if observer is not None and (instead := observer(module.layer_idx, query[0], key, scale)) is not None:
            key, value = instead
        if module.layer_idx == final_layer:
            raise KeysCached
        return attend(kernel, query, key, value, scale).transpose(1, 2), None

    return attention


_INTERFACES = {
    "flash_attention_2": ("harness_attention_2", _interface(flash_attention)),
    "sdpa": ("harness_sdpa", _interface(sdpa_attention)),
    "eager": ("harness_eager", _interface(eager_attention)),
}


@contextmanager
def attached(config: Any, backend: str | Kernel) -> Iterator[None]:
    """Within the context, layers that read `config` attend through this module; afterwards as before.

    Args:
        config: the text config of the language model.
        backend: one of `BACKENDS`, or a kernel of the caller's.
    """
    from transformers import AttentionInterface

    name, function = ("harness_kernel", _interface(backend)) if callable(backend) else _INTERFACES[backend]
    AttentionInterface.register(name, function)
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before
