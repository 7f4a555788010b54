"""A model that costs nothing: it answers about tiny videos as a file beside each of them says."""

import dataclasses
import io
import json
import os
import re
import signal
import struct
import time
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import torch

from harness.benchmarks.questions import Question
from harness.compress.trace import Generation, Trace
from harness.errors import QuestionError, UserError
from harness.models.adapter import Adapter
from harness.run.work import OpenCell, Order, find_work
from harness.settings.cell import Cell
from harness.settings.compose import compose_config
from harness.settings.groups import Config, RunConfig
from harness.store import Manifest, open_cell, read_outcomes

OPTIONS = {"A": "red", "B": "green", "C": "blue", "D": "none"}
LOADED: list["FakeAdapter"] = []
"""Models of this process, for tests that look into them."""


@cache
def film(frames: int) -> bytes:
    """An mp4 of so many frames, two per second, 32 x 32."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=2, options={"preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 32, 32, "yuv420p", Fraction(1, 2)
        for i in range(frames):
            picture = np.full((32, 32, 3), 8 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def make_video(folder: Path, name: str, *, frames: int = 6, size: int = 0, **behaviour) -> Path:
    """Write a video of so many sampled frames and `size` bytes more than it needs.

    behaviour: fail (at what), cells (contexts in which it does), ask_seconds.
    """
    path = folder / f"{name}.mp4"
    whole = film(frames)
    if behaviour.get("fail") == "decode":
        whole = whole[: len(whole) // 2]
    data = whole + struct.pack(">I4s", 8 + size, b"free") + bytes(size)
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(behaviour))
    return path


class FakeAdapter(Adapter):
    """Says (C) to question number c mod 4. The path of the file that says how to behave stands in the prompt."""

    family = "qwen2_5_vl"

    def __init__(self) -> None:
        self.model = SimpleNamespace(parameters=lambda: iter(()))
        self.device, self.attention_backend = torch.device("cpu"), "fake"
        self.encoded: list[int] = []
        LOADED.append(self)

    @classmethod
    def load(cls, path, **options):
        if os.environ.get("FAKE_MODEL_BROKEN"):
            raise RuntimeError("no such device")
        return cls()

    def encode_window(self, window):
        raise NotImplementedError

    def position_ids(self, *arguments):
        raise NotImplementedError

    def encode(self, windows, n_frames, second_per_grid, *, keep_frames=False, keep_attention=False):
        seen = sum(len(window) for window in windows)
        assert seen == n_frames
        self.encoded.append(n_frames)
        return {"frames": seen}

    def answer(self, video, question, method, context=None, *, evidence=(), **kinds):
        if place := re.match(r"\S+\.json", question):
            behaviour = json.loads(Path(place[0]).read_text())
            time.sleep(behaviour.get("ask_seconds", 0))
            if context in behaviour.get("cells", [context]):
                misbehave(behaviour.get("fail"), Path(place[0]).with_suffix(".once"))
        trace = Trace(100, 80, 80, context, True, [40, 40], [5, 5], cache_length=[10, 20], kept_digest="0123abcd")
        number = int(re.search(r"(\d+)\D*$", question)[1])
        return Generation([1, 2], trace, f"({'ABCD'[number % 4]})")


def misbehave(fail, once: Path) -> None:
    """Do what a video says; kinds with `once` in their name do it the first time only."""
    first = not once.exists()
    if fail in ("die once", "interrupt"):
        once.write_text("")
    if fail == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nsecond line")
    if fail == "bug":
        raise KeyError("layer 3")
    if fail == "user":
        raise UserError("method.chunk_frames=3 cannot work; raise it")
    if fail == "question":
        raise QuestionError("the question takes 300 tokens,\x1b[2J the context holds 100")
    if fail == "die" or (fail == "die once" and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if fail == "interrupt" and first:
        raise KeyboardInterrupt


@cache
def config_of_cells() -> Config:
    return compose_config(["profile=toy", "task=videomme", "model.adapter=fake_model.FakeAdapter"])


def make_cell(context: int | None = 100) -> Cell:
    config = config_of_cells()
    video = dataclasses.replace(config.video, max_frames=32, window=4, long_side=28, fps=2.0)
    model = dataclasses.replace(config.model, name="fake", dtype="float32", device="cpu")
    return Cell(model, config.method, video, context, config.task, "weights", {"adapter": 1, "decoding": 1})


def make_questions(videos: list[Path], per_video: int = 3) -> list[Question]:
    return [
        Question(
            f"{path.stem}-q{i}", path.stem, path, f"{path.with_suffix('.json')} Which? {i}", OPTIONS, "B", {"type": "t"}
        )
        for path in videos
        for i in range(per_video)
    ]


def make_order(
    folder: Path, videos: list[Path], contexts=(100, 200), per_video=3, workers=1, stamp="start", run=None, sharing=True
) -> Order:
    """An order over what is missing, its cells' folders opened, as the `run` verb makes it."""
    run = dataclasses.replace(run or RunConfig(prefetch=0), sharing=sharing)
    cells = []
    for context in contexts:
        cell, cell_folder = make_cell(context), folder / "runs" / f"cell-{context}"
        open_cell(cell_folder, Manifest(cell_folder.name, cell.digest, {}))
        cells.append(OpenCell(cell, cell_folder, make_questions(videos, per_video), read_outcomes(cell_folder)))
    logs = folder / "logs" / stamp
    logs.mkdir(parents=True, exist_ok=True)
    return Order((find_work("group", cells, run),), run, logs, workers)
