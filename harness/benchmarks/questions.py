"""The questions of a task, read from its annotation, without lmms-eval."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.benchmarks.root import TASKS
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.config import TaskConfig


@dataclass(frozen=True)
class Question:
    """One question as a model gets it.

    ``prompt`` is the text behind the video, ``options`` maps letters to texts, ``answer`` is the right letter or None
    (test splits), ``tags`` are the groups that the question counts in. ``video`` may not exist on disk; ``video_s`` is
    its length in seconds where the annotation has one. Several questions share a ``video``; ``video_id`` is what
    statistics cluster by.
    """

    question_id: str
    video_id: str
    video: Path
    prompt: str
    options: dict[str, str]
    answer: str | None
    tags: dict[str, str | list[str]]
    video_s: float | None = None


@cache
def functions(benchmark: str) -> ModuleType:
    """The module ``tasks/<benchmark>/functions.py``.

    Raises:
        UserError: there is no such benchmark.
    """
    path = TASKS / benchmark / "functions.py"
    if not path.exists():
        known = sorted(p.parent.name for p in TASKS.glob("*/functions.py"))
        raise UserError(f"task.data={benchmark} has no tasks/{benchmark}/functions.py; allowed: {', '.join(known)}")
    spec = importlib.util.spec_from_file_location(f"adaretake_tasks_{benchmark}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_rows(task: TaskConfig, root: Path) -> list[dict[str, Any]]:
    """The rows of the annotation that the task asks: its split, its protocol's omissions, its subset, in order.

    Raises:
        UserError: the split is not known; the annotation is missing, empty, or names two questions alike.
    """
    module = functions(task.data)
    if task.split not in module.SPLITS:
        raise UserError(f"task.split={task.split} is not known for {task.data}; allowed: {', '.join(module.SPLITS)}")
    rows = [row for row in module.load(Path(root), task.split) if module.evaluated(row, task.protocol)]
    if not rows:
        raise UserError(f"task={task.name}: the annotation of split {task.split} under {root} has no question")
    twice = [name for name, n in Counter(map(module.question_id, rows)).items() if n > 1]
    if twice:
        raise UserError(f"task={task.name}: {len(twice)} question ids occur more than once, the first is {twice[0]!r}")
    if task.subset is None:
        return rows
    from harness.benchmarks.subsets import select

    return select(rows, task, module)


def load_questions(task: TaskConfig, root: Path) -> list[Question]:
    """The questions of `task` below the data root `root`, its subset applied, in the annotation's order."""
    module = functions(task.data)
    kwargs = {"protocol": task.protocol, "root": str(root)}
    return [
        question_of(module, row, module.video_path(Path(root), row), module.doc_to_text(row, kwargs))
        for row in load_rows(task, root)
    ]


def question_of(module: ModuleType, row: dict[str, Any], video: Path, prompt: str) -> Question:
    """A row of an annotation as a question about `video`; `module` is its benchmark's (see `functions`)."""
    return Question(
        question_id=module.question_id(row),
        video_id=module.video_id(row),
        video=video,
        prompt=prompt,
        options=module.options(row),
        answer=module.doc_to_target(row),
        tags=module.tags(row),
        video_s=module.duration_s(row),
    )
