"""What the demo prints: the answer, and how much was seen and kept, per chunk and per layer."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.benchmarks.parse import parse_letter

if TYPE_CHECKING:
    from harness.compress.generate import Trace
    from harness.explore.demo import Asked
    from harness.explore.demo_figure import Timeline

BAR = 8  # characters
LONGEST_ANSWER = 1000  # characters
COLUMNS = 4  # layers that a table of chunks has room for in 80 characters


def print_tables(
    asked: Asked,
    text: str,
    trace: Trace,
    timeline: Timeline,
    seconds: Mapping[str, float],
    *,
    heading: str,
    video: Any,
    console: Console | None = None,
) -> None:
    """Print everything that the demo has to say in words."""
    console = console or Console()
    letter = parse_letter(text, asked.options) if asked.options else None
    console.print(f"[bold]{escape(heading)}[/bold]")
    info, plan = video.info, video.plan
    seen = f"{len(plan.indices)} frames of {video.width}x{video.height}, {plan.sampling_fps:.3g} per second"
    console.print(f"{escape(str(video.path))}: {info.duration_s:.1f} s, {seen}", soft_wrap=True)
    console.print(f"question: {escape(asked.text)}", soft_wrap=True)
    for name, option in asked.options.items():
        marks = [mark for mark, is_it in (("answered", name == letter), ("right", name == asked.answer)) if is_it]
        console.print(f"  {name}. {escape(option)}" + (f"  [green]<- {', '.join(marks)}[/green]" if marks else ""))
    shown = textwrap.shorten(text, LONGEST_ANSWER, placeholder=" ...")
    console.print(f"answer: [bold]{escape(shown) or '(empty)'}[/bold]", soft_wrap=True)
    console.print(_totals(trace, seconds), soft_wrap=True)
    if trace.compressed:
        console.print(chunk_table(trace, timeline))
        console.print(layer_table(trace))


def _totals(trace: Trace, seconds: Mapping[str, float]) -> str:
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
            clock(timeline.edges[i]),
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


def clock(seconds: float) -> str:
    """``1:05`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(share: float) -> str:
    filled = round(BAR * share)
    return f"[cyan]{'█' * filled}[/cyan][dim]{'·' * (BAR - filled)}[/dim] {share:.0%}"
