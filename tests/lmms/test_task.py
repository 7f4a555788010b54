"""The yaml files under tasks/, evaluated by lmms-eval with a model that replays fixed answers."""

from __future__ import annotations

import pytest
import yaml

from harness.benchmarks.metrics import metrics
from harness.benchmarks.parse import PARSERS, parser_name
from harness.benchmarks.questions import functions, load_questions
from harness.benchmarks.root import TASKS
from harness.benchmarks.scoring import score_choice
from harness.config import CONF, compose_config
from harness.errors import UserError

TASK_NAMES = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))


@pytest.fixture(scope="module")
def evaluate():
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import simple_evaluate

    class Replay(lmms):
        """Answers every question with the letter that its prompt's length picks."""

        is_simple = True

        def generate_until(self, requests):
            return [pick(request.args[0]) for request in requests]

        def loglikelihood(self, requests):
            raise NotImplementedError

        def generate_until_multi_round(self, requests):
            raise NotImplementedError

    def run(tasks, **settings):
        return simple_evaluate(model=Replay(), tasks=tasks, batch_size=1, bootstrap_iters=0, **settings)

    return run


def pick(prompt: str) -> str:
    return ["A", "(B)", "C. really", "I cannot say", "Answer: D"][sum(map(ord, prompt)) % 5]


def settings_of(name):
    return compose_config([f"task={name}"]).task


@pytest.mark.parametrize("name", TASK_NAMES)
def test_the_yaml_of_lmms_eval_agrees_with_the_task_setting(name, root, monkeypatch):
    from lmms_eval.tasks import TaskManager

    setting = settings_of(name)
    assert setting.name == name and setting.lmms_task == f"adaretake_{name}"
    config = TaskManager(include_path=str(TASKS), include_defaults=False)._get_config(setting.lmms_task)
    assert config["dataset_kwargs"] == {"data": setting.data, "split": setting.split}
    assert config["test_split"] == setting.split
    assert config["lmms_eval_specific_kwargs"]["default"]["protocol"] == setting.protocol
    assert config["generation_kwargs"]["max_new_tokens"] == setting.max_new_tokens
    assert config["generation_kwargs"]["do_sample"] is False
    row = functions(setting.data).load(root, setting.split)[0]
    if setting.split == "generation":
        assert config["process_results"](row, ["A scene."]) == {}
        return
    (said,) = {item["letter"] for item in config["process_results"](row, ["Because A"]).values()}
    assert said == PARSERS[parser_name(setting.data, setting.protocol)]("Because A", {"A": "x", "B": "y"})
    assert setting.protocol in functions(setting.data).PROTOCOLS


def test_every_lmms_eval_task_has_a_setting():
    found = [yaml.load(p.read_text(), Loader=yaml.BaseLoader) for p in TASKS.glob("*/adaretake_*.yaml")]
    assert sorted(config["task"] for config in found) == [f"adaretake_{name}" for name in TASK_NAMES]


def test_lmms_eval_and_metrics_agree_to_the_last_digit(root, evaluate, monkeypatch):
    from lmms_eval.tasks import TaskManager

    monkeypatch.setenv("ADARETAKE_DATA", str(root))
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    results = evaluate([f"adaretake_{name}" for name in TASK_NAMES], task_manager=manager)["results"]
    for name in TASK_NAMES:
        setting = settings_of(name)
        questions = load_questions(setting, root)
        items = [
            score_choice(
                pick(q.prompt).strip(),
                question_id=q.question_id,
                video_id=q.video_id,
                options=q.options,
                answer=q.answer,
                tags=q.tags,
                parser=parser_name(setting.data, setting.protocol),
            )
            for q in questions
        ]
        ours = metrics(setting.data, [item for item in items if item["answer"] is not None])
        found = {key.split(",")[0]: value for key, value in results[f"adaretake_{name}"].items() if "stderr" not in key}
        found.pop("alias")
        if setting.split != "generation":
            assert found.pop("unparsed") == 100 * sum(item["letter"] is None for item in items) / len(items)
        assert found == ours, name
    clustered = results["adaretake_videomme"]["overall_stderr_clustered,none"]
    assert isinstance(clustered, float)


def test_build_task_evaluates_a_subset_of_another_root(root, task, evaluate):
    from lmms_eval.tasks import TaskManager

    from harness.lmms.task import build_task

    setting = task("mlvu", split="dev", subset="mini", max_new_tokens=7)
    setting.lmms_task = "adaretake_mlvu"
    built = build_task(setting, root)
    assert built.config.generation_kwargs["max_new_tokens"] == 7
    assert built.dataset["dev"].task.subset == "mini"
    found = evaluate([built], task_manager=TaskManager(include_path=str(TASKS), include_defaults=False))
    assert found["n-samples"]["adaretake_mlvu"]["effective"] == len(load_questions(setting, root))


def test_missing_toy_names_the_command(task, tmp_path, monkeypatch):
    from harness.benchmarks import root as places

    monkeypatch.delenv("ADARETAKE_DATA", raising=False)
    monkeypatch.setattr(places, "REPO", tmp_path)
    with pytest.raises(UserError, match="python -m harness prepare profile=toy"):
        load_questions(task("videomme"), tmp_path / "data" / "toy")
    with pytest.raises(UserError, match=r"prepare profile=published task=videomme data.root=/elsewhere"):
        monkeypatch.setenv("ADARETAKE_DATA", "/elsewhere")
        load_questions(task("videomme"), tmp_path)
