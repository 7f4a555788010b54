"""How often the host waits for the device: at most twice per chunk, whatever the method.

Here everything is on the CPU, so what would be on a device is followed: the weights are, what is computed from a tensor
there is, and what is moved to a `torch.device` is. Reading such a tensor's numbers, or moving it to "cpu", is a wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from method_cases import CASES, Case
from test_every_method import QUESTION, encoded, forgetful, n_text, sharpened
from tiny_checkpoints import save_tiny
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from harness.compress.prefill import Prefill
from harness.models.adapter import Adapter
from harness.models.families import open_model
from harness.models.features import VideoFeatures

READS = {
    torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__bool__, torch.Tensor.__int__,
    torch.Tensor.__float__, torch.Tensor.__index__, torch.Tensor.cpu, torch.Tensor.nonzero, torch.nonzero,
    torch.Tensor.unique, torch.unique, torch.Tensor.masked_select, torch.equal, torch.Tensor.equal,
}  # fmt: skip
PER_CHUNK, BESIDES = 2, 8
"""Waits per chunk; and of a whole prompt: what the video's features say, numbers or not, the trace.

Where states are dropped between layers, each of these layers has to know of what is left, too. Keys and values that
are put away in host memory are no waits in this sense: `Trace.host_bytes` counts them.
"""


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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    path = save_tiny("qwen2_5_vl", tmp_path_factory.mktemp("model"), layers=4)
    return sharpened(open_model(str(path), device="cpu", attention="sdpa"))


@pytest.fixture(scope="module")
def video(model: Adapter) -> VideoFeatures:
    return encoded(model)


@contextmanager
def prefill_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Prefill]]:
    """Decoding reads every new token, as it must; nothing is decoded here."""
    runs: list[Prefill] = []
    with monkeypatch.context() as patch:
        patch.setattr("harness.compress.generate.greedy", lambda run, *args, **options: (runs.append(run) or [], []))
        yield runs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_chunk_waits_for_the_device_at_most_twice(
    model: Adapter, video: VideoFeatures, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = case.build()
    context = n_text(model, video) + 60  # as published, some keep much
    with prefill_only(monkeypatch) as runs, Waits(model.model) as waits:
        model.answer(forgetful(video), QUESTION, method, context)
    chunks = len(runs[0].trace.chunk_lengths)
    per_chunk = PER_CHUNK + (model.language.num_layers if case.options.get("form") == "native" else 0)
    assert len(waits.found) <= per_chunk * chunks + BESIDES, f"{chunks} chunks: {sorted(waits.found)}"


def test_a_wait_is_seen(model: Adapter) -> None:
    weight = next(model.model.parameters())
    with Waits(model.model) as waits:
        (weight.detach() * 2).sum().item()
        weight.detach().to(torch.float64)[0].tolist()
        torch.arange(3).tolist()
        torch.arange(3).to(torch.device("cpu")).max().item()
        bool((weight[0] > 0).any())
        weight.detach().cpu().tolist()
    assert waits.found == ["item", "tolist", "item", "__bool__", "cpu"]
