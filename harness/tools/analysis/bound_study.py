"""``analyze bound``: appendix A in numbers, and the output's error against kept attention mass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from harness.errors import QuestionError, UserError, VideoError
from harness.run.answer import load_model
from harness.settings.cell import Cell
from harness.store.records import made_folder
from harness.tools.analysis import bound_figures
from harness.tools.analysis.bound import GUARANTEE, instances, judged
from harness.tools.analysis.heavy_study import chosen
from harness.tools.analysis.places import write_figure
from harness.tools.analysis.verbs import AnalyzeConfig


def study(cell: Cell, data_root: Path, folder: Path, analyze: AnalyzeConfig) -> int:
    """Write instances, errors and their figure to `bound` in a folder.

    Returns:
        0; 1 where a video was left out, or something that is proven does not hold.

    Raises:
        UserError: no videos or weights.
    """
    console = Console(highlight=False)
    folder = made_folder(folder / "bound", "results=<folder>")
    drawn = pd.DataFrame([judged(found) for found in instances(analyze.instances, analyze.seed)])
    drawn.to_csv(folder / "instances.csv", index=False)
    holds = bool((drawn["greedy"] >= 1 - 1e-9).all())
    console.print(
        f"{len(drawn)} instances, gains in log-mass as shares of the best: greedy at least {drawn['greedy'].min():.3f} "
        f"(proven: 1 - 1/e = {GUARANTEE:.3f}); pooled at least {drawn['pooled'].min():.3f}, below it in "
        f"{(drawn['pooled'] < GUARANTEE).mean():.1%}, mean {drawn['pooled'].mean():.3f}; even at least "
        f"{drawn['even'].min():.3f}, mean {drawn['even'].mean():.3f}",
        soft_wrap=True,
    )
    rows, problems, setting = measured(cell, data_root, analyze)
    for problem in problems:
        console.print(f"left out: {problem}", markup=False, soft_wrap=True)
    errors = pd.DataFrame(rows)
    errors.to_csv(folder / "errors.csv", index=False)
    scored = errors[errors["choice"] != "at random"]
    console.print(
        f"{len(errors)} answers: rank correlation of kept log-mass with the error of the logits "
        f"{rank_correlation(errors):+.2f}, without choices at random {rank_correlation(scored):+.2f} (measured)",
        soft_wrap=True,
    )
    write_figure(folder / "bound.svg", bound_figures.draw, drawn, errors, setting)
    console.print(f"figure and CSV files: {folder}", markup=False, soft_wrap=True)
    return 0 if holds and not problems else 1


def rank_correlation(errors: pd.DataFrame) -> float:
    """Spearman's, of kept log-mass with the error of the logits, mean over the videos."""
    ranks = [of_video[["log_mass", "logits"]].rank().corr().iloc[0, 1] for _, of_video in errors.groupby("video")]
    return float(pd.Series(ranks).mean())


def measured(cell: Cell, data_root: Path, analyze: AnalyzeConfig) -> tuple[list[dict[str, Any]], list[str], str]:
    """The errors of some videos of the task, which videos could not be used, and what was run.

    Raises:
        UserError: none could be used.
    """
    from harness.benchmarks.questions import load_questions
    from harness.tools.analysis.output_error import errors
    from harness.tools.fit import videos

    questions = chosen(load_questions(cell.task, data_root), analyze.videos)
    adapter = load_model(cell)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for question in questions:
        try:
            for video, asked in videos([(question.video, question.prompt)], adapter, cell):
                found = list(errors(adapter, video, asked, chunk_frames=analyze.chunk_frames))
                rows += [{"video": question.video_id, **row} for row in found]
        except (VideoError, QuestionError) as error:
            problems.append(f"{question.video_id}: {error}")
    if not rows:
        raise UserError(
            f"none of {len(questions)} videos could be used; {problems[0] if problems else 'there is none'}"
        )
    used = len({row["video"] for row in rows})
    return (
        rows,
        problems,
        f"{cell.model.name}, {cell.task.name}, {used} videos of at most {cell.video.max_frames} frames",
    )
