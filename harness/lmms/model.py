"""The model class that lmms-eval runs: the same loop, cells and durable answers as `python -m harness run`.

    lmms-eval --model adaretake_qwen2_5_vl --model_args pretrained=...,semantics=paper,context=16000 \
        --include_path tasks --tasks adaretake_videomme

Requests are grouped by video; what a cell's answers.jsonl already holds is not asked again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from harness.benchmarks.questions import Question, functions, question_of
from harness.config import TaskConfig, compose_config
from harness.errors import UserError
from harness.lmms.arguments import choose_cell, compose_arguments, known_tasks
from harness.plan.cell import Cell
from harness.plan.feature_size import check_feature_memory, read_header, video_tokens
from harness.plan.plan import cell_folder
from harness.run.answer import Streak
from harness.run.frames import VideoFrames
from harness.run.progress import Progress, summary, take_snapshot
from harness.run.respond import load_responder
from harness.run.run import make_manifest, new_logs
from harness.run.status import Board, GroupStatus
from harness.run.work import CellWork, GroupWork, WorkOrder, build_group, record_questions
from harness.run.worker import answer_group, log_to, status_path, worker_log
from harness.store import hold, open_cell, read_answers, read_questions

log = logging.getLogger(__name__)

STOCK_DATA = "lmms_eval"
"""`task.data` of tasks that are lmms-eval's own."""


class HarnessModel(lmms):
    """Any adapter of the harness under lmms-eval.

    Args:
        pretrained: folder or hub id of the weights.
        options: see `harness.lmms.arguments.ARGUMENTS`.

    Raises:
        UserError: an unknown argument or value.
    """

    is_simple = True
    option: ClassVar[str]  # of the configuration group `model`, for what the arguments leave open

    def __init__(self, pretrained: str | None = None, **arguments: Any) -> None:
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                "this model runs in one process under lmms-eval, but WORLD_SIZE is "
                f"{os.environ['WORLD_SIZE']}. For several accelerators use: python -m harness run engine=local"
            )
        if pretrained is not None:
            arguments["pretrained"] = pretrained
        self.config = compose_arguments(arguments, self.option)
        self._loaded: tuple[Any, Any] | None = None

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer requests, each stored before the next is asked.

        Returns:
            The texts in the order of the requests; a failed question gives the empty text, its reason is in the store.
        """
        by_task: dict[tuple[str, str], list[Instance]] = {}
        for request in requests:
            by_task.setdefault((request.args[4], request.args[5]), []).append(request)
        texts: dict[int, str] = {}
        with contextlib.ExitStack() as locks:
            siblings: dict[str, list[tuple[CellWork, list[Question]]]] = {}
            ids: dict[tuple[str, str], tuple[CellWork, list[str]]] = {}
            for key, own in by_task.items():
                each, questions = self._open(*key, own, locks)
                siblings.setdefault(each.cell.video_key, []).append((each, questions))
                ids[key] = each, [question.question_id for question in questions]
            for members in siblings.values():
                self._answer(members)
            for key, own in by_task.items():
                each, names = ids[key]
                answers = read_answers(each.folder)
                for request, name in zip(own, names, strict=True):
                    texts[id(request)] = _text(answers[name])
        return [texts[id(request)] for request in requests]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not supported.

        Raises:
            UserError: always.
        """
        raise UserError(f"{_task_names(requests)}: this model answers single questions, not several rounds")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not supported.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"{_task_names(requests)}: this model generates answers and gives no likelihoods; use a task whose "
            "output_type is generate_until, such as those in tasks/"
        )

    def _open(
        self, name: str, split: str, requests: Sequence[Instance], locks: contextlib.ExitStack
    ) -> tuple[CellWork, list[Question]]:
        """Open a task's cell; return it with one question per request."""
        rows = self.task_dict[name][split]
        own = getattr(rows, "task", None)
        cell = self._our_cell(own) if own is not None else self._stock_cell(name, split, requests)
        each = CellWork(cell, cell_folder(self.config, cell).absolute())
        questions = [_question(own, rows, request) for request in requests]
        locks.enter_context(hold(each.folder / ".lock"))
        held = [] if not (each.folder / "questions.jsonl").is_file() else read_questions(each.folder)
        open_cell(each.folder, make_manifest(cell, self.config))
        unique = list({question.question_id: question for question in questions}.values())  # asked again: repeats
        record_questions(each, unique, others=held)
        return each, questions

    def _our_cell(self, own: TaskConfig) -> Cell:
        option = known_tasks().get(own.lmms_task)
        if option is None:
            return choose_cell(self.config, own)
        ours = compose_config([f"task={option}"]).task
        changes = {k: getattr(own, k) for k in ("split", "protocol", "subset", "max_new_tokens")}
        return choose_cell(self.config, dataclasses.replace(ours, **changes))

    def _stock_cell(self, name: str, split: str, requests: Sequence[Instance]) -> Cell:
        settings = requests[0].args[1] or {}
        longest = int(settings.get("max_new_tokens") or TaskConfig.max_new_tokens)
        if settings.get("do_sample") or (settings.get("num_beams") or 1) > 1:
            log.warning("%s asks for sampling or beams; this model decodes greedily", name)
        task = TaskConfig(
            name=name, lmms_task=name, data=STOCK_DATA, split=split, protocol=STOCK_DATA, max_new_tokens=longest
        )
        cell = choose_cell(self.config, dataclasses.replace(task, data="videomme"))
        versions = {**cell.versions, "prompt": f"lmms-eval {importlib.metadata.version('lmms-eval')}"}
        return dataclasses.replace(cell, task=task, versions=versions)

    def _answer(self, members: Sequence[tuple[CellWork, list[Question]]]) -> None:
        cells = [each for each, _ in members]
        unique = [list({q.question_id: q for q in questions}.values()) for _, questions in members]
        answers = [read_answers(each.folder) for each in cells]
        run = self.config.run
        group = build_group(cells[0].cell.task.name, cells, unique, answers, retry=run.retry, sharing=run.sharing)
        log.info("%s: %d answered, %d to answer, %d videos", group.name, group.answered, group.asks, len(group.videos))
        if group.videos:
            self._run(group)

    def _run(self, group: GroupWork) -> None:
        cell, run = group.cells[0].cell, self.config.run
        check_feature_memory(cell, {v.path: video_tokens(cell, read_header(v.path)) for v in group.videos}, run)
        logs = new_logs(self.config)
        order = WorkOrder((group,), run, logs.name, logs)
        handler = log_to(worker_log(order.logs, 0))
        board = Board("0", status_path(order.logs, 0, 0))
        board.plan([GroupStatus(group.name, len(group.videos), answers=group.asks)])
        try:
            with Progress(order, sys.stderr):
                responder = self._responder(cell)
                streak = Streak(run.max_consecutive_failures)
                answer_group(group, responder, VideoFrames(cell, run), board, streak, order.start)
            board.state("done")
        finally:
            log.info(summary(take_snapshot(order)))
            logging.getLogger("harness").removeHandler(handler)
            handler.close()

    def _responder(self, cell: Cell) -> Any:
        if self._loaded is None or self._loaded[0] != (cell.weights, cell.model):
            self._loaded = None
            self._loaded = (cell.weights, cell.model), load_responder(cell)
        return self._loaded[1]


class Qwen25VL(HarnessModel):
    """Model id `adaretake_qwen2_5_vl`."""

    option = "qwen2_5_vl_7b"


class Qwen2VL(HarnessModel):
    """Model id `adaretake_qwen2_vl`."""

    option = "qwen2_vl_7b"


class LlavaOneVision(HarnessModel):
    """Model id `adaretake_llava_onevision`."""

    option = "llava_onevision_7b"


def _question(task: TaskConfig | None, rows: Any, request: Instance) -> Question:
    """A request as a question of the harness."""
    prompt, _, visual, doc_id, name, _ = request.args[:6]
    row = rows[doc_id]
    visuals = visual(row)
    if len(visuals) != 1 or not isinstance(visuals[0], str):
        raise UserError(
            f"{name}: document {doc_id} has {len(visuals)} visuals; this model takes exactly one video file a question"
        )
    path = Path(visuals[0]).absolute()
    if task is None:
        return Question(f"{name}:{doc_id}", path.stem, path, prompt, {}, None, {})
    return question_of(functions(task.data), row, path, prompt)


def _text(answer: Any) -> str:
    if not answer.ok:
        log.warning("question %s failed: %s", answer.question_id, answer.error["message"])
    return answer.text


def _task_names(requests: Sequence[Instance]) -> str:
    return ", ".join(sorted({str(request.task_name) for request in requests})) or "no task"
