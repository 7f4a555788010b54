"""``analyze heavy_hitters``: figures 3 and 4 of the paper, and their numbers as CSV."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.advice import open_console
from harness.errors import QuestionError, UserError, VideoError
from harness.records import made_folder
from harness.run.answer import load_model, open_sampled
from harness.run.environment import device_peak
from harness.tools.analysis import AnalyzeConfig, figures
from harness.tools.analysis.figures import write_figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.benchmarks.questions import Question
    from harness.models.adapter import Adapter
    from harness.settings.cell import Cell


KEYS = ["video", "question", "layer"]


def study(cell: Cell, data_root: Path, folder: Path, analyze: AnalyzeConfig) -> int:
    """Analyse some videos of a cell's task, and write what was found to `heavy_hitters` in a folder.

    Returns:
        0; 1 where a video was left out.

    Raises:
        UserError: no videos or weights, or none of the videos could be analysed.
    """
    from harness.benchmarks.questions import load_questions

    questions = chosen(load_questions(cell.task, data_root), analyze.videos)
    folder = made_folder(folder / "heavy_hitters", "results=<folder>")
    console = open_console()
    adapter = load_model(cell)
    rows: list[dict[str, Any]] = []
    measured: list[dict[str, Any]] = []
    problems: list[str] = []
    for question in questions:
        try:
            of_video, cost = analysed(adapter, cell, question, analyze, folder)
        except (VideoError, QuestionError) as error:
            problems.append(f"{question.video_id}: {error}")
            console.print(f"left out: {problems[-1]}", markup=False, soft_wrap=True)
            continue
        rows += of_video
        measured.append(cost)
        console.print(told(cost), markup=False, soft_wrap=True)
    if not rows:
        raise UserError(f"none of {len(questions)} videos could be analysed; the first: {problems[0]}")
    ratios = pd.DataFrame(rows)
    layers = per_layer(ratios)
    ratios.to_csv(folder / "stretches.csv", index=False)
    layers.to_csv(folder / "layers.csv", index=False)
    pd.DataFrame(measured).to_csv(folder / "measured.csv", index=False)
    setting = f"{cell.model.name}, {cell.task.name}, {len(measured)} videos of at most {cell.video.max_frames} frames"
    write_figure(folder / "heatmap.svg", figures.heatmap, ratios, setting, analyze.seconds)
    write_figure(folder / "layers.svg", figures.boxes, layers, setting)
    console.print(f"figures and CSV files: {folder}", markup=False, soft_wrap=True)
    return 1 if problems else 0


def chosen(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """The first question of each video; of more than `limit` videos so many, evenly spread over the task."""
    first: dict[Path, Question] = {}
    for question in questions:
        if not question.problem:
            first.setdefault(question.video, question)
    found = list(first.values())
    if limit is None or len(found) <= limit:
        return found
    return [found[i * len(found) // limit] for i in range(limit)]


def analysed(
    adapter: Adapter, cell: Cell, question: Question, asked: AnalyzeConfig, folder: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of one video, one per layer and stretch; and what they cost.

    Raises:
        VideoError, QuestionError: the video cannot be read, or the question not be asked.
    """
    from harness.tools.analysis.heavy_hitters import encode_to_files, heavy_hitters
    from harness.tools.analysis.spilled import Spill

    started = time.perf_counter()
    video = open_sampled(question.video, cell.video)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".spill-") as place, peak_memory(adapter) as peak:
        spill, n_frames = Spill(Path(place)), len(video.plan.indices)
        windows = video.windows(cell.video.window)
        features = encode_to_files(adapter, windows, n_frames, video.plan.second_per_grid, spill)
        found = heavy_hitters(
            adapter,
            features,
            question.prompt,
            spill,
            grid_seconds=video.plan.timestamps[:: adapter.frames_per_grid],
            seconds=asked.seconds,
            threshold=asked.threshold,
            chunk_frames=asked.chunk_frames,
        )
        memory = peak()
    rows = [
        {
            "video": question.video_id, "question": question.question_id, "layer": layer, "stretch": stretch,
            "start_s": stretch * asked.seconds, "tokens": tokens, "heavy": heavy, "ratio": heavy / tokens,
        }
        for layer, of_layer in enumerate(found.heavy)
        for stretch, (tokens, heavy) in enumerate(zip(found.tokens, of_layer, strict=True))
        if tokens
    ]  # fmt: skip
    cost = {
        "video": question.video_id, "frames": n_frames, "tokens": sum(found.tokens),
        "seconds": round(time.perf_counter() - started, 3), "peak_bytes": memory,
        "ratio": sum(map(sum, found.heavy)) / (sum(found.tokens) * len(found.heavy)),
    }  # fmt: skip
    return rows, cost


@contextmanager
def peak_memory(adapter: Adapter) -> Iterator[Callable[[], int]]:
    """Within the context, a function that returns the peak of allocated memory since its start, in bytes.

    On an accelerator all of the device's, weights included; on a CPU what torch has allocated since, files not.
    """

    with device_peak({parameter.device for parameter in adapter.model.parameters()}) as peak:
        if (found := peak()) is not None:
            del found
            yield lambda: peak() or 0
            return
    from harness.tools.analysis.spilled import Allocations

    with Allocations() as allocations:
        yield lambda: allocations.peak


def per_layer(ratios: pd.DataFrame) -> pd.DataFrame:
    """Heavy hitters of each video and layer, all stretches together."""
    found = ratios.groupby(KEYS, sort=False)[["tokens", "heavy"]].sum().reset_index()
    found["ratio"] = found["heavy"] / found["tokens"]
    return found


def told(cost: dict[str, Any]) -> str:
    """What one video gave and took, in one line."""
    return (
        f"{cost['video']}: {cost['frames']} frames, {cost['tokens']:,} tokens, {cost['ratio']:.1%} heavy hitters; "
        f"{cost['seconds']:.1f} s, peak of {cost['peak_bytes'] / 2**20:,.1f} MiB"
    )
