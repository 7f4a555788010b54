"""How much of a video was seen and kept, in words: in all, per chunk and per layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table

from harness.tools.show.kept import Timeline, clock

if TYPE_CHECKING:
    from harness.compress.trace import Trace

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


def _bar(share: float) -> str:
    filled = round(BAR * share)
    return f"[cyan]{'█' * filled}[/cyan][dim]{'·' * (BAR - filled)}[/dim] {share:.0%}"
