"""The model class that lmms-eval runs: the same loop, cells and durable answers as `python -m harness run`.

    lmms-eval --model adaretake_qwen2_5_vl --model_args pretrained=...,semantics=paper,context=16000 \
        --include_path tasks --tasks adaretake_videomme

Requests are grouped by video; what a cell's answers.jsonl already holds is not asked again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.metadata
import logging
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from harness.benchmarks.questions import Question
from harness.errors import UserError
from harness.lmms.task import GREEDY
from harness.plan.plan import cell_folder, check_feature_memory, check_videos, read_header, video_tokens
from harness.run.run import Execution, carry_out
from harness.run.work import find_work, open_folder
from harness.settings.cell import Cell
from harness.settings.compose import Recomposed, compose_config, option_at, options
from harness.settings.groups import Config, TaskConfig
from harness.settings.matrix import build_cells
from harness.settings.words import AXES
from harness.store import Answer, FrameRecords, read_answers

ALIASES = {"pretrained": "model.path", "device": "model.device", "max_frames": "video.max_frames"}
"""lmms-eval's names of settings; every other argument is an axis or a setting by its own name."""

GROUPS = ("profile", "model", "method", "video", "context", "matrix", "engine", "run", "results")
"""Settings that this command has a use for. What is asked is said to lmms-eval itself."""

IGNORED = {"batch_size", "max_batch_size"}
"""Passed by lmms-eval to every model; answers are given one at a time."""

OPEN_AXES = ("model", "task", "method", "variant")
"""Axes of the matrix that would make several cells of one command."""


def compose_arguments(arguments: Mapping[str, Any], model: str) -> Config:
    """The configuration that model arguments ask for, before a task is chosen.

    Raises UserError for an unknown argument, with the allowed ones, and for a value that the configuration refuses.

    Args:
        arguments: as lmms-eval parsed them from `--model_args`.
        model: the group option of the model id, for what the arguments leave open.
    """
    given = {name: value for name, value in arguments.items() if name not in IGNORED}
    if given.get("device") is None:  # lmms-eval passes it on whether it is given or not
        given.pop("device", None)
    settings = {_setting(name, value): value for name, value in given.items()}
    model = str(settings.get("model") or option_at(str(given.get("pretrained"))) or model)
    defaults = {"profile": "toy" if model == "toy" else "published", "model": model}
    words = {key: _word(key, value) for key, value in {**defaults, **settings}.items()}
    axes = {"matrix.rows": "[]", **{f"matrix.{axis}": "null" for axis in OPEN_AXES}}
    return compose_config([f"{key}={word}" for key, word in {**axes, **words}.items()])


def choose_cell(words: Sequence[str], task: TaskConfig) -> Cell:
    """The one cell of a task under the words of the arguments; UserError where they leave several cells open."""
    choice = {"task": task.name} if task.name in options("task") else {}  # which may choose more, such as the frames
    config = Recomposed(words).under(**choice)
    cells = build_cells(dataclasses.replace(config, task=task))
    if len(cells) > 1:
        raise UserError(
            f"the model arguments leave {len(cells)} cells open for {task.name}: {', '.join(c.id for c in cells)}; "
            "name one value each of semantics, max_frames, fps and context"
        )
    return cells[0]


def _setting(name: str, value: Any) -> str:
    known = [*ALIASES, *(axis for axis in AXES if axis not in ("task", "subset"))]
    if name in known or name.partition(".")[0] in GROUPS:  # the part after the dot is checked with the configuration
        return ALIASES.get(name, name)
    close = difflib.get_close_matches(name, [*known, *GROUPS], n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    raise UserError(
        f"model argument {name}={value} is not known{meant}; allowed: {', '.join(known)}, and settings of "
        f"{', '.join(GROUPS)} by their names, such as video.backend=pyav (all: python -m harness plan --config). What "
        "is asked is said by --tasks, how long answers may be by --gen_kwargs max_new_tokens=N, where the data are by "
        "the environment's ADARETAKE_DATA"
    )


def _word(key: str, value: Any) -> str:
    """A value as the command line writes it; `none` is a method, and elsewhere nothing."""
    if value is None or (key != "method" and str(value).lower() == "none"):
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


log = logging.getLogger(__name__)
STOCK_DATA = "lmms_eval"
"""`task.data` of tasks that are lmms-eval's own."""


class HarnessModel(lmms):
    """Any adapter of the harness under lmms-eval; arguments and errors as of `compose_arguments`.

    `pretrained` is the folder or hub id of the weights.
    """

    is_simple = True
    option: ClassVar[str]  # of the configuration group `model`, for what the arguments leave open

    def __init__(self, pretrained: str | None = None, **arguments: Any) -> None:
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                "this model starts its own workers, but WORLD_SIZE is "
                f"{os.environ['WORLD_SIZE']}. For several accelerators start lmms-eval once, with "
                "--model_args engine.workers=N, or use: python -m harness run engine.workers=N"
            )
        given = {**arguments, "pretrained": pretrained} if pretrained is not None else arguments
        self.config = compose_arguments(given, self.option)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer requests, each stored before the next is asked.

        The texts come in the order of the requests. A failed question gives the empty text; the store has its reason.
        """
        by_task = defaultdict(list)
        for request in requests:
            by_task[request.args[4], request.args[5]].append(request)
        cells = {key: self._cell(*key, own) for key, own in by_task.items()}
        asked = {key: [self._question(*key, request) for request in own] for key, own in by_task.items()}
        execution = Execution.of(self.config)
        with contextlib.ExitStack() as locks:
            opened, work = {}, []
            for key, cell in cells.items():
                unique = list({q.question_id: q for q in asked[key]}.values())  # asked again: repeats
                folder = cell_folder(self.config.results, cell).absolute()
                opened[key] = open_folder(cell, folder, unique, execution.runtime, locks, keep_others=True)
                answers = read_answers(folder)
                FrameRecords(self.config.results).check(answers.values())
                check_videos([(folder, unique, answers)])
            siblings = defaultdict(list)  # tasks whose cells see the same features
            for key, cell in cells.items():
                siblings[cell.video_key].append(key)
            for keys in siblings.values():
                title = "+".join(name for name, _ in keys)
                work.append(find_work(title, [opened[key] for key in keys], self.config.run))
                first, paths = work[-1].cells[0], [video.path for video in work[-1].videos]
                tokens_of = {path: video_tokens(first, read_header(path)) for path in paths}
                check_feature_memory(first, tokens_of, self.config.run)
            if carry_out(execution, work, sys.stderr):
                raise KeyboardInterrupt
        texts: dict[int, str] = {}
        for key, own in by_task.items():
            held = read_answers(opened[key].folder)
            for request, question in zip(own, asked[key], strict=True):
                texts[id(request)] = _text(held[question.question_id], request.args[1] or {})
        return [texts[id(request)] for request in requests]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not supported; raises UserError."""
        raise UserError(f"{_task_names(requests)}: this model answers single questions, not several rounds")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not supported; raises UserError."""
        raise UserError(
            f"{_task_names(requests)}: this model generates answers and gives no likelihoods; use a task whose "
            "output_type is generate_until, such as those in tasks/"
        )

    def _cell(self, name: str, split: str, requests: Sequence[Instance]) -> Cell:
        """The cell of a task; one of lmms-eval's own has the prompts of the installed lmms-eval."""
        settings = requests[0].args[1] or {}
        check_greedy(name, settings)
        longest = int(settings.get("max_new_tokens") or TaskConfig.max_new_tokens)
        own: TaskConfig | None = getattr(self.task_dict[name][split], "task", None)
        if own is not None:
            words = settings.get("until") or []
            if any(word.strip("\n") for word in ([words] if isinstance(words, str) else words)):
                raise UserError(
                    f"{name}: until={words} would cut answers after they are scored by our rule; leave it out"
                )
            return choose_cell(self.config.words, dataclasses.replace(own, max_new_tokens=longest))
        task = TaskConfig(name, STOCK_DATA, split, STOCK_DATA, max_new_tokens=longest)
        cell = choose_cell(self.config.words, dataclasses.replace(task, data="videomme"))
        versions = {**cell.versions, "prompt": f"lmms-eval {importlib.metadata.version('lmms-eval')}"}
        return dataclasses.replace(cell, task=task, versions=versions)

    def _question(self, name: str, split: str, request: Instance) -> Question:
        """A request as a question of the harness."""
        prompt, _, visual, doc_id = request.args[:4]
        rows = self.task_dict[name][split]
        ours: list[Question] | None = getattr(rows, "questions", None)
        if ours is not None:
            return ours[int(doc_id)]
        visuals = visual(rows[doc_id])
        if len(visuals) != 1 or not isinstance(visuals[0], str):
            raise UserError(
                f"{name}: document {doc_id} has {len(visuals)} visuals; this model takes exactly one video file a "
                "question"
            )
        path = Path(visuals[0]).absolute()
        return Question(f"{name}:{doc_id}", path.stem, path, prompt, {}, None, {})


class Qwen25VL(HarnessModel):
    """Model id `adaretake_qwen2_5_vl`."""

    option = "qwen2_5_vl_7b"


class Qwen2VL(HarnessModel):
    """Model id `adaretake_qwen2_vl`."""

    option = "qwen2_vl_7b"


class LlavaOneVision(HarnessModel):
    """Model id `adaretake_llava_onevision`."""

    option = "llava_onevision_7b"


def check_greedy(task: str, settings: Mapping[str, Any]) -> None:
    """Raises UserError where settings of generation (the task's yaml, `--gen_kwargs`) ask for what is not done here."""
    longest = settings.get("max_new_tokens")
    if longest is not None and not (isinstance(longest, int) and not isinstance(longest, bool) and longest > 0):
        raise UserError(f"{task}: max_new_tokens={longest} is no length of an answer; give a whole number from 1 on")
    wrong = [f"{key}={value}" for key, only in GREEDY.items() if (value := settings.get(key)) not in (None, only)]
    if wrong:
        greedy = ",".join(f"{key}={str(only).lower()}" for key, only in GREEDY.items())
        raise UserError(
            f"{task} asks for {', '.join(wrong)}, which this model does not apply: it decodes greedily. Leave it out, "
            f"or where the task's own yaml says so: --gen_kwargs {greedy}"
        )


def _text(answer: Answer, settings: Mapping[str, Any]) -> str:
    """The text for lmms-eval: cut at the task's stop words, as its own Qwen models do, which spare blank lines."""
    if not answer.ok:
        log.warning("question %s failed: %s", answer.question_id, answer.reason)
    words = settings.get("until") or []
    text = answer.text
    for word in [words] if isinstance(words, str) else words:
        text = text.split(word)[0] if word and word.strip("\n") else text
    return text


def _task_names(requests: Sequence[Instance]) -> str:
    return ", ".join(sorted({str(request.task_name) for request in requests})) or "no task"
