"""lmms-eval tasks over benchmarks on the local disk.

The files ``tasks/<benchmark>/adaretake_<task>.yaml`` name `LocalTask` as their ``class``. What such a task is stands in
``conf/task/<task>.yaml`` and in the benchmark's folder; its documents are exactly the rows of
`harness.benchmarks.questions.load_asked`. The data root is the environment's ``ADARETAKE_DATA``.
"""

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
from lmms_eval.api.task import ConfigurableTask
from lmms_eval.tasks import TaskManager
from loguru import logger

from harness.benchmarks.benchmark import Benchmark, Row, benchmark
from harness.benchmarks.files import TASKS, data_root
from harness.benchmarks.metrics import unparsed
from harness.benchmarks.questions import Question, Scored, load_asked, score_choice
from harness.errors import UserError
from harness.settings.compose import compose_config
from harness.settings.groups import TaskConfig, once_per_task

PREFIX = "adaretake_"
"""Of the names under which lmms-eval knows our tasks."""
GREEDY: dict[str, int] = {"do_sample": False, "temperature": 0, "num_beams": 1}
"""Settings of generation and what they must be: an answer is the likeliest continuation, token by token. `top_p` and
the like mean nothing without sampling."""


class Rows(list[Row]):
    """The rows of one split; ``task`` says what they are, ``questions`` are theirs, in the same order.

    A model finds them as ``self.task_dict[task_name][split]``. ``features`` is what lmms-eval reads of a dataset.
    """

    def __init__(self, task: TaskConfig, root: Path) -> None:
        asked = load_asked(task, root)
        super().__init__(row for row, _ in asked)
        self.task = task
        self.questions = [question for _, question in asked]
        self._by_row = {id(row): question for row, question in asked}
        self._by_name = {question.question_id: question for question in self.questions}

    def question(self, row: Row) -> Question:
        """The question of a row. lmms-eval hands the rows themselves back; a copy is known by what it says."""
        return self._by_row.get(id(row)) or self._by_name[benchmark(self.task.data).item(row).question_id]

    @property
    def features(self) -> dict[str, Any]:
        return dict.fromkeys(key for row in self for key in row)


class LocalTask(ConfigurableTask):
    """The lmms-eval task of a task setting, its subset applied; also for ``simple_evaluate(tasks=[...])``.

    Raises UserError where the data are not there, with the command that gets them.

    Args:
        config: the yaml; its ``task`` is the name of a task setting after `PREFIX`.
        model_name: as in lmms-eval.
        setting: what to ask, where it is not that of the name.
        root: the data root; the environment's where None.
        rows: those of the setting below the root, where they are read already.
    """

    def __init__(
        self,
        config: dict[str, Any],
        model_name: str | None = None,
        *,
        setting: TaskConfig | None = None,
        root: Path | None = None,
        rows: Rows | None = None,
    ) -> None:
        task = setting or compose_config([f"task={config['task'].removeprefix(PREFIX)}"]).task
        asked = benchmark(task.data)
        self._rows = Rows(task, (root or data_root()).absolute()) if rows is None else rows
        title = asked.task_title(task.split, task.protocol)
        settings = {
            "task": config["task"],
            "test_split": task.split,
            "output_type": "generate_until",
            "generation_kwargs": {"max_new_tokens": task.max_new_tokens, **GREEDY, "until": []},
            "metric_list": metric_list(asked, self._rows.questions),
            "cluster_key": "video_id",
            "score_key": "percent",
            "metadata": {"version": asked.version, "protocol": task.protocol, "title": title},
            "process_results": "the method of harness.lmms.task.LocalTask",
        }
        super().__init__(config=settings, model_name=model_name)

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        self.dataset = {self.config.test_split: self._rows}
        self.dataset_no_image = self.dataset

    def fewshot_context(self, doc: Any, num_fewshot: int, *arguments: Any, **options: Any) -> Any:
        """The prompt. Raises UserError where examples before it are asked for."""
        if num_fewshot:
            raise UserError(f"--num_fewshot {num_fewshot}: the benchmarks are asked without examples; leave it out")
        return super().fewshot_context(doc, num_fewshot, *arguments, **options)

    def doc_to_text(self, doc: Row) -> str:
        return self._rows.question(doc).prompt

    def doc_to_visual(self, doc: Row) -> list[str]:
        return [str(self._rows.question(doc).video)]

    def doc_to_target(self, doc: Row) -> str | None:
        return self._rows.question(doc).answer

    def process_results(self, doc: Row, results: list[str], full_docs: Any = None) -> dict[str, dict[str, Any]]:
        """The answer under every metric that it counts in."""
        question, asked = self._rows.question(doc), benchmark(self._rows.task.data)
        if not question.options:  # a generation task
            return {}
        parser = asked.parser(self._rows.task.protocol)
        return by_metric(asked, score_choice((results[0] or "").strip(), question, parser))


def by_metric(asked: Benchmark, item: Scored) -> dict[str, dict[str, Any]]:
    """A scored answer under every metric that it counts in.

    ``percent`` is what lmms-eval takes standard errors of, in the unit of the scores; it is absent where a metric is no
    mean over questions. A question whose right answer is not public counts only in the rate of unparsed answers.
    """
    counted: dict[str, dict[str, Any]] = {}
    for name in asked.metrics.names(item["tags"]) if item["answer"] is not None else []:
        of_questions = asked.metrics.whole.get(name, asked.metrics.within).unit is None
        counted[name] = {**item, "percent": 100 * item["score"]} if of_questions else {**item}
    return counted | {"unparsed": {**item, "percent": 100.0 * (item["letter"] is None)}}


def metric_list(asked: Benchmark, questions: list[Question]) -> list[dict[str, Any]]:
    """The ``metric_list``: the benchmark's metrics that the questions have, and the rate of unparsed answers."""
    scored = asked.metrics.present(question.tags for question in questions if question.answer is not None)
    listed = [{"metric": name, "aggregation": metric, "higher_is_better": True} for name, metric in scored.items()]
    chosen = any(question.options for question in questions)  # generation tasks have no letters
    return [*listed, *([{"metric": "unparsed", "aggregation": unparsed, "higher_is_better": False}] if chosen else [])]


def build_task(task: TaskConfig, root: Path | None = None, rows: Rows | None = None) -> LocalTask:
    """The lmms-eval task of `task`, ready for ``simple_evaluate(tasks=[...])``; arguments as of `LocalTask`."""
    return LocalTask({"task": PREFIX + task.name}, setting=task, root=root, rows=rows)


class Replay(lmms):
    """Answers every request with the stored text of its question (id -> text); `name` is the cell's, for messages."""

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
    """Has lmms-eval score cells, one after the other; each annotation is read once for all cells that ask it.

    lmms-eval collects garbage twice per cell. It does not look at what is in memory before the first cell, such as all
    stored answers, while inside.
    """

    def __init__(self) -> None:
        self._root = data_root().absolute()
        self._rows_of = once_per_task(self._read)
        self.version = importlib.metadata.version("lmms-eval")

    def __enter__(self) -> Self:
        gc.collect()
        gc.freeze()
        return self

    def __exit__(self, *exc_info: object) -> None:
        gc.unfreeze()

    def metrics(self, task: TaskConfig, texts: Mapping[str, str], name: str) -> dict[str, float]:
        """Every metric of stored answers, in percent, as lmms-eval computes it on the task that was asked.

        Raises UserError where the annotation is not there, or asks other questions than there are answers for.

        Args:
            texts: question id -> answer, of all its questions; a failed one is empty.
            name: of the cell, for messages.
        """
        logger.disable("lmms_eval")
        built = build_task(task, self._root, self._rows_of(task))
        options = {"bootstrap_iters": 0, "log_samples": False, "verbosity": "ERROR"}
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar per cell would bury the scores
            result = evaluator.simple_evaluate(
                model=Replay(texts, name), tasks=[built], task_manager=_task_manager(), **options
            )
        (scores,) = result["results"].values()
        return {
            name.partition(",")[0]: float(value)
            for name, value in scores.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and "_stderr" not in name
        }

    def _read(self, task: TaskConfig) -> Rows:
        rows = Rows(task, self._root)
        gc.freeze()  # rows stay, too
        return rows


@lru_cache
def _task_manager() -> TaskManager:
    """Our tasks alone, read once: lmms-eval's own 1600 yaml files take a minute to read, for every cell."""
    return TaskManager(include_path=str(TASKS), include_defaults=False)
