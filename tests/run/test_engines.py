"""nice python -m pytest tests/run/test_engines.py"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_model import make_order, make_video

from harness.config import EngineConfig, RunConfig
from harness.errors import UserError
from harness.run.engines import build_engine
from harness.run.progress import Progress, heartbeat, take_snapshot
from harness.run.supervise import Supervisor
from harness.run.work import for_worker, save_order
from harness.run.worker import status_path, work
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
    path = save_order(order)
    if engine is None:
        return work(path)
    Supervisor(engine, order, path).run()


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    return [make_video(folder, f"v{i}", title="x" * 10 * i) for i in range(6)]


@pytest.fixture
def expected(tmp_path, videos):
    assert carry_out(make_order(tmp_path / "one", videos)) == 0
    return state(tmp_path / "one")


def test_one_worker_in_this_process_writes_one_file_and_says_done(tmp_path, videos):
    order = make_order(tmp_path, videos)
    assert carry_out(order) == 0
    assert [p.name for p in (tmp_path / "runs" / "cell-100").glob("answers*")] == ["answers.jsonl"]
    snapshot = take_snapshot(order)
    assert [s.state for s in snapshot.workers] == ["done"] and snapshot.counters.videos_encoded == 6
    assert "videos 6/6, answers 36/36" in heartbeat(snapshot) and "accuracy 33.3 %" in heartbeat(snapshot)
    text = (order.logs / "worker-0.log").read_text()
    assert (
        text.count("3 answers") == 0 and text.count("6 frames, 6 answers") == 6 and '"encoder_windows": 12' not in text
    )
    assert "'encoder_windows': 12" in text


def test_shards_are_disjoint_complete_balanced_and_longest_first(tmp_path, videos):
    order = make_order(tmp_path, videos, workers=4)
    shards = [[work.path for group in for_worker(order, i) for work in group.videos] for i in range(4)]
    assert sorted(path for shard in shards for path in shard) == sorted(videos)
    assert {len(shard) for shard in shards} == {1, 2}
    for shard in shards:
        sizes = [path.stat().st_size for path in shard]
        assert sizes == sorted(sizes, reverse=True)


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
    assert take_snapshot(order).counters.videos_decoded == 6


def two_local():
    return build_engine(EngineConfig(workers=2), "cpu")


def test_a_worker_that_dies_is_started_again_and_loses_nothing(tmp_path, expected, videos):
    make_video(videos[3].parent, "v3", fail="die once", title="x" * 30)
    order = make_order(tmp_path / "two", videos, workers=2)
    carry_out(order, two_local())
    assert state(tmp_path / "two") == expected and doubled(tmp_path / "two") == []


def test_a_video_that_kills_its_worker_twice_fails_alone(tmp_path, expected, videos):
    make_video(videos[3].parent, "v3", fail="die", title="x" * 30)
    order = make_order(tmp_path / "two", videos, workers=2)
    carry_out(order, two_local())
    left = state(tmp_path / "two")
    for cell, answers in left.items():
        failed = {question for question, answer in answers.items() if answer[0] == "failed"}
        assert failed == {"v3-q0", "v3-q1", "v3-q2"}
        assert {q: a for q, a in answers.items() if q not in failed}.items() <= expected[cell].items()
    error = read_answers(tmp_path / "two" / "runs" / "cell-100")["v3-q0"].error
    assert error["type"] == "WorkerDied" and "status -9" in error["message"]
    make_video(videos[3].parent, "v3", title="x" * 30)
    carry_out(make_order(tmp_path / "two", videos, workers=2, run=RunConfig(retry="failed"), stamp="b"), two_local())
    assert state(tmp_path / "two") == expected


def test_killing_one_worker_of_two_from_outside_still_completes(tmp_path, expected, videos):
    for i, video in enumerate(videos):
        make_video(video.parent, f"v{i}", title="x" * 10 * i, ask_seconds=0.05)
    order = make_order(tmp_path / "two", videos, workers=2)
    path = save_order(order)
    code = f"""
import sys, pickle; sys.path.insert(0, {str(HERE)!r})
from pathlib import Path
from harness.config import EngineConfig
from harness.run.engines import build_engine
from harness.run.supervise import Supervisor
from harness.run.work import load_order
path = Path({str(path)!r})
Supervisor(build_engine(EngineConfig(workers=2), "cpu"), load_order(path), path).run()
"""
    supervisor = subprocess.Popen([sys.executable, "-c", code])
    os.kill(pid_of_running_worker(order, 0), signal.SIGKILL)
    assert supervisor.wait(timeout=60) == 0
    assert state(tmp_path / "two") == expected and doubled(tmp_path / "two") == []


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
    path = save_order(order)
    code = f"""
import time
from pathlib import Path
from harness.config import EngineConfig
from harness.run.engines import build_engine
build_engine(EngineConfig(workers=2), "cpu").start(Path({str(path)!r}), 0, 0, 0)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    worker = pid_of_running_worker(order, 0)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < deadline, "the worker outlived the process that started it"
        time.sleep(0.05)


def test_workers_that_cannot_start_end_the_run_with_their_log(tmp_path, videos, monkeypatch):
    monkeypatch.setenv("FAKE_MODEL_BROKEN", "1")
    order = make_order(tmp_path, videos, workers=2)
    with pytest.raises(UserError, match=r"worker-\d\.log"):
        carry_out(order, two_local())
    assert "no such device" in (order.logs / "worker-0.log").read_text()


def test_a_worker_that_must_stop_the_run_hands_its_message_up(tmp_path, videos):
    make_video(videos[0].parent, "v5", fail="user", title="x" * 60)
    with pytest.raises(UserError, match=r"raise context\.tokens"):
        carry_out(make_order(tmp_path, videos, workers=2), two_local())


def test_a_second_writer_is_refused_before_it_answers(tmp_path, videos):
    from harness.store import AnswerLog

    order = make_order(tmp_path, videos)
    with AnswerLog(order.groups[0].cells[0].folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.run.worker.LOCK_WAIT_S", 0.1)
        assert carry_out(order) == 3
    assert "another process is writing" in json.loads(status_path(order.logs, 0, 0).read_text())["error"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "kubernetes"}, "allowed: local, ray, slurm"),
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
    monkeypatch.setattr(subprocess, "Popen", lambda command, env, **_: seen.append(env[variable]))
    monkeypatch.setenv(variable, "2,5,6,7")
    engine = build_engine(EngineConfig(gpus_per_worker=2), "auto")
    for slot in range(engine.workers):
        engine.start(tmp_path / "order.pickle", slot, 0, slot)
    assert seen == ["2,5", "6,7"]


def test_progress_prints_lines_where_there_is_no_terminal(tmp_path, videos):
    for i, video in enumerate(videos):
        make_video(video.parent, f"v{i}", ask_seconds=0.02)
    order = make_order(tmp_path, videos)
    import io

    stream = io.StringIO()
    with Progress(order, stream, every_s=0.1):
        carry_out(order)
    lines = stream.getvalue().splitlines()
    beats = [line for line in lines if "ETA" in line and "answers" in line]
    assert len(beats) >= 3
    assert [line for line in lines if line not in beats] == ["fake on unknown, float32, attention unknown"]


def test_one_worker_runs_in_place_unless_asked_for_by_number(tmp_path, videos, expected):
    assert build_engine(EngineConfig(), "cpu").in_place
    engine = build_engine(EngineConfig(workers=1), "cpu")
    assert not engine.in_place
    make_video(videos[3].parent, "v3", fail="die", title="x" * 30)
    carry_out(make_order(tmp_path / "own", videos), engine)
    left = state(tmp_path / "own")["cell-100"]
    assert {q for q, answer in left.items() if answer[0] == "failed"} == {"v3-q0", "v3-q1", "v3-q2"}
