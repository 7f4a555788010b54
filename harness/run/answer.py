"""From one video's features and one question to one answer: the only place of a run that asks the model."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import QuestionError
from harness.models.families import find_adapter
from harness.run.environment import device_peak
from harness.store import Answer

if TYPE_CHECKING:
    import numpy as np

    from harness.benchmarks.questions import Question
    from harness.compress.trace import Generation
    from harness.models.adapter import Adapter
    from harness.models.features import VideoFeatures
    from harness.settings.cell import Cell
    from harness.settings.groups import VideoConfig
    from harness.video.sampling import FramePlan
    from harness.video.windows import Video


DECODING = ("max_new_tokens", "min_new_tokens", "repetition_penalty")
"""Settings of a task that say how an answer is decoded."""
MEASURED = (
    "n_prompt", "n_encoded", "n_video", "cache_length", "chunk_budget", "kept_digest", "kept_margin", "next_position",
    "ids_digest", "positions_digest",
    "prefilled", "attended", "cache_peak", "host_bytes", "moved_bytes",
)  # fmt: skip
"""Fields of the trace that are stored with the answer."""


def load_model(cell: Cell) -> Adapter:
    """Load a cell's model.

    Raises:
        UserError: the adapter's class path is wrong, or what the adapter raises for weights it cannot use.
    """
    from transformers.utils import logging as transformers_logging

    from harness.settings.weights import find_weights

    transformers_logging.disable_progress_bar()  # it would run through ours
    model = cell.model
    return find_adapter(model.adapter).load(
        str(find_weights(model.path)),
        dtype=model.dtype,
        device=model.device,
        device_map=model.device_map,
        attention=model.attention if model.numerics == "own" else model.numerics,
        yarn_factor=model.yarn_factor,
    )


def open_sampled(path: Path, setting: VideoConfig) -> Video:
    """A video and which of its frames the setting samples.

    Raises:
        VideoError: it cannot be read.
    """
    from harness.video.decode import open_video
    from harness.video.sampling import sampling_policy

    return open_video(path, sampling_policy(setting), backend=setting.backend, timeout_s=setting.timeout_s)


@dataclass(frozen=True, eq=False)
class Session:
    """A loaded model and the cells that it answers, which sample the same frames of a video."""

    adapter: Adapter
    cells: Sequence[Cell]

    def encode(self, plan: FramePlan, windows: Iterable[np.ndarray]) -> VideoFeatures:
        """Features of a video's sampled frames, with all that the cells' methods need: pixels, encoder attention."""
        return self.adapter.encode(
            windows,
            len(plan.indices),
            float(plan.second_per_grid),
            keep_frames=any(cell.method.needs_frames for cell in self.cells),
            keep_attention=any(cell.method.needs_attention for cell in self.cells),
        )

    def ask(self, features: VideoFeatures, prompt: str, cell: Cell, **options: Any) -> Generation:
        """The answer of one cell to a prompt; options as of `Adapter.answer`."""
        decoding = {name: getattr(cell.task, name) for name in DECODING}
        return self.adapter.answer(features, prompt, cell.method, cell.context, **decoding, **options)


def make_answer(
    session: Session,
    features: Any,
    question: Question,
    cell: Cell,
    known: dict[str, Any],
    seconds: dict[str, float],
    start: str,
    *,
    repeats: bool = False,
    timestamps: Sequence[float] = (),
) -> Answer:
    """Ask one question under one cell's method and budget.

    Args:
        session: the model.
        features: of the question's video.
        question: what is asked.
        cell: says how.
        known: fields of the answer that are facts of the video.
        seconds: spent on the video, this answer's part.
        start: names this start of the run.
        repeats: whether the same question is asked next, under another method or budget.
        timestamps: of the frames, in seconds.

    Raises:
        UserError: what cannot be answered, see `harness.run.failures`.
    """
    if question.problem:
        raise QuestionError(question.problem)
    began = time.perf_counter()
    with device_peak(parameter.device for parameter in session.adapter.model.parameters()) as peak:
        generation = session.ask(features, question.prompt, cell, evidence=question.evidence, repeats=repeats)
        peak_memory = peak()
    seconds = {**seconds, "generate": time.perf_counter() - began}
    return Answer(
        question.question_id,
        question.video_id,
        "ok",
        text=generation.text,
        prompt_digest=question.digest,
        n_new=len(generation.tokens),
        peak_memory=peak_memory,
        seconds={name: round(value, 6) for name, value in seconds.items()},
        start=start,
        evidence_seen=evidence_seen(question.evidence, timestamps),
        **{name: getattr(generation.trace, name) for name in MEASURED},
        **known,
    )


def evidence_seen(spans: Sequence[tuple[float, float]], timestamps: Sequence[float]) -> bool | None:
    """Whether each span (from, to) has a frame, all in seconds; `None` where one of both is not known.

    No method can answer from frames that were not sampled, so this bounds all of them.
    """
    if not spans or not timestamps:
        return None
    return all(any(start <= time <= stop for time in timestamps) for start, stop in spans)
