"""A model and videos that cost nothing: a video is a JSON file that says how it behaves."""

import json
import os
import re
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.benchmarks.questions import Question
from harness.compress.method import build_method
from harness.config import ModelConfig, RunConfig, TaskConfig, VideoConfig
from harness.errors import UserError, VideoError
from harness.plan.cell import Cell
from harness.run.respond import Reply
from harness.run.work import CellWork, WorkOrder, build_group
from harness.store import Manifest, open_cell, read_answers
from harness.video.sampling import FramePlan

OPTIONS = {"A": "red", "B": "green", "C": "blue", "D": "none"}


def make_video(folder: Path, name: str, **behaviour) -> Path:
    """Write a video; behaviour: frames, fail (when), times, ask_seconds."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"frames": 6, **behaviour}))
    return path


@dataclass
class FakeVideo:
    path: Path
    behaviour: dict
    backend: str = "fake"

    @property
    def plan(self) -> FramePlan:
        n = self.behaviour["frames"]
        return FramePlan(tuple(range(0, 2 * n, 2)), tuple(i / 2 for i in range(n)), 2.0, 1.0)

    def windows(self, size: int):
        for start in range(0, self.behaviour["frames"], size):
            if self.behaviour.get("fail") == "decode" and start + size >= self.behaviour["frames"]:
                raise VideoError(f"{self.path}: frame {start} cannot be decoded")
            yield np.zeros((min(size, self.behaviour["frames"] - start), 2, 2, 3), np.uint8)


class FakeFrames:
    """Dotted name `fake_model:FakeFrames` of a work order."""

    def __init__(self, cell: Cell, run: RunConfig) -> None:
        self.kept: list[Path] = []

    def open(self, paths):
        for path in paths:
            if not path.exists():
                yield VideoError(f"{path} does not exist")
            else:
                yield FakeVideo(path, json.loads(path.read_text()))

    def keep(self, path, video, features):
        self.kept.append(path)


class FakeResponder:
    """Answers (C) to question number c mod 4; does what the video file says besides."""

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def encode(self, windows, n_frames, second_per_grid):
        seen = sum(len(window) for window in windows)
        assert seen == n_frames
        self.encoded.append(n_frames)
        return {"frames": seen}

    def reply(self, features, question: Question, cell: Cell) -> Reply:
        behaviour = json.loads(question.video.read_text())
        fail, cells = behaviour.get("fail"), behaviour.get("cells")
        once = question.video.with_suffix(".once")
        time.sleep(behaviour.get("ask_seconds", 0))
        if cells is None or cell.context in cells:
            if fail == "memory":
                import torch

                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nsecond line")
            if fail == "bug":
                raise KeyError("layer 3")
            if fail == "user":
                raise UserError("context=3 is below the text of the prompt; raise context.tokens")
            if fail == "die" or (fail == "die once" and not once.exists()):
                once.write_text("")
                os.kill(os.getpid(), signal.SIGKILL)
            if fail == "interrupt" and not once.exists():
                once.write_text("")
                raise KeyboardInterrupt
        number = int(re.search(r"\d+$", question.question_id)[0])
        return Reply(f"({'ABCD'[number % 4]})", 100, 80, [10, 20], [5, 5], 2, {"generate": 0.001}, 1000)


def load_fake(cell: Cell) -> FakeResponder:
    """Dotted name `fake_model:load_fake` of a work order."""
    if os.environ.get("FAKE_MODEL_BROKEN"):
        raise RuntimeError("no such device")
    return FakeResponder()


def make_cell(context: int | None = 100) -> Cell:
    return Cell(
        ModelConfig(name="fake", adapter="fake_model:none", path="nowhere", dtype="float32"),
        build_method("adaretake"),
        VideoConfig(max_frames=8, window=4),
        context,
        TaskConfig(name="task", lmms_task="adaretake_task", data="videomme", split="test", protocol="p"),
        "weights",
        {},
    )


def make_questions(videos: list[Path], per_video: int = 3) -> list[Question]:
    return [
        Question(f"{path.stem}-q{i}", path.stem, path, f"Which? {i}", OPTIONS, "B", {"type": "t"})
        for path in videos
        for i in range(per_video)
    ]


def make_order(
    folder: Path, videos: list[Path], contexts=(100, 200), per_video=3, workers=1, stamp="start", run=None, sharing=True
) -> WorkOrder:
    """An order over what is missing, its cells' folders opened, as the `run` verb makes it."""
    run = run or RunConfig(prefetch=0)
    questions = make_questions(videos, per_video)
    cells = [CellWork(make_cell(c), folder / "runs" / f"cell-{c}") for c in contexts]
    for each in cells:
        open_cell(each.folder, Manifest(each.folder.name, each.cell.digest, {}))
    answers = [read_answers(each.folder) for each in cells]
    group = build_group("group", cells, [questions] * len(cells), answers, retry=run.retry, sharing=sharing)
    order = WorkOrder((group,), run, stamp, folder / "logs" / stamp, workers)
    return replace(order, responder="fake_model:load_fake", frames="fake_model:FakeFrames")
