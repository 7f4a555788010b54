"""Stored questions, answered again with recording on: each video is decoded and encoded once for all cells."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.digest import file_digest
from harness.errors import QuestionError, UserError
from harness.evidence.cells import CellResult
from harness.gate.compare import tied
from harness.run.answer import Session, load_model, open_sampled
from harness.settings.cell import Cell
from harness.settings.weights import find_weights, weights_identity
from harness.store import Answer, SeenFrames
from harness.tools.show.kept import HeldFrames, Kept, Timeline, chunk_ends, kept_of

if TYPE_CHECKING:
    import numpy as np

    from harness.benchmarks.questions import Question
    from harness.compress.trace import Generation

PLACES = ("path", "device", "device_map")
"""Settings of a model that another machine may need to set otherwise, and that change no identity."""
COMPARED = ("text", "kept_digest", "n_prompt", "n_video", "cache_length", "chunk_budget", "next_position")
"""Of an answer: equal where it is the stored one."""
OF_KEPT = {"kept_digest", "cache_length", "chunk_budget"}
"""What differs where only another of two tied tokens was kept."""


@dataclass(frozen=True)
class Ask:
    """One stored answer, and what it takes to give it again."""

    stored: CellResult
    cell: Cell
    question: Question
    answer: Answer


@dataclass(frozen=True, eq=False)
class Again:
    """An answer given again.

    Attributes:
        ask: whose.
        generation: text and trace.
        kept: what was kept of the video; None where the method did not record it.
        frames: grid -> its first frame, uint8 [H, W, 3]; those that a picture may show.
        timeline: when chunks and grids are in the video.
        other_video: whether the file is not the one that was seen, or other frames of it were.
    """

    ask: Ask
    generation: Generation
    kept: Kept | None
    frames: Mapping[int, np.ndarray]
    timeline: Timeline
    other_video: bool

    @property
    def text(self) -> str:
        """The answer, as parsers see it."""
        return self.generation.text.strip()

    @cached_property
    def differs(self) -> list[str]:
        """In what this is not the stored answer; empty where it is."""
        trace, stored = self.generation.trace, self.ask.answer
        now = {name: getattr(trace, name, None) for name in COMPARED} | {"text": self.generation.text}
        found = [name for name in COMPARED if now[name] != getattr(stored, name)]
        return (["video"] if self.other_video else []) + found

    @property
    def tie(self) -> bool:
        """Whether it differs only in tokens kept whose scores tie within rounding; the gate's rule."""
        margins = self.generation.trace.kept_margin, self.ask.answer.kept_margin
        return set(self.differs) <= OF_KEPT and all(tied({"margin": margin}) for margin in margins)


def stored_cell(stored: CellResult, here: Mapping[str, Any]) -> Cell:
    """The cell of a manifest, with weights and versions as they are here and now.

    Args:
        stored: the cell.
        here: settings of `PLACES` that this machine needs in place of the stored ones.

    Raises:
        UserError: the weights are not here, or this code would give the cell another identity.
    """
    record, cell = stored.cell, Cell.from_record(stored.cell)
    cell = dataclasses.replace(cell, model=dataclasses.replace(cell.model, **here))
    weights = weights_identity(find_weights(cell.model.path, cell.model.fetch).resolve())
    cell = cell.now(weights)
    if cell.digest != stored.manifest.digest:
        then, now = {"weights": record["weights"], **record["versions"]}, {"weights": weights, **cell.versions}
        changed = [f"{name} {then.get(name)} -> {now.get(name)}" for name in now if then.get(name) != now.get(name)]
        raise UserError(
            f"cell {stored.id} cannot be answered again: {', '.join(changed) or 'its identity'} changed since. "
            f"{_code(stored)}, or weights with model.path=..."
        )
    return cell


def _code(stored: CellResult) -> str:
    return f"Use the code that answered it (commit {stored.manifest.git.get('commit') or 'unknown'})"


def answer_again(asks: Sequence[Ask]) -> Iterator[Again]:
    """Answer questions in the order of models, videos and questions; cells that see the same features share them.

    Raises:
        UserError: weights or a video cannot be used, or a method cannot answer.
    """
    for _, of_model in _grouped(asks, lambda ask: (ask.cell.weights, repr(ask.cell.model))):
        adapter = _load(of_model[0])
        for _, of_video in _grouped(of_model, lambda ask: (ask.cell.video_key, str(ask.question.video))):
            yield from _of_video(adapter, sorted(of_video, key=lambda ask: ask.question.question_id))


def _grouped(asks: Sequence[Ask], key: Any) -> Iterator[tuple[Any, list[Ask]]]:
    return ((found, list(group)) for found, group in itertools.groupby(sorted(asks, key=key), key))


def _load(ask: Ask) -> Any:
    import torch

    threads = ask.stored.manifest.runtime.get("engine", {}).get("threads")
    if threads:  # sums depend on it
        torch.set_num_threads(threads)
    return load_model(ask.cell)


def _of_video(adapter: Any, asks: Sequence[Ask]) -> Iterator[Again]:
    path, setting = Path(asks[0].question.video), asks[0].cell.video
    video, session = open_sampled(path, setting), Session(adapter, [ask.cell for ask in asks])
    plan = video.plan
    held = HeldFrames(video.windows(setting.window), len(plan.indices), adapter.frames_per_grid)
    features = session.encode(plan, held)
    seen = SeenFrames(tuple(map(int, plan.indices)), tuple(map(float, plan.timestamps)))
    facts = file_digest(path), seen.digest
    times = [*map(float, plan.timestamps[:: adapter.frames_per_grid]), video.info.duration_s]
    following = [ask.question.question_id for ask in asks[1:]] + [None]
    for ask, after in zip(asks, following, strict=True):
        try:
            repeats = ask.question.question_id == after
            generation = session.ask(
                features, ask.question.prompt, ask.cell, evidence=ask.question.evidence, repeats=repeats, record=True
            )
        except QuestionError as error:
            raise UserError(
                f"{ask.stored.id} cannot answer question {ask.question.question_id} again: {error}"
            ) from error
        trace = generation.trace
        kept, trace.recording = kept_of(trace, features), None  # the cache would fill the device
        ends = chunk_ends(trace.chunk_lengths) if kept is None else kept.ends
        timeline = Timeline.of(ends, features.tokens_per_grid, times)
        yield Again(ask, generation, kept, held.frames, timeline, facts != (ask.answer.video_digest, ask.answer.frames))
