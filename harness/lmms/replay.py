"""lmms-eval scores stored answers: a model that says again what the cell holds. No weights, no accelerator."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from lmms_eval import evaluator
from lmms_eval.api.model import lmms
from lmms_eval.tasks import TaskManager
from loguru import logger

from harness.benchmarks.files import TASKS, data_root
from harness.errors import UserError
from harness.lmms.task import Rows, build_task
from harness.settings.groups import TaskConfig


class Replay(lmms):
    """Answers every request with the stored text of its question; a failed question has the empty text.

    Args:
        texts: question id -> text.
        name: of the cell, for messages.
    """

    is_simple = True

    def __init__(self, texts: Mapping[str, str], name: str) -> None:
        super().__init__()
        self._texts, self._name = texts, name

    def generate_until(self, requests: list[Any]) -> list[str]:
        """The stored texts, in the order of the requests."""
        answers, unknown = [], []
        for request in requests:
            _, _, _, doc_id, task, split = request.args
            question = self.task_dict[task][split].questions[doc_id].question_id
            unknown += [question] if question not in self._texts else []
            answers.append(self._texts.get(question, ""))
        if unknown or len(requests) != len(self._texts):
            raise UserError(
                f"cell {self._name} holds {len(self._texts)} questions, the annotation asks {len(requests)}, of which "
                f"{len(unknown)} are unknown to the cell{f' (first: {unknown[0]})' if unknown else ''}: the annotation "
                "under data.root changed after the run. Point data.root at the data of the run, or run the cell again."
            )
        return answers

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Not stored."""
        raise NotImplementedError("stored answers have no likelihoods")

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Not stored."""
        raise NotImplementedError("stored answers are of one round")


class Scorer:
    """Has lmms-eval score cells, one after the other.

    Each annotation is read once for all cells that ask it. lmms-eval looks for garbage twice per cell; what is in
    memory before the first one, such as all stored answers, is not looked through for that while inside.

    Args:
        root: the data root; the environment's when None. Only annotations are read.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = (root or data_root()).absolute()
        self._rows: list[Rows] = []
        self.version = importlib.metadata.version("lmms-eval")

    def __enter__(self) -> Self:
        gc.collect()
        gc.freeze()
        return self

    def __exit__(self, *exc_info: object) -> None:
        gc.unfreeze()

    def metrics(self, task: TaskConfig, texts: Mapping[str, str], name: str) -> dict[str, float]:
        """Every metric of stored answers, in percent, as lmms-eval computes it on their own task.

        Args:
            task: what was asked.
            texts: question id -> answer, of all its questions; a failed one is empty.
            name: of the cell, for messages.

        Raises:
            UserError: the annotation is not there, or asks other questions than there are answers for.
        """
        logger.disable("lmms_eval")
        built = build_task(task, self._root, self._rows_of(task))
        model = Replay(texts, name)
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar per cell would bury the scores
            result = evaluator.simple_evaluate(
                model=model,
                tasks=[built],
                task_manager=_task_manager(),
                bootstrap_iters=0,
                log_samples=False,
                verbosity="ERROR",
            )
        (scores,) = result["results"].values()
        return {
            name.partition(",")[0]: float(value)
            for name, value in scores.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and "_stderr" not in name
        }

    def _rows_of(self, task: TaskConfig) -> Rows:
        found = next((rows for rows in self._rows if rows.task == task), None)
        if found is None:
            found = Rows(task, self._root)
            self._rows.append(found)
            gc.freeze()  # rows stay, too
        return found


@lru_cache
def _task_manager() -> TaskManager:
    """Our tasks alone, read once: lmms-eval's own 1600 yaml files take a minute to read, for every cell."""
    return TaskManager(include_path=str(TASKS), include_defaults=False)
