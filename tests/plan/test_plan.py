"""The plan: counts from annotations and stored answers, all problems at once."""

import json
import shlex
import shutil
from functools import partial

import pytest
from rich.console import Console

from harness.errors import UserError
from harness.plan import plan as planning
from harness.plan.plan import Header, print_plan
from harness.settings.compose import REPO, compose_config
from harness.settings.matrix import build_cells
from harness.store import Answer, AnswerLog, FrameRecords, Manifest, SeenFrames, write_manifest
from harness.toy.benchmarks import build


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


def answered(plan, name, status="ok", **fields):
    """An answer to a question of the plan, to the prompt that it asks."""
    question = next(q for asked in plan.groups[0].questions.values() for q in asked if q.question_id == name)
    return Answer(name, question.video_id, status, prompt_digest=question.digest, **fields)


def plan_of(config):
    problems = []
    cells = build_cells(config, problems)
    return planning.make_plan(
        cells, config.results, config.data.root, config.run, words=config.words, problems=problems
    )


def test_the_toy_is_made_where_it_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.toy.benchmarks.build", partial(build, scale=0.06))
    assert planning.main(compose_config(["matrix=ablation", "matrix.task=[lvbench]", "matrix.variant=[full]"])) == 0
    assert (tmp_path / "data/toy/lvbench").is_dir() and "to answer" in capsys.readouterr().out


def test_counts_follow_the_stored_answers(overrides):
    config = compose_config(overrides)
    plan = plan_of(config)
    assert (len(plan.groups), len(plan.groups[0].cells), plan.to_answer) == (1, 4, 24)
    group = plan.groups[0]
    assert (group.videos, group.videos_to_decode, group.hours_to_decode) == (2, 2, 1.0)
    assert group.tokens == 2 * 512 * 144  # 1024 frames of 16:9 at long side 448 (benchmarks: 144 tokens per grid)

    folder = planning.cell_folder(config.results, group.cells[0].cell)
    with AnswerLog(folder) as log:
        log.append(answered(plan, "00", text="A"))
        log.append(answered(plan, "01", "failed", error={"type": "VideoError", "message": "damaged"}))
    first = plan_of(config).groups[0].cells[0]
    assert (first.questions, first.answered, first.failed, first.to_answer) == (6, 1, 1, 4)
    retry = plan_of(compose_config([*overrides, "run.retry=failed"]))
    assert retry.groups[0].cells[0].to_answer == 5


def test_all_problems_come_at_once(overrides, tmp_path, monkeypatch):
    monkeypatch.setenv("ADARETAKE_DATA", str(tmp_path / "data"))
    words = [w for w in overrides if not w.startswith(("model.path", "matrix.task"))]
    plan = plan_of(compose_config([*words, "model.path=no/where"]))
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
        planning.report_problems(plan_of(compose_config([*overrides, *words])))


def shown(plan, width=80):
    console = Console(record=True, width=width, soft_wrap=True)
    print_plan(plan, console)
    return console.export_text()


def test_an_unmeasured_matrix_says_so_and_how_to_measure_it(overrides):
    text = shown(plan_of(compose_config(overrides)))
    assert "24 questions to answer on 2 videos" in text
    assert "time: not known" in text
    assert f"-m harness run {shlex.join(overrides)} task.subset=mini" in text
    mini = shown(plan_of(compose_config([*overrides, "matrix.subset=[mini]"])))
    assert "time: not known" in mini and "This measures them" not in mini  # it would be the plan itself


def test_weights_of_another_model_keep_a_matrix_from_running(overrides):
    config = compose_config(overrides)
    with pytest.raises(UserError, match="the weights are not those of qwen2_5_vl_7b: layers 4"):
        planning.report_problems(plan_of(config))
    toy = [word for word in overrides if not word.startswith("model.path")]
    assert not plan_of(compose_config([*toy, "model=toy"])).problems


def test_ids_are_whole_on_a_narrow_screen(overrides):
    plan = plan_of(compose_config(overrides))
    lines = shown(plan, width=40).splitlines()
    for group in plan.groups:
        for cell in group.cells:
            assert any(line.startswith(cell.cell.id + " ") for line in lines)


def test_time_follows_what_is_left_of_each_cell(overrides):
    config = compose_config([*overrides, "matrix.variant=[full,no_both]"])
    plan = plan_of(config)
    cells = [each.cell for each in plan.groups[0].cells]
    for cell, seconds in zip(cells, (10.0, 1.0), strict=True):
        folder = planning.cell_folder(config.results, cell)
        write_manifest(folder, Manifest(cell.id, cell.digest, cell.record(), device="cpu"))
        with AnswerLog(folder) as log:  # one question of one video; both answers carry half of its 100 s
            times = {"frames": 0.0, "encode": 50.0, "generate": seconds}
            log.append(answered(plan, "00", text="A", n_video=73728, seconds=times))
    plan = plan_of(config)
    assert plan.seconds_on["cpu"] == pytest.approx(2 * 100 + 5 * 10 + 5 * 1)
    apart = plan_of(compose_config([*overrides, "matrix.variant=[full,no_both]", "run.sharing=false"]))
    assert apart.seconds_on["cpu"] == pytest.approx(4 * 100 + 5 * 10 + 5 * 1)
    text = shown(plan)
    assert "time: about " in text and "on one cpu" in text
    other = plan_of(compose_config([*overrides, "matrix.variant=[full,no_layer]"]))
    assert not other.seconds_on and [name.split("-f1024")[0][-8:] for name in other.unmeasured] == ["no_layer"]
    assert "time: not known" in shown(other) and "no_layer" in shown(other).split("time:")[1]


def test_headers_are_read_only_of_videos_that_are_needed(overrides, monkeypatch):
    config = compose_config([*overrides, "matrix.variant=[full]"])
    plan = plan_of(config)
    with AnswerLog(planning.cell_folder(config.results, plan.groups[0].cells[0].cell)) as log:
        for question in ("00", "01", "02"):
            log.append(answered(plan, question, text="A"))
    read = []
    monkeypatch.setattr(planning, "read_header", lambda path, s: read.append(path.stem) or Header(s))
    assert plan_of(config).groups[0].videos_to_decode == 1
    assert read == ["v1"]


def test_answers_whose_frames_are_lost_are_a_problem_of_the_plan(overrides):
    config = compose_config([*overrides, "matrix.variant=[full]"])
    plan = plan_of(config)
    folder = planning.cell_folder(config.results, plan.groups[0].cells[0].cell)
    seen = SeenFrames((0, 12), (0.0, 0.5))
    with AnswerLog(folder) as log:
        log.append(answered(plan, "00", text="A", frames=seen.digest))
    with pytest.raises(UserError, match=f"1 answers of a cell refer .*{seen.digest}.json is absent"):
        planning.report_problems(plan_of(config))
    FrameRecords(config.results).keep(seen)
    assert plan_of(config).groups[0].cells[0].answered == 1


def test_weights_that_are_not_whole_are_a_problem_of_the_plan(overrides, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(REPO / "harness" / "toy" / "checkpoint", folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError) as error:
        planning.report_problems(plan_of(compose_config([*overrides, f"model.path={folder}"])))
    assert f"{file}: is cut short or damaged" in str(error.value)
    assert f"rm -r {file} && " in str(error.value) and f"--local-dir {folder}" in str(error.value)
