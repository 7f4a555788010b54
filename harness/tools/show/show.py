"""``show``: stored questions, answered again with recording on: is it the stored answer, and what did cells keep?"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from harness.advice import harness
from harness.benchmarks.questions import load_questions
from harness.errors import UserError, printable
from harness.evidence.cells import CellResult
from harness.evidence.loading import Ids, find_name, find_names, load_cells, references_of, stored_names
from harness.report.explorer.page import hang_pictures
from harness.report.style import BESIDE, picture, words_of
from harness.settings.cell import Cell
from harness.settings.groups import Config, once_per_task
from harness.settings.matrix import build_cells, ids_under
from harness.tools.show import ShowConfig
from harness.tools.show.again import PLACES, Again, Ask, answer_again, stored_cell
from harness.tools.show.demo import NOT_RECORDED
from harness.tools.show.figure import budget, draw, layers, one_line, tile_of
from harness.tools.show.kept import choose_grids, video_clock

COLUMNS = 6
"""Frames."""


def draw_beside(path: Path, shown: Sequence[Again], labels: Sequence[str], question: str) -> None:
    """Write the picture; of cells that recorded nothing only the answer stands there.

    Args:
        path: of the file; its folder is there.
        shown: cells with the same frames.
        labels: of each cell.
        question: above all.
    """
    from matplotlib.figure import Figure

    shares = [again.kept.share for again in shown if again.kept is not None]
    frames = shown[0].frames
    chosen = choose_grids(np.mean(shares, axis=0), list(frames), COLUMNS)
    first = frames[chosen[0]]
    tall = 1.75 * min(max(first.shape[0] / first.shape[1], 0.5), 1.3) + 0.75
    heights = [0.6, *(0.6 if again.kept is None else tall for again in shown)]
    figure = Figure(figsize=(19, sum(heights)), dpi=110, layout="constrained", facecolor="white")
    areas: Any = figure.subfigures(len(shown) + 1, 1, height_ratios=heights)
    head, *rows = areas
    head.text(0.005, 0.5, one_line(question), fontsize=13, weight="bold", va="center")
    shares = [a.kept.of_chunks.max() for a in shown if a.kept is not None and a.generation.trace.compressed]
    most = max(shares, default=1.0)
    for row, again, label in zip(rows, shown, labels, strict=True):
        _row(row, again, label, chosen, max(float(most), 1e-9))
    figure.savefig(path)


def _row(area: Any, again: Again, label: str, chosen: Sequence[int], most: float) -> None:
    mark = "" if not again.differs else "   (not the stored answer)"
    title = one_line(f"{label}:  {again.text or '(empty)'}{mark}")
    area.suptitle(title, x=0.005, ha="left", fontsize=11, color="#b3261e" if again.differs else "#222222")
    if again.kept is None:
        area.text(0.005, 0.2, "what is kept is not recorded", fontsize=9, color="#555555")
        return
    axes = area.subplots(1, COLUMNS + 2, width_ratios=[*[1.0] * COLUMNS, 1.9, 1.9])
    for axis in axes[:COLUMNS]:
        axis.set_axis_off()
    share = again.kept.share
    for axis, grid in zip(axes, chosen, strict=False):
        tile_of(axis, again.frames[grid], share[grid])
        axis.set_title(
            f"{video_clock(again.timeline.grids[grid])}  {share[grid].mean():.0%}", fontsize=9, color="#333333"
        )
    budget(axes[-2], again.kept, again.timeline, chosen)
    mesh = layers(axes[-1], again.kept, again.timeline, most)
    area.colorbar(mesh, ax=axes[-1], format=lambda value, _: f"{value:.0%}")
    for axis, name in ((axes[-2], "budget over time"), (axes[-1], "share kept, by layer and chunk")):
        axis.set_title(name, loc="left", fontsize=9, color="#333333")
        axis.tick_params(labelsize=8)


SAME, OTHER = 0, 1
MOST = 16
"""Cells that are shown without having been named."""


def main(config: Config, show: ShowConfig) -> int:
    """Answer the chosen questions again in the chosen cells; draw each cell, and all of a benchmark side by side.

    Pictures: ``pictures/<question>/<cell>.png`` and ``<benchmark>.side_by_side.png`` in the report's folder.

    Returns:
        0 when every answer is the stored one, ties of tokens aside; 1 when one is not, or nothing could be answered
        because all of it is stored as failed.

    Raises:
        UserError: there is no such question or cell, it is not answered, or cannot be answered again with what is here.
    """
    if bool(show.questions) == bool(show.flips) or len(show.flips) not in (0, 2):
        raise UserError("name questions (python -m harness show QUESTION cell=...), or two cells (--flips CELL CELL)")
    console = Console(highlight=False, soft_wrap=True)
    given = {word.split("=")[0] for word in config.words}
    here = {name: getattr(config.model, name) for name in PLACES if f"model.{name}" in given or "model" in given}
    stored = stored_cells(config.results, show, partial(build_cells, config, []), ids_under(config.words))
    if not stored:
        raise UserError(f"{config.results}/runs holds no cell yet: {harness('run', config.words)}")
    asks = chosen_asks(stored, show, Path(config.data.root), here, console)
    if not asks:
        return OTHER
    others = total = 0
    for _, of_question in itertools.groupby(answer_again(asks), lambda again: again.ask.question.question_id):
        shown = list(of_question)
        tell(shown, console)
        for path in draw_answers(shown, config.report.folder(config.results)):
            console.print(f"  picture: {path}", markup=False)
        others += sum(bool(again.differs) and not again.tie for again in shown)
        total += len(shown)
    hang_pictures(config.report.folder(config.results))
    console.print(f"{total - others} of {total} answers are the stored ones")
    return OTHER if others else SAME


def chosen_asks(
    stored: Sequence[CellResult], show: ShowConfig, data_root: Path, here: Mapping[str, Any], console: Console
) -> list[Ask]:
    """The stored answers to replay, with the questions as their annotation has them now; prints which are failed.

    Args:
        stored: cells; with ``--flips`` the first and the last are compared.
        data_root: the folder of the benchmarks.
        here: see :func:`stored_cell`.

    Raises:
        UserError: see `main`.
    """
    questions = flipped(stored[0], stored[-1]) if show.flips else show.questions
    if show.flips:
        more = f", the first {show.limit} of them (--limit)" if len(questions) > show.limit else ""
        console.print(f"{len(questions)} questions flip between {stored[0].id} and {stored[-1].id}{more}")
    questions = list(dict.fromkeys(questions))[: show.limit]
    known = {question.question_id for cell in stored for question in cell.questions}
    for name in questions:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=5) or sorted(known)[:5]
            raise UserError(f"no chosen cell has a question {name!r}; there are, for example: {', '.join(near)}")
    annotated, asks = once_per_task(partial(load_questions, root=data_root.absolute())), []
    for cell in stored:
        asked, again = {question.question_id: question for question in cell.questions}, None
        for name in (name for name in questions if name in asked):
            answer = cell.answers.get(name)
            if answer is None or not answer.ok:
                why = "is not answered yet" if answer is None else f"is stored as failed: {answer.reason}"
                console.print(f"{cell.id}: question {name} {why}", markup=False)
                continue
            again = again or stored_cell(cell, here)
            question = next((q for q in annotated(again.task) if q.question_id == name), None)
            if question is None or (asked[name].prompt_digest or "") not in ("", question.digest):
                raise UserError(f"question {name} of {cell.id} is not in {data_root} as it was asked then")
            asks.append(Ask(cell, again, question, answer))
    return asks


def stored_cells(
    results: str, show: ShowConfig, matrix: Callable[[], Sequence[Cell]], ids_under: Ids
) -> list[CellResult]:
    """The cells that are named, in that order; else those of the matrix, or all where none of these is stored.

    Args:
        results: the results folder.
        matrix: makes the cells of the configured matrix.
        ids_under: what a setting in brackets means.

    Raises:
        UserError: a reference that matches no cell, or a flag that needs one cell and gets several.
    """
    names, place = stored_names(Path(results) / "runs"), f"{results}/runs"
    if show.flips:
        wanted = [find_name(reference, names, place, ids_under) for reference in show.flips]
    elif references := references_of(show.cell):
        matched = [find_names(reference, names, place, ids_under) for reference in references]
        wanted = list(dict.fromkeys(itertools.chain(*matched)))
    else:
        wanted = [cell.id for cell in matrix() if cell.id in names] or names
        if len(wanted) > MOST:
            raise UserError(f"{len(wanted)} cells are too many for one picture; say which: cell='*c259*' or cell=ID,ID")
        return load_cells(results, wanted) if wanted else []
    return sorted(load_cells(results, wanted), key=lambda cell: wanted.index(cell.id))


def flipped(a: CellResult, b: CellResult) -> list[str]:
    """The questions that one of two cells answers right and the other wrong, in the order of the first."""
    right = [
        {q.question_id: value for q, value in zip(cell.questions, cell.correct().tolist(), strict=True)}
        for cell in (a, b)
    ]
    both = [name for name in right[0] if name in right[1]]
    if not both:
        raise UserError(f"{a.id} and {b.id} share no question; --flips takes two cells of one benchmark")
    pairs = ((name, right[0][name], right[1][name]) for name in both)
    found = [name for name, x, y in pairs if not math.isnan(x) and not math.isnan(y) and x != y]
    if not found:
        raise UserError(f"no answer is right in one of {a.id} and {b.id} and wrong in the other")
    return found


def tell(shown: Sequence[Again], console: Console) -> None:
    """Print one question and what each cell answers to it."""
    question = shown[0].ask.question
    console.print(f"\n[bold]{escape(printable(question.question_id))}[/bold]  {escape(printable(question.prompt))}")
    console.print(f"  video: {escape(printable(str(question.video)))}, gold answer: {question.answer or 'unknown'}")
    for again in shown:
        text = escape(printable(one_line(again.text) or "(empty)"))
        console.print(f"  {escape(again.ask.stored.id)}: [bold]{text}[/bold]  {verdict(again)}")
        if again.kept is None:
            console.print(f"    no picture: {NOT_RECORDED}")


def verdict(again: Again) -> str:
    """Whether it is the stored answer, for a terminal."""
    if not again.differs:
        return "[green]the stored answer[/green]"
    if again.tie:
        return "[green]the stored answer[/green], with another of two tied tokens kept"
    stored = escape(printable(one_line(again.ask.answer.text.strip())))
    return f"[red]not the stored answer[/red] ({', '.join(again.differs)} differ; stored text: {stored or '(empty)'})"


def draw_answers(shown: Sequence[Again], report: Path) -> Iterable[Path]:
    """Write the pictures of one question; returns their paths as they come."""
    name = shown[0].ask.question.question_id
    cells = [again.ask.stored for again in shown]
    labels = [", ".join([cell.method_title, *words_of(cell, cells)]) for cell in cells]
    for again, label in zip(shown, labels, strict=True):
        if again.kept is not None:
            path = _open(picture(report, name, again.ask.stored.id))
            text = first_line(again)
            draw(path, again.frames, again.kept, again.timeline, question=text, answer=again.text, heading=label)
            yield path
    for benchmark in dict.fromkeys(cell.benchmark for cell in cells):
        own = [again for again, cell in zip(shown, cells, strict=True) if cell.benchmark == benchmark]
        alike = [again for again in own if again.ask.cell.video_key == own[0].ask.cell.video_key]
        if len(alike) > 1 and any(again.kept is not None for again in alike):
            path = _open(picture(report, name, f"{benchmark}.{BESIDE}"))
            draw_beside(path, alike, [labels[shown.index(again)] for again in alike], first_line(own[0]))
            yield path


def first_line(again: Again) -> str:
    """What is asked, without the options, and the gold answer."""
    question = again.ask.question
    return f"{question.prompt.strip().splitlines()[0]}  (gold: {question.answer or 'unknown'})"


def _open(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    return path
