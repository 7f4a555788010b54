"""From one video and one question to one answer: the only place of a run that touches the model."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from harness.models.families import find_adapter
from harness.run.memory import device_peak

if TYPE_CHECKING:
    import numpy as np

    from harness.benchmarks.questions import Question
    from harness.models.adapter import Adapter
    from harness.plan.cell import Cell


@dataclass(frozen=True)
class Reply:
    """What the model said and what it cost."""

    text: str
    n_prompt: int
    n_video: int
    cache_length: list[int] = field(default_factory=list)  # [L] after the prefill
    chunk_budget: list[int] = field(default_factory=list)  # [K]
    n_new: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: int | None = None  # bytes on the accelerators; None on a CPU


class Responder(Protocol):
    """What the loop needs of a model."""

    def encode(self, windows: Iterable[np.ndarray], n_frames: int, second_per_grid: float) -> Any:
        """Frames (uint8 [<=window, H, W, 3] each) -> the video's features, in host memory."""

    def reply(self, features: Any, question: Question, cell: Cell) -> Reply:
        """Answer one question under one cell's method and budget."""


class ModelResponder:
    """A responder over a model adapter and the compress room."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self._devices = sorted({parameter.device for parameter in adapter.model.parameters()}, key=str)

    def encode(self, windows: Iterable[np.ndarray], n_frames: int, second_per_grid: float) -> Any:
        """See `Responder`."""
        return self.adapter.encode(windows, n_frames, second_per_grid)

    def reply(self, features: Any, question: Question, cell: Cell) -> Reply:
        """See `Responder`. The method is built anew, so that an answer does not depend on the questions before it."""
        start = time.perf_counter()
        with device_peak(self._devices) as peak:
            generation = self.adapter.answer(
                features,
                question.prompt,
                cell.method,
                cell.context,
                max_new_tokens=cell.task.max_new_tokens,
            )
            peak_memory = peak()
        trace = generation.trace
        return Reply(
            text=generation.text,
            n_prompt=int(trace.n_prompt),
            n_video=int(trace.n_video),
            cache_length=[int(n) for n in trace.cache_length],
            chunk_budget=[int(n) for n in trace.chunk_budget],
            n_new=len(generation.tokens),
            peak_memory=peak_memory,
            seconds={"generate": time.perf_counter() - start},
        )


def load_responder(cell: Cell) -> ModelResponder:
    """Load the cell's model.

    Raises:
        UserError: the adapter's class path is wrong, or what the adapter raises for weights it cannot use.
    """
    from transformers.utils import logging as transformers_logging

    from harness.plan.weights import find_weights

    transformers_logging.disable_progress_bar()  # it would run through ours
    model = cell.model
    adapter = find_adapter(model.adapter).load(
        str(find_weights(model.path, model.fetch)),
        dtype=model.dtype,
        device=model.device,
        device_map=model.device_map,
        attention=model.attention,
        yarn_factor=model.yarn_factor,
    )
    return ModelResponder(adapter)
