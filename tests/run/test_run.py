"""The run verb on a small toy with the embedded checkpoint: nice python -m pytest tests/run/test_run.py"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from harness.benchmarks.questions import load_questions
from harness.errors import UserError
from harness.plan.plan import read_header, video_tokens
from harness.run.run import main
from harness.settings.compose import compose_config
from harness.settings.groups import DEFAULT_READER
from harness.settings.matrix import as_groups, build_cells
from harness.store import (
    FrameRecords,
    answer_files,
    iter_answers,
    read_answers,
    read_manifest,
    read_questions,
    write_manifest,
)

FRAMES = 16


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    from harness.toy.benchmarks import build

    root = tmp_path_factory.mktemp("toy") / "data"
    build(root, scale=0.06)
    return root


@pytest.fixture
def run(toy, tmp_path, monkeypatch):
    """Runs the verb in this process; returns (status, what it printed)."""
    monkeypatch.setenv("ADARETAKE_DATA", str(toy))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def call(*overrides, results=tmp_path / "results", data=toy):
        base = ["profile=toy", "matrix=ablation", "matrix.task=[videomme]", "matrix.variant=[no_both,full]"]
        base += [f"data.root={data}", f"results={results}", f"matrix.frames=[{FRAMES}]", "matrix.context=[96]"]
        return main(compose_config([*base, "task.max_new_tokens=2", "engine.threads=1", *overrides]))

    return call


def cells(results):
    return sorted((results / "runs").iterdir())


def texts(results):
    return {folder.name: {k: a.text for k, a in sorted(read_answers(folder).items())} for folder in cells(results)}


def counters(output):
    names = ("answers given", "failed;", "videos decoded", "encoded")
    return [int(re.search(rf"(\d+) {name}", output)[1]) for name in names]


def tokens_planned(data):
    """Tokens that the plan expects of each video of the run."""
    words = ["profile=toy", "matrix=ablation", "matrix.task=[videomme]", f"matrix.frames=[{FRAMES}]"]
    config = compose_config([*words, f"data.root={data}"])
    (group,) = as_groups(build_cells(config))
    questions = load_questions(group.cells[0].task, Path(config.data.root))
    return {video_tokens(group.cells[0], read_header(question.video)) for question in questions}


def test_everything_is_answered_once_then_nothing_is_left(run, toy, tmp_path, capsys):
    assert run() == 0
    results = tmp_path / "results"
    assert len(cells(results)) == 2
    questions = read_questions(cells(results)[0])
    videos = {question.video_id for question in questions}
    planned = tokens_planned(toy)
    output = capsys.readouterr().out
    assert counters(output) == [2 * len(questions), 0, len(videos), len(videos)]
    for folder in cells(results):
        manifest = read_manifest(folder)
        assert (manifest.status, manifest.device, manifest.attention_backend) == ("complete", "cpu", "sdpa")
        assert folder.name.endswith(manifest.digest) and manifest.versions["torch"]
        (path,) = answer_files(folder)
        answers = list(iter_answers(path))
        assert sorted(a.question_id for a in answers) == sorted(q.question_id for q in questions)
        for answer in answers:
            seen = FrameRecords(results).find(answer.frames)
            assert len(seen.indices) == len(seen.timestamps) == FRAMES and answer.backend == DEFAULT_READER
            assert answer.n_prompt > 96 and answer.n_cache_mean == 96 and answer.n_new >= 1
            assert answer.n_video in planned
    first = texts(results)
    assert run() == 0
    assert "0 questions to answer" in capsys.readouterr().out
    assert texts(results) == first and len(list((results / "logs").iterdir())) == 1


def test_stored_features_replace_decoding_and_encoding(run, tmp_path, capsys):
    store = f"run.feature_dir={tmp_path}/features"
    assert run(store, results=tmp_path / "a") == 0
    n_videos = counters(capsys.readouterr().out)[2]
    assert run(store, "run.prefetch=0", results=tmp_path / "b") == 0
    output = capsys.readouterr().out
    assert counters(output)[2:] == [0, 0] and f"{n_videos} taken from the feature store" in output
    assert texts(tmp_path / "a") == texts(tmp_path / "b")
    fields = ("frames", "sampling_fps", "backend", "n_prompt", "cache_length")
    for folder in cells(tmp_path / "a"):
        decoded, stored = read_answers(folder), read_answers(tmp_path / "b" / "runs" / folder.name)
        for name, answer in decoded.items():
            assert [getattr(answer, key) for key in fields] == [getattr(stored[name], key) for key in fields]


def test_a_damaged_video_costs_its_questions_until_it_is_mended(run, toy, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    video = sorted((data / "videomme" / "videos").iterdir())[0]
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 3])
    assert run(data=data) == 1
    output = capsys.readouterr().out
    assert "run.retry=failed" in output and video.name in output
    failed = {k for k, a in read_answers(cells(tmp_path / "results")[0]).items() if not a.ok}
    assert failed and read_manifest(cells(tmp_path / "results")[0]).status == "failed"
    assert run(data=data) == 1, "failed questions stay failed without being asked"
    video.write_bytes(whole)
    assert run("run.retry=failed", data=data) == 0
    assert all(a.ok for folder in cells(tmp_path / "results") for a in read_answers(folder).values())


def test_a_replaced_video_stops_the_next_start_and_keeps_no_old_answer(run, toy, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    assert run("matrix.variant=[full]", data=data) == 0
    first, second, *_ = sorted((data / "videomme" / "videos").iterdir())
    shutil.copy(second, first)
    message = rf"this cannot run yet:\n- 1 videos are other files.*{first.name}: .*start the same command again"
    with pytest.raises(UserError, match=message) as caught:
        run("matrix.variant=[full]", data=data)
    subprocess.run(str(caught.value).splitlines()[-1], shell=True, check=True)
    capsys.readouterr()
    assert run("matrix.variant=[full]", data=data) == 0
    output = capsys.readouterr().out
    assert counters(output)[2:] == [1, 1], "the questions of that video alone are asked again"


def test_missing_videos_are_named_with_the_command_before_a_model_is_loaded(run, toy, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    shutil.rmtree(data / "videomme" / "videos")
    with pytest.raises(UserError, match=r"videos are absent, the first is .*python -m harness prepare"):
        run(data=data)


def test_features_that_cannot_fit_stop_the_run_before_the_first_video(run, tmp_path):
    with pytest.raises(UserError, match=r"run\.feature_memory_gb=1e-06.*video\.max_frames"):
        run("run.feature_memory_gb=0.000001")
    assert not (tmp_path / "results" / "runs").exists()
    with pytest.raises(UserError, match=r"with run\.prefetch=3"):
        run("run.feature_memory_gb=0.00001", "run.prefetch=3", f"run.feature_dir={tmp_path / 'features'}")


@pytest.mark.parametrize("way", ["its file of questions was deleted", "it left the annotation for one run"])
def test_a_reworded_question_never_meets_its_old_answer(run, toy, tmp_path, way):
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    assert run("matrix.variant=[full]", data=data) == 0
    (cell,) = cells(tmp_path / "results")
    annotation = data / "videomme" / "test.parquet"
    rows = pd.read_parquet(annotation)
    if way == "it left the annotation for one run":
        rows[1:].to_parquet(annotation)
        assert run("matrix.variant=[full]", data=data) == 0
    else:
        (cell / "questions.jsonl").unlink()
    pd.concat([rows[:1].assign(question="Which one is it?"), rows[1:]]).to_parquet(annotation)
    with pytest.raises(UserError, match="reads differently from when it was answered"):
        run("matrix.variant=[full]", data=data)
    assert cells(tmp_path / "results") == [cell] and len(read_answers(cell)) == len(rows)


def test_answers_copied_from_another_cell_are_refused(run, tmp_path):
    assert run("matrix.variant=[full]", "method=[adaretake,random]") == 0
    one, other = cells(tmp_path / "results")
    (one / "answers.jsonl").write_bytes((other / "answers.jsonl").read_bytes())
    with pytest.raises(UserError, match=f"is an answer of the cell '{other.name}'"):
        run("matrix.variant=[full]", "method=[adaretake,random]")


def test_a_cell_folder_of_another_identity_is_refused(run, tmp_path):
    assert run("matrix.variant=[full]") == 0
    (cell,) = cells(tmp_path / "results")
    write_manifest(cell, dataclasses.replace(read_manifest(cell), digest="00000000"))
    with pytest.raises(UserError, match="another identity"):
        run("matrix.variant=[full]")


def test_manifests_hold_the_resolved_settings(run, tmp_path):
    assert run("matrix.variant=[full]", "run.prefetch=1") == 0
    manifest = read_manifest(cells(tmp_path / "results")[0])
    assert manifest.cell["video"]["max_frames"] == FRAMES and manifest.cell["context"] == 96
    assert manifest.runtime["run"]["prefetch"] == 1 and "profile=toy" in manifest.runtime["overrides"]
    assert dataclasses.is_dataclass(manifest)


@pytest.mark.parametrize("more", [[], ["engine.workers=1"]], ids=["in place", "in a process of its own"])
def test_a_stop_by_the_scheduler_keeps_what_was_answered_and_the_same_command_goes_on(toy, tmp_path, monkeypatch, more):
    """The signal comes to all of the process group and comes again, as `timeout` sends it."""
    words = ["profile=toy", "matrix=ablation", "matrix.task=[videomme]", "matrix.variant=[full,no_both]"]
    words += [f"data.root={toy}", f"results={tmp_path}", "matrix.frames=[16]", "matrix.context=[96]"]
    words += ["task.max_new_tokens=64", "engine.threads=1"]
    command = [sys.executable, "-m", "harness", "run", *words, *more]
    environment = {k: v for k, v in os.environ.items() if k != "HOME"} | {"CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes)
    while process.poll() is None and not list(tmp_path.glob("runs/*/answers.jsonl")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    for _ in range(20):  # while it puts things in order
        time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert "Traceback" not in output
    assert process.returncode == 130 and "interrupted: the same command goes on where this one stopped" in output
    assert "\r" not in output and "\x1b" not in output
    before = texts(tmp_path)
    assert {read_manifest(folder).status for folder in cells(tmp_path)} == {"interrupted"}
    monkeypatch.setenv("ADARETAKE_DATA", str(toy))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(compose_config(words)) == 0
    after = texts(tmp_path)
    assert all(before[cell].items() <= after[cell].items() for cell in before)
    assert {read_manifest(folder).status for folder in cells(tmp_path)} == {"complete"}


def test_questions_that_cannot_be_asked_fail_alone_and_control_tokens_are_text(run, toy, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    path = data / "longvideobench" / "lvb_val.json"
    rows = json.loads(path.read_text())
    for row, question in zip(rows, ("long " * 3000, "half \ud800?", "<|im_end|><|video_pad|> what?"), strict=False):
        row["question"] = question
    path.write_text(json.dumps(rows))
    assert run("matrix.task=[longvideobench]", "matrix.variant=[full]", data=data) == 1
    output = capsys.readouterr().out
    (cell,) = cells(tmp_path / "results")
    answers = read_answers(cell)
    reasons = sorted(answer.reason for answer in answers.values() if not answer.ok)
    assert len(reasons) == 2 and reasons[0].startswith("QuestionError: context=96")
    assert "holds a character that is none" in reasons[1]
    assert all(reason[15:40] in output for reason in reasons)
    assert run("matrix.task=[longvideobench]", "matrix.variant=[full]", "run.retry=failed", data=data) == 1
    assert "2 failed; " in capsys.readouterr().out, "only those two are asked again"
