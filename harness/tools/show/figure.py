"""The demo's picture: frames with their kept tokens lit, and the budget over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.tools.show.kept import Kept, Timeline, choose_grids, video_clock

COLUMNS, ROWS = 6, 2  # of frames
DARKEST = 0.22  # brightness of a token that no layer kept
ACCENT, SOFT = "#0b7a75", "#bfe3e0"


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
    kept: Kept,
    timeline: Timeline,
    *,
    question: str,
    answer: str,
    heading: str,
) -> None:
    """Write the picture.

    Args:
        frames: grid -> frame, those that may be shown.
        kept: what was kept of the video.
        question, answer, heading: texts above the frames.
    """
    from matplotlib.figure import Figure

    share = kept.share
    chosen = choose_grids(share, list(frames), COLUMNS * ROWS)
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
        tile_of(axis, frames[grid], share[grid])
        axis.set_title(
            f"{video_clock(timeline.grids[grid])}   {share[grid].mean():.0%} kept", fontsize=9, color="#333333"
        )
    (curve, beside), (heat, scale) = plots.subplots(2, 2, width_ratios=[1, 0.012])
    beside.set_axis_off()
    budget(curve, kept, timeline, chosen)
    curve.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, ncols=3, frameon=False)
    curve.set_title("Budget over time", loc="left", fontsize=10)
    plots.colorbar(layers(heat, kept, timeline), cax=scale, format=lambda value, _: f"{value:.0%}")
    heat.set_title("Share kept, by layer and chunk", loc="left", fontsize=10)
    figure.savefig(path)


def _title(area: Any, question: str, answer: str, heading: str) -> None:
    short, reply = one_line(question), one_line(answer) or "(empty)"
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


def one_line(text: str) -> str:
    """A text as one short line of a picture."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return (text if len(text) <= 110 else text[:109] + "…").replace("$", r"\$")


def tile_of(axis: Any, frame: np.ndarray, share: np.ndarray) -> None:
    """A frame [H, W, 3] with the share [rows, columns] of layers that kept each of its tokens."""
    axis.imshow(lit(frame, share))
    _outline(axis, share > 0, frame.shape)


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


def budget(axis: Any, kept: Kept, timeline: Timeline, chosen: Sequence[int]) -> None:
    """Tokens kept per grid, and the mean of each chunk; marks at the grids `chosen`."""
    share = kept.share
    n = share.shape[1] * share.shape[2]
    edges = np.array(timeline.edges)
    per_grid = share.sum(axis=(1, 2))
    axis.stairs(per_grid, np.append(timeline.grids, edges[-1]), fill=True, color=SOFT,
                label="kept in a grid, mean of the layers")  # fmt: skip
    axis.stairs(kept.of_chunks.mean(0) * n, edges, color=ACCENT, linewidth=2, baseline=None, label="mean of the chunk")
    top = max(per_grid.max(), 1.0)
    axis.plot([timeline.grids[g] for g in chosen], [top * 1.04] * len(chosen), "v", color="#444444", markersize=5,
              label="frames above", clip_on=False)  # fmt: skip
    axis.set(xlim=(edges[0], edges[-1]), ylim=(0, top * 1.12), ylabel=f"tokens of {n}")
    _time_axis(axis)
    axis.spines[["top", "right"]].set_visible(False)


def layers(axis: Any, kept: Kept, timeline: Timeline, most: float | None = None) -> Any:
    """Share that each layer kept of each chunk, in colours up to `most`; returns what a scale may be drawn of."""
    share = kept.of_chunks
    mesh = axis.pcolormesh(
        timeline.edges, np.arange(share.shape[0] + 1) - 0.5, share, cmap="GnBu", vmin=0,
        vmax=most or max(share.max(), 1e-9),
    )  # fmt: skip
    axis.invert_yaxis()
    axis.set(xlabel="time in the video", ylabel="layer")
    axis.set_yticks(np.unique(np.linspace(0, share.shape[0] - 1, min(share.shape[0], 8)).round().astype(int)))
    _time_axis(axis)
    return mesh


def _time_axis(axis: Any) -> None:
    axis.xaxis.set_major_formatter(lambda value, _: video_clock(value))
