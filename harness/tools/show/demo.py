"""``demo``: one video, one question; the answer, what was kept of the video, and a picture of it."""

from __future__ import annotations

import dataclasses
import re
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.advice import open_console
from harness.benchmarks.parse import parse_letter
from harness.benchmarks.subtitles import choice_prompt, lettered
from harness.errors import UserError, printable
from harness.records import made_folder
from harness.run.answer import Session, load_model, open_sampled
from harness.settings.groups import Config, TaskConfig
from harness.settings.matrix import build_cells
from harness.tools.show import DemoConfig
from harness.tools.show.figure import draw
from harness.tools.show.kept import HeldFrames, Timeline, chunk_ends, kept_of, video_clock

if TYPE_CHECKING:
    from harness.compress.trace import Trace
    from harness.video.windows import Video


BAR = 8  # characters
COLUMNS = 4  # layers that a table of chunks has room for in 80 characters


def totals(trace: Trace, seconds: Mapping[str, float]) -> str:
    """Tokens seen and kept, and the time taken."""
    layers = len(trace.cache_length)
    cached = sum(trace.cache_length) / layers
    kept = sum(map(sum, trace.kept)) / layers
    times = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    seen = f"tokens: {trace.n_prompt:,} seen, {trace.n_video:,} of them video"
    if not trace.compressed:
        limit = "there is no limit" if trace.context is None else f"the context of {trace.context:,} holds them"
        return f"{seen}; all kept, {limit}\n{times}"
    return (
        f"{seen}; context {trace.context:,}; {cached:,.0f} cached per layer on average, "
        f"{kept:,.0f} of them video ({kept / trace.n_video:.1%})\n{times}"
    )


def chunk_table(trace: Trace, timeline: Timeline) -> Table:
    """One row per chunk: its time, its tokens, its budget, and what each layer kept of it."""
    layers = len(trace.cache_length)
    table = _table("per chunk")
    narrow = layers <= COLUMNS
    names = [f"layer {layer}" if layer == 0 else str(layer) for layer in range(layers)] if narrow else ["of a layer"]
    for name in ("chunk", "from", "tokens", "budget", "kept"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("share", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for i, (length, budget, kept) in enumerate(zip(trace.chunk_lengths, trace.chunk_budget, trace.kept, strict=True)):
        mean = sum(kept) / layers
        each = [f"{n:,}" for n in kept] if narrow else [f"{min(kept):,} to {max(kept):,}"]
        table.add_row(
            str(i + 1),
            video_clock(timeline.edges[i]),
            f"{length:,}",
            f"{budget:,}",
            f"{mean:,.0f}",
            _bar(mean / length),
            *each,
        )
    return table


def layer_table(trace: Trace) -> Table:
    """One row per layer: what it kept of the video, and its cache after the prompt."""
    table = _table("per layer")
    for name in ("layer", "video tokens kept", "cached"):
        table.add_column(name, justify="right")
    table.add_column("share of the video")
    for layer, cached in enumerate(trace.cache_length):
        kept = sum(chunk[layer] for chunk in trace.kept)
        table.add_row(str(layer), f"{kept:,}", f"{cached:,}", _bar(kept / trace.n_video))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", header_style="bold", box=SIMPLE, pad_edge=False)


def _bar(share: float) -> str:
    filled = round(BAR * share)
    return f"[cyan]{'█' * filled}[/cyan][dim]{'·' * (BAR - filled)}[/dim] {share:.0%}"


LONGEST_ANSWER = 1000  # characters

NOT_RECORDED = "the method does not record which tokens of the video stay, or chooses among its frames"

TOY_SHARE = 8
"""On the toy profile, unless a context is given, one token in so many of the video fits."""


@dataclass(frozen=True)
class DemoQuestion:
    """What is asked about which video; `answer` is the right letter where it is known."""

    video: Path
    text: str
    prompt: str
    options: dict[str, str]
    answer: str | None = None


def main(config: Config, demo: DemoConfig) -> int:
    """Carry out the verb.

    Raises:
        UserError: no video or question, a video that cannot be read, a context too small for the text, or a picture
            that cannot be written.
    """
    cell = build_cells(config, [])[0]  # loading says what is wrong with the weights
    asked = what_is_asked(demo, config.profile, cell.task, Path(config.data.root))
    output = Path(demo.output)
    if output.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"--output {output} must end in .png, .pdf or .svg")
    made_folder(output.parent, "--output FILE")

    # Opened before the model is loaded: a wrong path or a damaged file shows at once.
    video = open_sampled(asked.video, cell.video)
    session = Session(load_model(cell), [cell])
    adapter = session.adapter
    started = time.perf_counter()
    held = HeldFrames(video.windows(cell.video.window), len(video.plan.indices), adapter.frames_per_grid)
    features = session.encode(video.plan, held)
    encoded = time.perf_counter()
    if config.profile == "toy" and not _given(config.words, "context"):
        n_video = len(features.features)
        context = adapter.prompt(asked.prompt, features).n_text + max(1, n_video // TOY_SHARE)
        cell = dataclasses.replace(cell, context=context)
    generation = session.ask(features, asked.prompt, cell, record=True)
    seconds = {"decode and encode": encoded - started, "answer": time.perf_counter() - encoded}
    text, trace = generation.text.strip(), generation.trace

    words = (cell.model.name, cell.method.name, getattr(cell.method, "semantics", None))
    heading = " · ".join(word for word in words if word)
    console = open_console()
    print_answer(asked, text, video, heading, console)
    grid_times = (*video.plan.timestamps[:: adapter.frames_per_grid], video.info.duration_s)
    kept = kept_of(trace, features)
    ends = chunk_ends(trace.chunk_lengths) if kept is None else kept.ends
    timeline = Timeline.of(ends, features.tokens_per_grid, grid_times)
    console.print(totals(trace, seconds), soft_wrap=True)
    if trace.compressed:
        console.print(chunk_table(trace, timeline))
        console.print(layer_table(trace))
    if kept is None:
        console.print(f"no picture: {NOT_RECORDED}")
        return 0
    try:
        draw(output, held.frames, kept, timeline, question=asked.text, answer=text, heading=heading)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror or error}") from error
    console.print(f"picture: {output}", markup=False, soft_wrap=True)
    return 0


def print_answer(asked: DemoQuestion, text: str, video: Video, heading: str, console: Console) -> None:
    """Print what was asked and answered; nothing that a file or a model says reaches the terminal as a command."""
    letter = parse_letter(text, asked.options) if asked.options else None
    info, plan = video.info, video.plan
    seen = f"{len(plan.indices)} frames of {video.width}x{video.height}, {plan.sampling_fps:.3g} per second"
    console.print(f"[bold]{escape(heading)}[/bold]")
    console.print(f"{escape(printable(str(video.path)))}: {info.duration_s:.1f} s, {seen}", soft_wrap=True)
    console.print(f"question: {escape(printable(asked.text))}", soft_wrap=True)
    for name, option in asked.options.items():
        marks = [mark for mark, is_it in (("answered", name == letter), ("right", name == asked.answer)) if is_it]
        mark = f"  [green]<- {', '.join(marks)}[/green]" if marks else ""
        console.print(f"  {name}. {escape(printable(option))}{mark}", soft_wrap=True)
    shown = escape(printable(textwrap.shorten(text, LONGEST_ANSWER, placeholder=" ...")))
    console.print(f"answer: [bold]{shown or '(empty)'}[/bold]", soft_wrap=True)


def what_is_asked(demo: DemoConfig, profile: str, task: TaskConfig, data_root: Path) -> DemoQuestion:
    """Video and question: those of the command line; on the toy profile what is missing comes from the toy.

    Raises:
        UserError: no video, no such file, or no question.
    """
    example = '--video FILE --question "What happens?" --options "first option" "second option"'
    if demo.video is not None and not Path(demo.video).is_file():
        raise UserError(f"--video {demo.video} is not a file; write: python -m harness demo {example}")
    for option in demo.options:
        if re.match(r"[a-z_]+(\.[a-z_]+)*=", option):
            raise UserError(f"--options took the setting {option!r} for an option; write settings before --options")
    if demo.options and not demo.question:
        raise UserError(f"--options are given without a question; write: python -m harness demo {example}")
    if demo.question is not None and not demo.question.strip():
        raise UserError(f"--question is empty; write: python -m harness demo {example}")
    if demo.video is not None and demo.question is None:
        raise UserError(f"--question is missing; write: python -m harness demo {example}")
    if demo.video is None and profile != "toy":
        raise UserError(f"--video is missing; write: python -m harness demo profile={profile} {example}")
    for name, given in {"--question": demo.question or "", "--options": "".join(demo.options)}.items():
        if not _is_text(given):
            raise UserError(f"{name} holds bytes that are not UTF-8: {given!r}; write it in UTF-8 (see: locale)")
    options = lettered([option.strip() for option in demo.options])
    if len(options) < len(demo.options):
        raise UserError(f"--options: {len(demo.options)} options were given, at most {len(options)} are possible")
    if demo.video is None:
        toy = toy_question(task, data_root)
        if demo.question is None:
            return toy
        video = toy.video
    else:
        video = Path(demo.video)
    question = (demo.question or "").strip()  # not empty: a video of one's own comes with a question
    return DemoQuestion(video, question, choice_prompt(question, options) if options else question, options)


def toy_question(task: TaskConfig, data_root: Path) -> DemoQuestion:
    """A question of the toy's benchmark `task` about one of its longest videos."""
    from harness.benchmarks.questions import load_questions

    questions = load_questions(task, data_root)
    question = max(questions, key=lambda question: question.video_s or 0.0)
    text = question.prompt.splitlines()[0]
    return DemoQuestion(question.video, text, question.prompt, question.options, question.answer)


def _given(words: Sequence[str], key: str) -> bool:
    """Whether the command line sets `key` or something below it."""
    return any(word.split("=")[0] == key or word.startswith(f"{key}.") for word in words)


def _is_text(given: str) -> bool:
    """Whether it can be encoded: an undecodable byte of a command line stands as half of a pair of surrogates."""
    try:
        given.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
