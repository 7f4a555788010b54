"""lmms-eval tasks over benchmarks on the local disk.

The yaml files in ``tasks/`` name `LocalTask` as their ``class``: lmms-eval then asks it, instead of the hub, for the
rows, and its documents are exactly those of `harness.benchmarks.questions.load_rows`. The data root is the
environment's ``ADARETAKE_DATA``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmms_eval.api.task import ConfigurableTask
from lmms_eval.tasks import TaskManager

from harness.benchmarks.metrics import aggregations, unparsed
from harness.benchmarks.questions import functions, load_rows
from harness.benchmarks.root import TASKS, data_root
from harness.config import TaskConfig


class Rows(list):
    """The rows of one split; ``task`` says what they are, ``features`` is what lmms-eval reads of a dataset.

    A model finds them as ``self.task_dict[task_name][split]``.
    """

    def __init__(self, rows: list[dict[str, Any]], task: TaskConfig) -> None:
        super().__init__(rows)
        self.task = task

    @property
    def features(self) -> dict[str, Any]:
        return dict.fromkeys(key for row in self for key in row)


class LocalTask(ConfigurableTask):
    """A task whose ``dataset_kwargs`` say what to load.

    Args:
        config: the yaml; ``dataset_kwargs`` has ``data`` (folder under the data root and under ``tasks/``), ``split``,
            and optionally ``subset`` and ``root``. ``lmms_eval_specific_kwargs.default.protocol`` is the protocol.
        model_name: as in lmms-eval.

    Raises:
        UserError: the data are not there, with the command that gets them.
    """

    def __init__(self, config: dict[str, Any], model_name: str | None = None) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        dataset, prompt = config["dataset_kwargs"], config["lmms_eval_specific_kwargs"]["default"]
        task = TaskConfig(
            name=config["task"],
            lmms_task=config["task"],
            data=dataset["data"],
            split=dataset["split"],
            protocol=prompt["protocol"],
            subset=dataset.get("subset"),
            max_new_tokens=config["generation_kwargs"]["max_new_tokens"],
        )
        self._rows = Rows(load_rows(task, Path(dataset.get("root") or data_root())), task)
        super().__init__(config={"metric_list": metric_list(task.data, self._rows), **config}, model_name=model_name)

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        self.dataset = {self.config.test_split: self._rows}
        self.dataset_no_image = self.dataset


def metric_list(benchmark: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ``metric_list`` of a yaml: the benchmark's metrics that these rows have, and the rate of unparsed answers."""
    module = functions(benchmark)
    scored = aggregations(benchmark, [module.tags(row) for row in rows if module.doc_to_target(row) is not None])
    listed = [{"metric": name, "aggregation": scored[name], "higher_is_better": True} for name in scored]
    chosen = any(module.options(row) for row in rows)  # generation tasks have no letters
    return [*listed, *([{"metric": "unparsed", "aggregation": unparsed, "higher_is_better": False}] if chosen else [])]


def build_task(task: TaskConfig, root: Path | None = None) -> LocalTask:
    """The lmms-eval task of a task setting, its subset applied, ready for ``simple_evaluate(tasks=[...])``.

    Args:
        task: what to ask; the yaml of ``lmms_task`` gives the rest.
        root: the data root; the environment's where None.
    """
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    config = manager._get_config(task.lmms_task)
    where = {"root": str(root)} if root else {}
    config["dataset_kwargs"] = {"data": task.data, "split": task.split, "subset": task.subset, **where}
    config["lmms_eval_specific_kwargs"] = {"default": {"protocol": task.protocol, **where}}
    config["generation_kwargs"] = {**config["generation_kwargs"], "max_new_tokens": task.max_new_tokens}
    return LocalTask(config)
