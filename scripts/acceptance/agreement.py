"""Checks that two ways to compute the same thing agree."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import torch

from acceptance.subject import Row, Subject, apart
from harness.compress.attention import (
    BACKENDS,
    eager_attention,
    flash_attention,
    flash_attention_available,
    sdpa_attention,
)

KERNELS = dict(zip(BACKENDS, (flash_attention, sdpa_attention, eager_attention), strict=True))
BF16 = 2.0**-8
"""Between two bfloat16 numbers next to each other, relative to their size."""


def backends(subject: Subject) -> Iterator[Row]:
    """Attention of a chunk behind a full cache in bfloat16, by every backend, against float32."""
    size, config = subject.size, subject.language.text_model.config
    grid = size.patches[0] * size.patches[1] // 4
    n = size.chunk_frames // 2 * grid + size.text[1]
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    dim = config.hidden_size // heads
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, n, dim), *[(1, groups, size.context + n, dim)] * 2]
    states = [torch.randn(s, generator=generator).to(subject.device, torch.bfloat16) for s in shapes]
    exact = eager_attention(*(state.float() for state in states), dim**-0.5)
    for name, kernel in KERNELS.items():
        if reason := not_here(name, subject.device):
            yield Row("backends", name, "skipped", reason=reason)
            continue
        try:
            found = kernel(*states, dim**-0.5).float()
        except Exception as error:
            yield broken("backends", name, error)
            continue
        off = float((found - exact).abs().max() / exact.abs().max())
        yield judged("backends", f"{name} against float32", off, 4 * BF16, "of the largest")


def whole_model(subject: Subject) -> Iterator[Row]:
    """The last hidden state of a compressed prompt, by every backend, against SDPA."""
    bench = subject.bench(subject.size.few_context)
    prompt = subject.prompt(subject.size.few, subject.size.few_context)
    _, wanted = subject.run(bench, prompt, "none")
    for name in BACKENDS:
        if name == subject.language.backend:
            continue
        if reason := not_here(name, subject.device):
            yield Row("whole model", name, "skipped", reason=reason)
            continue
        try:
            other = subject.bench(subject.size.few_context, subject.with_backend(name))
            _, found = subject.run(other, prompt, "none")
        except Exception as error:
            yield broken("whole model", name, error)
            continue
        what = f"{name} against {subject.language.backend}"
        yield judged("whole model", what, apart(found, wanted), subject.tolerance, "of the hidden state")


def chunks(subject: Subject) -> Iterator[Row]:
    """Without compression, chunks do not show."""
    bench = subject.bench(subject.size.few_context)
    prompt = subject.prompt(subject.size.few, subject.size.few_context)
    _, chunked = subject.run(bench, prompt, "none")
    _, whole = subject.run(bench, prompt, "none", chunk_frames=subject.size.few)
    off = apart(chunked, whole)
    yield judged("chunks", "chunked against one shot", off, subject.tolerance, "of the hidden state")


def devices(subject: Subject) -> Iterator[Row]:
    """The layers spread over all devices give what one gives. Comes last: they stay spread."""
    count = torch.cuda.device_count() if subject.device.type == "cuda" else 1
    if count < 2:
        yield Row("devices", "spread over all GPUs", "skipped", reason=f"one {subject.device.type} device")
        return
    from accelerate import dispatch_model

    from harness.models.language import Decoder

    bench = subject.bench(subject.size.few_context)
    prompt = subject.prompt(subject.size.few, subject.size.few_context)
    _, wanted = subject.run(bench, prompt, "adaretake")
    model = subject.language.text_model
    layers = len(model.layers)
    places: dict[str, int] = {name: 0 for name, _ in model.named_children() if name != "layers"}
    places |= {f"layers.{i}": i * count // layers for i in range(layers)} | {"norm": count - 1}
    spread = dispatch_model(model, device_map=places, skip_keys="past_key_values")
    head = subject.language.head.to(f"cuda:{count - 1}")
    other = subject.bench(subject.size.few_context, Decoder(spread, head, backend=subject.language.backend, rows=3))
    _, found = subject.run(other, prompt, "adaretake")
    yield judged("devices", f"spread over {count} against one", apart(found, wanted), 0.01, "of the hidden state")


def not_here(name: str, device: torch.device) -> str:
    """Why a backend does not exist here; empty where it does."""
    if name != "flash_attention_2" or flash_attention_available(device):
        return ""
    return "flash-attn is not installed" if find_spec("flash_attn") is None else f"no CUDA device, but {device.type}"


def judged(check: str, what: str, value: float, most: float, unit: str) -> Row:
    """A row that is ok where the value is a number of at most `most`."""
    good = value <= most
    reason = "" if good else f"{value:.3g} is more than {most:.3g}"
    return Row(check, what, "ok" if good else "failed", value, unit, f"at most {most:.3g}", reason)


def broken(check: str, what: str, error: Exception) -> Row:
    """The row of what could not be computed."""
    text = str(error).strip().splitlines()
    return Row(check, what, "failed", reason=f"{type(error).__name__}: {text[0] if text else 'no message'}")
