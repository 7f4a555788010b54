"""nice python -m pytest tests/run/test_engines.py"""

import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from fake_model import make_order, make_video

from harness.errors import UserError
from harness.run.engines import build_engine
from harness.run.run import Supervisor
from harness.run.status import status_path, take_snapshot
from harness.run.worker import work
from harness.settings.groups import EngineConfig, RunConfig
from harness.store import answer_files, iter_answers, read_answers

HERE = Path(__file__).parents[1] / "support"


@pytest.fixture(autouse=True)
def fake_model_is_importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def state(root: Path) -> dict:
    """Everything that an answer says but its time and cost, per cell and question."""
    return {
        folder.name: {k: (a.status, a.text, a.cache_length) for k, a in sorted(read_answers(folder).items())}
        for folder in sorted((root / "runs").iterdir())
    }


def doubled(root: Path) -> list[str]:
    written = [a.question_id for f in (root / "runs").iterdir() for p in answer_files(f) for a in iter_answers(p)]
    n_cells = len(list((root / "runs").iterdir()))
    return sorted({q for q in written if written.count(q) > n_cells})


def carry_out(order, engine=None):
    if engine is None:
        return work(order)
    Supervisor(engine, order).run()


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    return [make_video(folder, f"v{i}", size=100 * i) for i in range(6)]


@pytest.fixture
def expected(tmp_path, videos):
    assert carry_out(make_order(tmp_path / "one", videos)) == 0
    return state(tmp_path / "one")


@pytest.mark.parametrize("name", ["local", "slurm", "ray"])
def test_every_engine_gives_the_answers_of_one_worker(tmp_path, videos, expected, name):
    settings = EngineConfig(name=name, workers=2, cluster="local", gpus_per_worker=0, cpus_per_worker=1, memory_gb=1)
    if name != "local":
        pytest.importorskip({"slurm": "submitit", "ray": "ray"}[name])
    engine = build_engine(settings, "cpu")
    order = make_order(tmp_path / name, videos, workers=engine.workers)
    try:
        carry_out(order, engine)
    finally:
        engine.close()
    assert state(tmp_path / name) == expected and doubled(tmp_path / name) == []
    names = sorted(p.name for p in (tmp_path / name / "runs" / "cell-100").glob("answers*"))
    assert names == ["answers.0.jsonl", "answers.1.jsonl"]
    assert take_snapshot(order.logs).counters.videos_decoded == 6


def two_local():
    return build_engine(EngineConfig(workers=2), "cpu")


def test_dying_workers_start_again_and_a_video_that_kills_two_fails_alone(tmp_path, expected, videos):
    make_video(videos[1].parent, "v1", fail="die once", size=100)
    make_video(videos[3].parent, "v3", fail="die", size=300)
    order = make_order(tmp_path / "two", videos, workers=2)
    carry_out(order, two_local())
    left = state(tmp_path / "two")
    for cell, answers in left.items():
        failed = {question for question, answer in answers.items() if answer[0] == "failed"}
        assert failed == {"v3-q0", "v3-q1", "v3-q2"}
        assert {q: a for q, a in answers.items() if q not in failed}.items() <= expected[cell].items()
    answer = read_answers(tmp_path / "two" / "runs" / "cell-100")["v3-q0"]
    assert answer.reason.startswith("WorkerDied") and "status -9" in answer.reason and answer.start == "start"
    make_video(videos[3].parent, "v3", size=300)
    assert carry_out(make_order(tmp_path / "two", videos, run=RunConfig(retry="failed"), stamp="b")) == 0
    assert state(tmp_path / "two") == expected


def test_killing_one_worker_of_two_from_outside_still_completes(tmp_path, expected, videos):
    for i, video in enumerate(videos):
        make_video(video.parent, f"v{i}", size=100 * i, ask_seconds=0.05)
    order = make_order(tmp_path / "two", videos, workers=2)
    code = """
import pickle, sys
from harness.settings.groups import EngineConfig
from harness.run.engines import build_engine
from harness.run.run import Supervisor
Supervisor(build_engine(EngineConfig(workers=2), "cpu"), pickle.load(sys.stdin.buffer)).run()
"""
    supervisor = start_python(code, order)
    os.kill(pid_of_running_worker(order, 0), signal.SIGKILL)
    assert supervisor.wait(timeout=60) == 0
    assert state(tmp_path / "two") == expected and doubled(tmp_path / "two") == []


def start_python(code: str, order) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    process.stdin.write(pickle.dumps(order))
    process.stdin.close()
    return process


def pid_of_running_worker(order, index: int) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        path = status_path(order.logs, index, 0)
        if path.exists() and '"running"' in path.read_text():
            return json.loads(path.read_text())["pid"]
        time.sleep(0.02)
    raise AssertionError("the worker never started to answer")


def test_workers_end_with_a_killed_parent(tmp_path, videos):
    for i, video in enumerate(videos):
        make_video(video.parent, f"v{i}", ask_seconds=0.5)
    order = make_order(tmp_path, videos, workers=2)
    code = """
import pickle, sys, time
from harness.settings.groups import EngineConfig
from harness.run.engines import build_engine
build_engine(EngineConfig(workers=2), "cpu").start(pickle.load(sys.stdin.buffer), 0, 0, 0)
time.sleep(60)
"""
    parent = start_python(code, order)
    worker = pid_of_running_worker(order, 0)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < deadline, "the worker outlived the process that started it"
        time.sleep(0.05)


def test_a_worker_that_cannot_start_ends_the_run_with_its_log(tmp_path, videos, monkeypatch):
    monkeypatch.setenv("FAKE_MODEL_BROKEN", "1")
    monkeypatch.setattr("harness.run.run.DEATHS_AT_START", 1)
    order = make_order(tmp_path, videos)
    with pytest.raises(UserError, match=r"worker-0\.log"):
        carry_out(order, build_engine(EngineConfig(workers=1), "cpu"))
    assert "no such device" in (order.logs / "worker-0.log").read_text()


def test_a_worker_that_must_stop_the_run_hands_its_message_up(tmp_path, videos):
    make_video(videos[0].parent, "v5", fail="user", size=500)
    with pytest.raises(UserError, match=r"chunk_frames=3 cannot work"):
        carry_out(make_order(tmp_path, videos), build_engine(EngineConfig(workers=1), "cpu"))


def test_a_second_writer_is_refused_before_it_answers(tmp_path, videos):
    from harness.store import AnswerLog

    order = make_order(tmp_path, videos)
    with AnswerLog(order.siblings[0].folders[0]), pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.run.worker.LOCK_WAIT_S", 0.1)
        assert carry_out(order) == 3
    assert "another process is writing" in json.loads(status_path(order.logs, 0, 0).read_text())["error"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "kubernetes"}, "allowed: local, npu, ray, slurm"),
        ({"workers": 0}, "must be at least 1"),
    ],
)
def test_engine_settings_are_checked(settings, message):
    with pytest.raises(UserError, match=message):
        build_engine(EngineConfig(**settings), "cpu")


def test_slots_share_out_the_visible_accelerators(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,6,7")
    assert build_engine(EngineConfig(), "auto").workers == 4
    assert build_engine(EngineConfig(gpus_per_worker=2), "auto").workers == 2
    with pytest.raises(UserError, match="lower engine.workers to 2"):
        build_engine(EngineConfig(gpus_per_worker=2, workers=3), "auto")
    with pytest.raises(UserError, match="4 accelerators are visible"):
        build_engine(EngineConfig(gpus_per_worker=8), "auto")
    assert build_engine(EngineConfig(), "cpu").workers == 1


@pytest.mark.parametrize(
    ("variable", "torch_npu"), [("CUDA_VISIBLE_DEVICES", None), ("ASCEND_RT_VISIBLE_DEVICES", "found")]
)
def test_a_worker_is_given_the_accelerators_of_its_slot(tmp_path, monkeypatch, variable, torch_npu):
    seen = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: torch_npu if name == "torch_npu" else None)
    monkeypatch.setattr(subprocess, "Popen", lambda command, env, **_: seen.append(env[variable]) or Mock())
    order = make_order(tmp_path, [])
    monkeypatch.setenv(variable, "2,5,6,7")
    engine = build_engine(EngineConfig(gpus_per_worker=2), "auto")
    for slot in range(engine.workers):
        engine.start(order, slot, 0, slot)
    assert seen == ["2,5", "6,7"]


def test_one_worker_runs_in_place_unless_asked_for_by_number():
    assert build_engine(EngineConfig(), "cpu").in_place
    assert not build_engine(EngineConfig(workers=1), "cpu").in_place
