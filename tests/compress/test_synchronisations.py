"""How often the host waits for the device: at most twice per chunk, whatever the method.

Here everything is on the CPU; see `acceptance.waits` for what counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from acceptance.waits import Waits
from method_cases import CASES, Case
from test_every_method import QUESTION, encoded, forgetful, n_text, sharpened
from tiny_checkpoints import save_tiny

from harness.compress.prefill import Prefill
from harness.models.adapter import Adapter
from harness.models.families import open_model
from harness.models.features import VideoFeatures

PER_CHUNK, BESIDES = 2, 8
"""Waits per chunk; and of a whole prompt: what the video's features say, numbers or not, the trace.

Where states are dropped between layers, each of these layers has to know of what is left, too. Keys and values that
are put away in host memory are no waits in this sense: `Trace.host_bytes` counts them.
"""


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
