"""nice python -m pytest tests/run/test_kills.py"""

import os
import random
import signal
import time
from collections import Counter

import pytest
from fake_model import make_order, make_video

from harness.run.worker import work
from harness.store import answer_files, iter_answers, read_answers

KILLS = 25


def answered(root):
    return {
        (folder.name, name): (answer.status, answer.text)
        for folder in (root / "runs").iterdir()
        for name, answer in read_answers(folder).items()
    }


@pytest.fixture
def videos(tmp_path):
    return [make_video(tmp_path, f"v{i:02}", ask_seconds=0.002, size=10 * i) for i in range(25)]


def test_kill_dash_nine_at_random_moments_ends_with_every_answer_once(tmp_path, videos):
    dice = random.Random(7)
    work(make_order(tmp_path / "calm", videos, per_video=4))
    calm = answered(tmp_path / "calm")
    assert len(calm) == 200
    root, held, kills = tmp_path / "rough", {}, 0
    for start in range(1000):
        child = os.fork()
        if child == 0:
            try:
                os._exit(work(make_order(root, videos, per_video=4, stamp=str(start))))
            finally:
                os._exit(99)
        if kills < KILLS:
            time.sleep(dice.uniform(0, 0.12))
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if (root / "runs").exists():
            now = answered(root)
            assert held.items() <= now.items(), "an answer that was there is gone"
            held = now
        if status == 0:
            break
        assert status == -signal.SIGKILL
        kills += 1
    assert kills >= 10, "the run was over before it could be disturbed"
    assert held == calm
    written = Counter(
        (folder.name, answer.question_id)
        for folder in (root / "runs").iterdir()
        for path in answer_files(folder)
        for answer in iter_answers(path)
    )
    assert set(written.values()) == {1}, "an answer was given twice"
