"""Draw storyboards, and write them as H.264."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from harness.toy.world import BACKGROUNDS, BOARD, COLOURS, EVENT_FRAMES, FPS, SHAPES, Storyboard

CELL = 14
CANVAS = BOARD * CELL
SIZE = 2 * CANVAS
Frames = npt.NDArray[np.uint8]
ENCODER = {
    "preset": "veryfast",
    "qp": "0",  # lossless, so that frames do not depend on what the encoder decides, which varies from run to run
    "x264-params": "threads=1:sliced-threads=0:bframes=0:keyint=32:scenecut=0:weightp=0",
}


def _masks() -> dict[str, npt.NDArray[np.bool_]]:
    y, x = np.mgrid[:CELL, :CELL] - (CELL - 1) / 2
    r, a, b = np.hypot(x, y), abs(x), abs(y)
    inside = np.maximum(a, b) < 6
    return {
        "disc": r < 5.6,
        "ring": (r < 6.4) & (r > 3.4),
        "square": np.maximum(a, b) < 5,
        "cross": inside & ((a < 2) | (b < 2)),
        "star": inside & (abs(a - b) < 1.6),
        "triangle": inside & (a <= (y + 6.5) / 2),
        "diamond": (a + b < 6.5) & (a + b > 2.5),
        "bars": inside & ((x.astype(int) + 12) % 4 < 2),
    }


MASKS = _masks()
assert set(MASKS) == set(SHAPES)


def _background(name: str) -> Frames:
    """A still texture [CANVAS, CANVAS, 3]: the colour, with faint stripes that differ by name."""
    y, x = np.mgrid[:CANVAS, :CANVAS]
    order = list(BACKGROUNDS).index(name)
    wave = np.sin((x * (order % 3) + y * (order // 3 + 1)) * 0.7) * 7
    texture: Frames = np.clip(np.array(BACKGROUNDS[name]) + wave[..., None], 0, 255).astype(np.uint8)
    return texture


TEXTURES = {name: _background(name) for name in BACKGROUNDS}


def draw(story: Storyboard) -> Frames:
    """Frames as uint8 [frames, SIZE, SIZE, 3].

    All is drawn in blocks of 2 x 2 pixels, so that the halved chroma of H.264 costs no sharpness.
    """
    canvas = np.empty((story.frames, CANVAS, CANVAS, 3), np.uint8)
    for scene in story.scenes:
        canvas[scene.start : scene.stop] = TEXTURES[scene.background]
        if scene.ball:
            _roll(canvas[scene.start : scene.stop], *scene.ball)
    for event in story.events:
        top, left = event.row * CELL, event.column * CELL
        cell = canvas[event.start : event.start + EVENT_FRAMES, top : top + CELL, left : left + CELL]
        cell[:] = TEXTURES[event.background][top : top + CELL, left : left + CELL]
        cell[:, MASKS[event.shape]] = COLOURS[event.colour]
    return canvas.repeat(2, axis=1).repeat(2, axis=2)


def _roll(frames: Frames, x: float, y: float, dx: float, dy: float) -> None:
    """Let a grey ball of ten blocks bounce through `frames`, in place: motion that answers nothing."""
    span = CANVAS - 10
    for frame in frames:
        x, y = x + dx, y + dy
        left, top = (int(span - abs(v % (2 * span) - span)) for v in (x, y))
        patch = frame[top : top + 10, left : left + 10]
        patch[2:8, 2:8] = (patch[2:8, 2:8] // 2) + 58


def encode(frames: Frames, target: Path | io.BytesIO) -> None:
    """Write uint8 [frames, height, width, 3] as an mp4 at FPS; only the halving of chroma loses anything."""
    with av.open(str(target) if isinstance(target, Path) else target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=ENCODER)
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.time_base = Fraction(1, FPS)
        for i, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
