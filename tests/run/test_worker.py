"""One worker in this process, and what it says of itself: nice python -m pytest tests/run/test_worker.py"""

import io
import json
import logging
import time

import pytest
from fake_model import LOADED, make_order, make_video

from harness.run.progress import Display, plain_line, summary
from harness.run.status import StatusFile, read_status, status_path, take_snapshot
from harness.run.worker import INTERRUPTED, STOPPED, log_to, work, worker_log
from harness.store import Answer, failed_answer, read_answers, read_manifest


@pytest.fixture
def videos(tmp_path):
    return [make_video(tmp_path, f"v{i}", size=100 * i) for i in range(3)]


def test_a_worker_answers_its_share_and_leaves_status_log_and_provenance(tmp_path, videos):
    order = make_order(tmp_path, videos)
    LOADED.clear()
    assert work(order) == 0
    (adapter,) = LOADED
    assert adapter.encoded == [6, 6, 6]
    folder = tmp_path / "runs" / "cell-100"
    assert [p.name for p in folder.glob("answers*")] == ["answers.jsonl"] and len(read_answers(folder)) == 9
    manifest = read_manifest(folder)
    assert (manifest.device, manifest.attention_backend) == ("cpu", "fake")
    assert manifest.instruction_set and manifest.versions["python"]
    snapshot = take_snapshot(order.logs)
    assert [s.state for s in snapshot.workers] == ["done"] and snapshot.counters.videos_encoded == 3
    assert "videos 3/3, answers 18/18" in plain_line(snapshot, order) and "failed 0" in plain_line(snapshot, order)
    assert "18 answers given, 0 failed; 3 videos decoded, 3 encoded (18 frames in 6" in summary(snapshot)
    text = worker_log(order.logs, 0).read_text()
    assert text.count("6 frames, 6 answers") == 3 and "'encoder_windows': 6" in text
    assert work(order) == 0, "nothing is left"
    assert len(LOADED) == 1, "and no model is loaded for it"


def test_an_error_that_stops_all_is_a_status_with_its_message(tmp_path, videos):
    make_video(tmp_path, "v2", size=200, fail="user")
    order = make_order(tmp_path, videos)
    assert work(order) == STOPPED
    status = read_status(status_path(order.logs, 0, 0))
    assert status.state == "stopped" and "chunk_frames=3 cannot work" in status.error


def test_an_interrupted_worker_says_so(tmp_path, videos):
    make_video(tmp_path, "v2", size=200, fail="interrupt")
    order = make_order(tmp_path, videos)
    assert work(order) == INTERRUPTED
    assert read_status(status_path(order.logs, 0, 0)).state == "interrupted"


def test_the_log_goes_to_the_file_only_while_inside(tmp_path):
    before = logging.getLogger("harness").handlers[:], logging.getLogger("harness").propagate
    with log_to(tmp_path / "new folder" / "a.log"):
        logging.getLogger("harness.x").info("inside")
    logging.getLogger("harness.x").warning("outside")
    assert (logging.getLogger("harness").handlers, logging.getLogger("harness").propagate) == before
    text = (tmp_path / "new folder" / "a.log").read_text()
    assert "inside" in text and "outside" not in text


def test_a_torn_or_foreign_status_file_is_none(tmp_path):
    path = tmp_path / "status-0.0.json"
    assert read_status(path) is None
    StatusFile(path, "0")
    assert read_status(path).worker == "0"
    for content in ("", "{", "[]", json.dumps({"worker": "0", "counters": {"unknown": 1}})):
        path.write_text(content)
        assert read_status(path) is None


def test_a_snapshot_adds_up_all_starts_and_shows_the_latest_of_each_worker(tmp_path):
    for index, attempt in ((0, 0), (0, 1), (1, 0)):
        file = StatusFile(status_path(tmp_path, index, attempt), str(index))
        file.begin("group", tmp_path / f"v{attempt}.mp4")
        file.answered("a", Answer("q1", "v", "ok", text=f"<b>{index}\x1b", seconds={"generate": 1.0}))
        file.answered("b", failed_answer("q2", "v", RuntimeError("no <frames>")))
        file.write()
    snapshot = take_snapshot(tmp_path)
    assert snapshot.done == {"group": 6} and (snapshot.counters.answers, snapshot.counters.failed) == (3, 3)
    assert snapshot.cells == {"a": [3, 0], "b": [0, 3]}
    assert [entry["text"] for entry in snapshot.answers] == ["<b>1\x1b", "<b>0\x1b", "<b>0\x1b"]
    assert snapshot.failures[0] | {"time": 0} == {
        "cell": "b", "question": "q2", "text": "RuntimeError: no <frames>", "seconds": 0, "time": 0,
    }  # fmt: skip
    assert sorted((s.worker, s.video.rpartition("/")[2]) for s in snapshot.workers) == [
        ("0", "v1.mp4"),
        ("1", "v0.mp4"),
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_pipe_gets_whole_lines_now_and_then(tmp_path, videos):
    for i in range(3):
        make_video(tmp_path, f"v{i}", size=100 * i, ask_seconds=0.03)
    order = make_order(tmp_path, videos)
    object.__setattr__(order.siblings[0], "name", "a-name-of-cells-" * 12)
    stream = io.StringIO()
    with Display(order, stream, every_s=0.1):
        work(order)
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()
    lines = stream.getvalue().splitlines()
    lines.remove("fake on cpu, float32, attention fake")
    beats = [line for line in lines if "ETA" in line and "answers" in line]
    assert len(beats) >= 3 and beats == lines, "no line is wrapped"
    named = ("a-name-of-cells-" * 12) + ": videos"
    assert any(named in line for line in beats), "the first may come before any work, the last behind all"


def test_a_terminal_gets_a_bar_per_group(tmp_path, videos, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("harness.run.progress.REFRESH_S", 0.05)
    make_video(tmp_path, "v2", size=200, ask_seconds=0.05)
    order = make_order(tmp_path, videos)
    stream = Terminal()
    with Display(order, stream):
        work(order)
        time.sleep(0.3)
    text = stream.getvalue()
    assert "group" in text and "18/18" in text and "v2.mp4" in text and "fake on cpu" in text
    assert "ETA" not in text, "lines are for pipes"


def test_a_display_that_breaks_does_not_disturb_the_run(tmp_path, videos):
    order = make_order(tmp_path, videos)
    stream = io.StringIO()
    stream.close()
    with Display(order, stream, every_s=0.05):
        assert work(order) == 0
