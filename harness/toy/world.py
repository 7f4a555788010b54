"""What happens in a toy video: scenes, drifting balls, and short events on a 4 x 4 board.

One cell of the board is 28 x 28 pixels, that is one merged vision token of Qwen2.5-VL, and an event
lasts four frames (two grids). So what a question asks about sits in two or three tokens out of two
thousand: a compressor that loses them loses the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BOARD = 4
FPS = 2
EVENT_FRAMES = 4
GAP_FRAMES = 2
MOST_OFTEN = 3

SHAPES = ("disc", "ring", "square", "cross", "star", "triangle", "diamond", "bars")
COLOURS = {
    "red": (225, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 80, 240),
    "yellow": (240, 220, 50),
    "pink": (240, 100, 200),
    "cyan": (60, 220, 230),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
}
BACKGROUNDS = {
    "night": (60, 60, 95),
    "sand": (180, 160, 115),
    "grass": (90, 130, 75),
    "sea": (75, 115, 155),
    "brick": (135, 85, 75),
    "fog": (150, 150, 155),
}


@dataclass(frozen=True)
class Event:
    """A shape seen in one cell during frames [start, start + EVENT_FRAMES)."""

    start: int
    row: int
    column: int
    shape: str
    colour: str
    background: str


@dataclass(frozen=True)
class Scene:
    """Frames [start, stop) in front of one background; `ball` is (x, y, dx, dy) or None for a still."""

    start: int
    stop: int
    background: str
    ball: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Storyboard:
    """A whole video: its length in frames (at FPS), its scenes and its events in order of time."""

    frames: int
    scenes: tuple[Scene, ...]
    events: tuple[Event, ...]

    def of(self, shape: str) -> list[Event]:
        """The events that show `shape`, in order of time."""
        return [event for event in self.events if event.shape == shape]


def sampled(frames: int) -> npt.NDArray[np.int64]:
    """Indices of the native frames that the harness's sampler shows at the videos' own rate, int [n].

    The sampler spreads n frames evenly over a time grid of 25 fps, both ends included; the grid's
    last point lies before the last native frame ends, so the indices drift by up to one frame.
    """
    points = frames * 25 // FPS
    n = min(points, frames) // 2 * 2
    times = np.linspace(0, points - 1, n).astype(int) / 25
    native: npt.NDArray[np.int64] = np.minimum(np.rint(times * FPS).astype(int), frames - 1)
    return native


def compose(rng: np.random.Generator, frames: int, *, most_events: int = 14) -> Storyboard:
    """Draw a storyboard of `frames` frames.

    Each shape keeps one colour throughout, and no two shapes share a colour, so that a shape and a
    colour name each other. Two shapes are seen up to three times (for counting), the rest once or, at
    least two, never. Two of the shapes seen once may share a moment (for "both together"); all other events are apart.
    """
    scenes = _scenes(rng, frames)
    slot = EVENT_FRAMES + GAP_FRAMES
    room = min(most_events, frames // slot)
    shapes = rng.permutation(SHAPES).tolist()
    colours = dict(zip(shapes, rng.permutation(list(COLOURS)).tolist(), strict=False))

    often = [int(rng.integers(1, MOST_OFTEN + 1)) for _ in range(2)]
    moments: list[list[str]] = []
    if rng.random() < 0.6:
        moments.append([shapes.pop(), shapes.pop()])
    for times in often:
        shape = shapes.pop()
        moments += [[shape]] * min(times, max(0, room - len(moments)))
    absent = int(rng.integers(2, 4))
    while len(shapes) > absent and len(moments) < room:
        moments.append([shapes.pop()])

    spare = frames - len(moments) * slot
    starts = np.sort(rng.integers(0, spare + 1, len(moments))) + np.arange(len(moments)) * slot
    # A token shows two sampled frames: events begin with one, so that each fills two tokens.
    firsts = sampled(frames)[::2]
    starts = firsts[np.searchsorted(firsts, starts)]
    events = []
    for start, index in zip(starts, rng.permutation(len(moments)), strict=False):
        cells = rng.permutation(BOARD * BOARD)
        behind = _scene_for(scenes, int(start))
        for cell, shape in zip(cells, moments[index], strict=False):
            row, column = divmod(int(cell), BOARD)
            events.append(Event(int(start), row, column, shape, colours[shape], behind.background))
    return Storyboard(frames, _stretch(scenes, events), tuple(events))


def _scenes(rng: np.random.Generator, frames: int) -> list[Scene]:
    # Short clips are cut too: else the background of an event would be that of nearly all tokens.
    shortest = max(2, min(10, frames // 6))
    longest = max(shortest + 1, min(44, frames // 2))
    scenes: list[Scene] = []
    start, background = 0, ""
    while start < frames:
        length = int(rng.integers(shortest, longest))
        stop = frames if frames - start - length < shortest else start + length
        background = str(rng.choice([name for name in BACKGROUNDS if name != background]))
        ball = None
        if rng.random() < 0.6:
            ball = (*rng.uniform(0, 46, 2), *rng.uniform(-3, 3, 2))
        scenes.append(Scene(start, stop, background, ball))
        start = stop
    return scenes


def _scene_for(scenes: list[Scene], frame: int) -> Scene:
    return next(scene for scene in scenes if scene.start <= frame < scene.stop)


def _stretch(scenes: list[Scene], events: list[Event]) -> tuple[Scene, ...]:
    """Move each cut that would fall inside an event behind it: an event has one background."""
    cuts = [scene.start for scene in scenes[1:]]
    for i, cut in enumerate(cuts):
        for event in events:
            if event.start < cut < event.start + EVENT_FRAMES:
                cuts[i] = event.start + EVENT_FRAMES
    starts, stops = [0, *cuts], [*cuts, scenes[-1].stop]
    return tuple(Scene(a, b, s.background, s.ball) for a, b, s in zip(starts, stops, scenes, strict=False))
