"""The yaml files under tasks/, evaluated by lmms-eval with a model that replays fixed answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.files import TASKS
from harness.benchmarks.questions import load_questions, score_choice
from harness.errors import UserError
from harness.settings.compose import CONF, compose_config

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


def test_every_task_setting_is_known_to_lmms_eval():
    """Two lines each: what the task is stands in conf/task and in the benchmark's folder."""
    found = {path.name: path.read_text() for path in TASKS.glob("*/*.yaml") if path.name != "facts.yaml"}
    assert found == {
        f"adaretake_{name}.yaml": f"task: adaretake_{name}\nclass: !function harness.lmms.task.LocalTask\n"
        for name in TASK_NAMES
    }
    for name in TASK_NAMES:
        assert (TASKS / settings_of(name).data / f"adaretake_{name}.yaml").exists()


@pytest.mark.parametrize("name", TASK_NAMES)
def test_a_task_is_its_setting(name, root, monkeypatch):
    monkeypatch.setenv("ADARETAKE_DATA", str(root))
    setting = settings_of(name)
    (built,) = manager().load_task_or_group([f"adaretake_{name}"]).values()
    config = built.dump_config()
    assert built.config.test_split == setting.split and setting.name == name
    assert config["generation_kwargs"]["max_new_tokens"] == setting.max_new_tokens
    assert config["generation_kwargs"]["do_sample"] is False
    asked = benchmark(setting.data)
    assert config["metadata"]["version"] == asked.version
    assert config["metadata"]["title"].startswith(asked.title)
    assert ("lmms-eval" in config["metadata"]["title"]) == name.endswith("_stock")
    row = built.dataset[setting.split][0]
    question = built.dataset[setting.split].questions[0]
    assert built.doc_to_text(row) == question.prompt and built.doc_to_visual(row) == [str(question.video)]
    if setting.split == "generation":
        assert built.process_results(row, ["A scene."]) == {}
        return
    (said,) = {item["letter"] for item in built.process_results(row, ["Because A"]).values()}
    assert said == asked.parser(setting.protocol)("Because A", {"A": "x", "B": "y"})


def manager():
    from lmms_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS), include_defaults=False)


@pytest.fixture(scope="module")
def evaluated(root, evaluate):
    """Each task's results under the stock command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADARETAKE_DATA", str(root))
        return evaluate([f"adaretake_{name}" for name in TASK_NAMES], task_manager=manager())["results"]


@pytest.mark.parametrize("name", TASK_NAMES)
def test_lmms_eval_and_metrics_agree_to_the_last_digit(name, root, evaluated):
    setting = settings_of(name)
    asked = benchmark(setting.data)
    parse = asked.parser(setting.protocol)
    items = [score_choice(pick(q.prompt).strip(), q, parse) for q in load_questions(setting, root)]
    ours = asked.metrics.scores([item for item in items if item["answer"] is not None])
    found = {key.split(",")[0]: value for key, value in evaluated[f"adaretake_{name}"].items() if "stderr" not in key}
    found.pop("alias")
    if setting.split != "generation":
        assert found.pop("unparsed") == 100 * sum(item["letter"] is None for item in items) / len(items)
    assert found == ours


@pytest.mark.parametrize("name", [name for name in TASK_NAMES if name != "mlvu_generation"])
def test_standard_errors_are_in_percent_and_by_video(name, root, evaluated):
    setting, found = settings_of(name), evaluated[f"adaretake_{name}"]
    parse = benchmark(setting.data).parser(setting.protocol)
    items = [score_choice(pick(q.prompt).strip(), q, parse) for q in load_questions(setting, root)]
    columns = {"unparsed": [100.0 * (item["letter"] is None) for item in items]}
    scored = [100 * item["score"] for item in items if item["answer"] is not None]
    of_questions = {"vnbench": "single_try", "videomme_v2": "accuracy"}.get(setting.data, "overall")
    columns |= {of_questions: scored}
    columns = {metric: column for metric, column in columns.items() if f"{metric},none" in found}
    assert len(columns) == (1 if "test" in name or name.startswith("mlvu") else 2)
    for metric, column in columns.items():
        assert found[f"{metric}_stderr_clt,none"] == pytest.approx(np.std(column, ddof=1) / len(column) ** 0.5)
        clustered = found[f"{metric}_stderr_clustered,none"]
        assert isinstance(clustered, float) and 0 <= clustered <= 100


def test_a_metric_that_is_no_mean_over_questions_has_no_error_of_questions(evaluated):
    assert evaluated["adaretake_vnbench"]["overall_stderr_clt,none"] == "N/A"
    assert isinstance(evaluated["adaretake_mlvu"]["m_avg_stderr_clustered,none"], float)


def test_build_task_evaluates_a_subset_of_another_root(root, task, evaluate):
    from harness.lmms.task import build_task

    setting = task("mlvu", split="dev", subset="mini", max_new_tokens=7)
    built = build_task(setting, root)
    assert built.config.generation_kwargs["max_new_tokens"] == 7
    assert built.dataset["dev"].task.subset == "mini"
    found = evaluate([built], task_manager=manager())
    assert found["n-samples"]["adaretake_mlvu"]["effective"] == len(load_questions(setting, root))


def test_missing_toy_names_the_command(task, tmp_path, monkeypatch):
    from harness.benchmarks import files as places

    monkeypatch.delenv("ADARETAKE_DATA", raising=False)
    monkeypatch.setattr(places, "TOY", tmp_path / "data" / "toy")
    with pytest.raises(UserError, match="python -m harness prepare profile=toy"):
        load_questions(task("videomme"), tmp_path / "data" / "toy")
    with pytest.raises(UserError, match=r"prepare profile=published task=videomme 'data.root=/else where'"):
        load_questions(task("videomme"), Path("/else where"))
