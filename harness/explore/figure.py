"""The demo's picture: frames with their kept tokens lit, and the budget over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from harness.compress.trace import Trace
    from harness.models.features import VideoFeatures

COLUMNS, ROWS = 6, 2  # of frames
DARKEST = 0.22  # brightness of a token that no layer kept
ACCENT, SOFT = "#0b7a75", "#bfe3e0"


@dataclass(frozen=True)
class Timeline:
    """When things are in the video, in seconds: K chunks, G grids."""

    edges: list[float]  # [K + 1] where chunks begin, and the end
    grids: list[float]  # [G] where grids begin

    @classmethod
    def of(cls, trace: Trace, tokens_per_grid: int, grid_times: Sequence[float]) -> Timeline:
        """Args: grid_times [G + 1], the last one the end of the video. A chunk may end inside a grid."""
        ends = np.cumsum([0, *trace.chunk_lengths]) / tokens_per_grid
        edges = np.interp(ends, np.arange(len(grid_times)), grid_times)
        return cls(edges.tolist(), list(grid_times[:-1]))


def clock(seconds: float) -> str:
    """``1:05`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def kept_share(trace: Trace, features: VideoFeatures) -> np.ndarray:
    """Share of the layers that kept each token of the video [G, rows, columns].

    Where nothing was chosen every layer kept everything.

    Raises:
        ValueError: the trace has no recording.
    """
    if trace.recording is None:
        raise ValueError("the answer was generated without record=True, so nobody knows which tokens were kept")
    grids, height, width = features.grid
    merge = math.isqrt(height * width // features.tokens_per_grid)
    shares = []
    for length, layers in zip(trace.chunk_lengths, trace.recording.kept_indices, strict=True):
        share = np.ones(length)
        if layers is not None:
            share = sum((np.bincount(i.numpy(), minlength=length) for i in layers), np.zeros(length)) / len(layers)
        shares.append(share)
    return np.concatenate(shares).clip(0, 1).reshape(grids, height // merge, width // merge)


def choose_grids(kept: np.ndarray, held: Sequence[int], count: int) -> list[int]:
    """Of `count` equal stretches of the video, the grid with most kept tokens among those whose frame is held."""
    stretches = np.array_split(np.array(sorted(held)), min(count, len(held)))
    total = kept.sum(axis=(1, 2))
    return [int(stretch[total[stretch].argmax()]) for stretch in stretches]


def lit(frame: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A frame [H, W, 3] in which a token is as bright as the share [rows, columns] of layers that kept it is large."""
    height, width, _ = frame.shape
    rows = np.minimum(np.arange(height) * share.shape[0] // height, share.shape[0] - 1)
    columns = np.minimum(np.arange(width) * share.shape[1] // width, share.shape[1] - 1)
    weight = (share**0.7)[rows][:, columns, None]  # that few layers kept a token should still show
    grey = frame.mean(axis=2, keepdims=True) * DARKEST + 12
    shaded: np.ndarray = (weight * frame + (1 - weight) * grey).clip(0, 255)
    return shaded.astype(np.uint8)


def draw(
    path: Path,
    frames: Mapping[int, np.ndarray],
    kept: np.ndarray,
    timeline: Timeline,
    trace: Trace,
    *,
    question: str,
    answer: str,
    heading: str,
) -> None:
    """Write the picture.

    Args:
        frames: grid -> frame, those that may be shown.
        kept: share of the layers that kept each token [G, rows, columns].
        question, answer, heading: texts above the frames.
    """
    from matplotlib.figure import Figure

    chosen = choose_grids(kept, list(frames), COLUMNS * ROWS)
    first = frames[chosen[0]]
    rows = -(-len(chosen) // COLUMNS)
    tile = 13.0 / COLUMNS  # inches
    tall = tile * min(first.shape[0] / first.shape[1], 1.2) + 0.3
    figure = Figure(figsize=(14, 1.0 + rows * tall + 4.6), dpi=110, layout="constrained", facecolor="white")
    areas: Any = figure.subfigures(3, 1, height_ratios=[1.0, rows * tall, 4.6])
    title, strip, plots = areas
    _title(title, question, answer, heading)
    axes = strip.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, grid in zip(axes, chosen, strict=False):
        axis.imshow(lit(frames[grid], kept[grid]))
        _outline(axis, kept[grid] > 0, frames[grid].shape)
        axis.set_title(f"{clock(timeline.grids[grid])}   {kept[grid].mean():.0%} kept", fontsize=9, color="#333333")
    (curve, beside), (heat, scale) = plots.subplots(2, 2, width_ratios=[1, 0.012])
    beside.set_axis_off()
    _budget(curve, kept, timeline, trace, chosen)
    _layers(plots, heat, scale, timeline, trace)
    figure.savefig(path)


def _title(area: Any, question: str, answer: str, heading: str) -> None:
    short, reply = _one_line(question), _one_line(answer) or "(empty)"
    area.text(0.01, 0.80, short, fontsize=13, weight="bold", va="center")
    area.text(0.01, 0.45, f"answer: {reply}", fontsize=12, va="center", color=ACCENT)
    area.text(
        0.01,
        0.13,
        f"{heading}   ·   bright: kept by all layers, dark: by none",
        fontsize=9,
        va="center",
        color="#555555",
    )


def _one_line(text: str) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return (text if len(text) <= 110 else text[:109] + "…").replace("$", r"\$")


def _outline(axis: Any, kept: np.ndarray, shape: tuple[int, ...]) -> None:
    """Lines around the tokens that any layer kept."""
    if kept.all() or not kept.any():
        return
    height, width = shape[0] / kept.shape[0], shape[1] / kept.shape[1]
    padded = np.pad(kept, 1).astype(int)
    segments = []
    for row, column in zip(*np.nonzero(np.diff(padded, axis=0)[:, 1:-1]), strict=True):
        segments.append([(column * width, row * height), ((column + 1) * width, row * height)])
    for row, column in zip(*np.nonzero(np.diff(padded, axis=1)[1:-1]), strict=True):
        segments.append([(column * width, row * height), (column * width, (row + 1) * height)])
    from matplotlib.collections import LineCollection

    lines = list(np.array(segments) - 0.5)
    axis.add_collection(LineCollection(lines, colors="#ffd23f", linewidths=0.9))


def _budget(axis: Any, kept: np.ndarray, timeline: Timeline, trace: Trace, chosen: Sequence[int]) -> None:
    """Tokens kept per grid, and the mean of each chunk."""
    n = kept.shape[1] * kept.shape[2]
    edges = np.array(timeline.edges)
    per_grid = kept.sum(axis=(1, 2))
    times = np.append(timeline.grids, edges[-1])
    axis.stairs(per_grid, times, fill=True, color=SOFT, label="kept in a grid, mean of the layers")
    means = [np.mean(layers) / length * n for layers, length in zip(trace.kept, trace.chunk_lengths, strict=True)]
    axis.stairs(means, edges, color=ACCENT, linewidth=2, baseline=None, label="mean of the chunk")
    top = max(per_grid.max(), 1.0)
    axis.plot([timeline.grids[g] for g in chosen], [top * 1.04] * len(chosen), "v", color="#444444", markersize=5,
              label="frames above", clip_on=False)  # fmt: skip
    axis.set(
        xlim=(edges[0], edges[-1]),
        ylim=(0, top * 1.12),
        ylabel=f"tokens of {n}",
    )
    axis.set_title("Budget over time", loc="left", fontsize=10)
    _time_axis(axis)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, ncols=3, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _layers(area: Any, axis: Any, scale: Any, timeline: Timeline, trace: Trace) -> None:
    """Share that each layer kept of each chunk."""
    share = np.array(trace.kept, dtype=float).T / np.array(trace.chunk_lengths)
    mesh = axis.pcolormesh(
        timeline.edges, np.arange(share.shape[0] + 1) - 0.5, share, cmap="GnBu", vmin=0, vmax=max(share.max(), 1e-9)
    )
    axis.invert_yaxis()
    axis.set(xlabel="time in the video", ylabel="layer")
    axis.set_title("Share kept, by layer and chunk", loc="left", fontsize=10)
    axis.set_yticks(np.unique(np.linspace(0, share.shape[0] - 1, min(share.shape[0], 8)).round().astype(int)))
    _time_axis(axis)
    area.colorbar(mesh, cax=scale, format=lambda value, _: f"{value:.0%}")


def _time_axis(axis: Any) -> None:
    axis.xaxis.set_major_formatter(lambda value, _: clock(value))
