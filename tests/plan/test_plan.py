"""The plan: counts from annotations and stored answers, all problems at once."""

import json
import shutil

import pytest
from rich.console import Console

from harness.config import REPO, compose_config
from harness.errors import UserError
from harness.plan import plan as planning
from harness.store import Answer, AnswerLog


@pytest.fixture
def overrides(tmp_path):
    (tmp_path / "data" / "lvbench").mkdir(parents=True)
    question = "What?\n(A) a\n(B) b\n(C) c\n(D) d"
    with (tmp_path / "data" / "lvbench" / "video_info.meta.jsonl").open("w") as file:
        for v in range(2):
            qa = [
                {"uid": f"{v}{k}", "question": question, "answer": "A", "question_type": ["reasoning"]}
                for k in range(3)
            ]
            info = {"duration_minutes": 30, "fps": 25, "resolution": {"width": 1280, "height": 720}}
            file.write(json.dumps({"key": f"v{v}", "type": "sport", "video_info": info, "qa": qa}) + "\n")
    words = [
        "matrix.task=[lvbench]",
        "profile=published",
        "model.path=harness/toy/checkpoint",
        f"data.root={tmp_path / 'data'}",
    ]
    return [*words, f"results={tmp_path / 'results'}", "matrix=ablation", "model.dtype=float32"]


def test_counts_follow_the_stored_answers(overrides):
    config = compose_config(overrides)
    plan = planning.make_plan(config)
    assert (len(plan.groups), len(plan.groups[0].cells), plan.to_answer) == (1, 4, 24)
    group = plan.groups[0]
    assert (group.videos, group.videos_to_decode, group.hours_to_decode) == (2, 2, 1.0)
    assert group.tokens == 2 * 512 * 144  # 1024 frames of 16:9 at long side 448 (benchmarks: 144 tokens per grid)

    folder = planning.cell_folder(config, group.cells[0].cell)
    with AnswerLog(folder) as log:
        log.append(Answer("00", "v0", "ok", text="A"))
        log.append(Answer("01", "v0", "failed", error={"type": "VideoError", "message": "damaged"}))
    first = planning.make_plan(config).groups[0].cells[0]
    assert (first.questions, first.answered, first.failed, first.to_answer) == (6, 1, 1, 4)
    retry = planning.make_plan(compose_config([*overrides, "run.retry=failed"]))
    assert retry.groups[0].cells[0].to_answer == 5


def test_all_problems_come_at_once(overrides, tmp_path, monkeypatch):
    monkeypatch.setenv("ADARETAKE_DATA", str(tmp_path / "data"))
    words = [w for w in overrides if not w.startswith(("model.path", "matrix.task"))]
    plan = planning.make_plan(compose_config([*words, "model.path=no/where"]))
    with pytest.raises(UserError) as error:
        planning.report_problems(plan)
    text = str(error.value)
    assert "hf download no/where" in text
    for task in ("videomme", "mlvu", "longvideobench"):
        assert f"python -m harness prepare profile=published task={task}" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.quirks.nope=true"], "unknown quirk nope .* allowed are"),
        (["model.adapter=harness.models.nowhere.Nothing"], "model.adapter=.* cannot be imported"),
        (["model=qwen2_vl_7b"], "release_2026 does not exist for qwen2_vl"),
    ],
)
def test_a_method_that_cannot_be_built_is_a_problem_of_the_plan(overrides, words, message):
    with pytest.raises(UserError, match=message):
        planning.report_problems(planning.make_plan(compose_config([*overrides, *words])))


def test_an_unmeasured_matrix_says_so(overrides):
    console = Console(record=True, width=200)
    planning.show(planning.make_plan(compose_config(overrides)), console)
    text = console.export_text()
    assert "24 questions to answer on 2 videos" in text
    assert "no measured answers yet" in text


def test_weights_that_are_not_whole_are_a_problem_of_the_plan(overrides, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(REPO / "harness" / "toy" / "checkpoint", folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError) as error:
        planning.report_problems(planning.make_plan(compose_config([*overrides, f"model.path={folder}"])))
    assert f"{file}: is cut short or damaged" in str(error.value)
    assert f"rm -r {file} && " in str(error.value) and f"--local-dir {folder}" in str(error.value)
