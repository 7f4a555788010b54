"""Old answers are never taken for answers to something else: nice python -m pytest tests/run/test_opening.py"""

import contextlib
import dataclasses
import re
import subprocess
from types import SimpleNamespace

import pytest
from fake_model import make_cell, make_questions, make_video

from harness.errors import UserError
from harness.run.config import EngineConfig, RunConfig
from harness.run.opening import check_videos, open_folder
from harness.store import Answer, AnswerLog, StoreError, hold, read_answers, read_manifest, read_questions
from harness.video.digest import video_digest

CONFIG = SimpleNamespace(overrides=["a=b"], run=RunConfig(), engine=EngineConfig())


@pytest.fixture
def videos(tmp_path):
    return [make_video(tmp_path, f"v{i}", size=i) for i in range(3)]


@pytest.fixture
def opened(tmp_path, videos):
    """Opens the cell's folder again and again, with every question answered the first time."""

    def call(questions=None, **more):
        with contextlib.ExitStack() as locks:
            folder = tmp_path / "runs" / "the cell"
            return open_folder(make_cell(), folder, questions or make_questions(videos), CONFIG, locks, **more)

    cell = call()
    with AnswerLog(cell.folder) as log:
        for q in cell.questions:
            log.append(Answer(q.question_id, q.video_id, "ok", "A", video_digest=video_digest(q.video)))
    return call


def test_opening_writes_manifest_and_questions_and_returns_the_answers(opened):
    cell = opened()
    assert len(cell.answers) == 9 and [q.question_id for q in read_questions(cell.folder)][0] == "v0-q0"
    manifest = read_manifest(cell.folder)
    assert manifest.digest == cell.cell.digest and manifest.runtime["overrides"] == ["a=b"]


def test_a_folder_in_use_is_refused(opened):
    folder = opened().folder
    with hold(folder / ".lock"), pytest.raises(StoreError, match="another process is writing in"):
        opened()


def test_a_question_that_reads_differently_is_refused_and_an_unanswered_one_may_change(opened, videos):
    first, *rest = make_questions(videos)
    changed = dataclasses.replace(first, prompt="Which one?")
    with pytest.raises(UserError, match="question v0-q0 of the cell reads differently from when it was answered"):
        opened([changed, *rest])
    new = dataclasses.replace(first, question_id="new")
    opened([new, *rest])
    opened([dataclasses.replace(new, prompt="Which one?"), *rest])


def test_questions_not_asked_this_time_stay_recorded_on_request(opened, videos):
    few = make_questions(videos[:1])
    assert len(read_questions(opened(few, keep_others=True).folder)) == 9
    assert len(read_questions(opened(few).folder)) == 3


def test_the_same_videos_pass_wherever_they_lie_and_absent_ones_too(opened, videos, tmp_path):
    check_videos(tmp_path, [opened()])
    moved = [path.rename(path.with_name(f"moved-{path.name}")) for path in videos]
    questions = [
        dataclasses.replace(q, video=q.video.with_name(f"moved-{q.video.name}")) for q in make_questions(videos)
    ]
    cell = opened()
    check_videos(tmp_path, [dataclasses.replace(cell, questions=questions)])
    assert all(path.exists() for path in moved)
    check_videos(tmp_path, [cell]), "absent videos say nothing about what was answered"


@pytest.mark.parametrize("how", ["replaced", "repointed"])
def test_another_file_under_an_answered_question_is_an_error_whose_command_drops_those_answers(
    opened, videos, tmp_path, how
):
    cell = opened()
    if how == "replaced":
        make_video(tmp_path, "v1", frames=8)
    else:
        questions = [
            dataclasses.replace(q, video=videos[0]) if q.video == videos[1] else q for q in make_questions(videos)
        ]
        cell = dataclasses.replace(cell, questions=questions)
    message = r"1 videos are other files than those that were answered, the first is .*v[01]\.mp4: .*Put the old files"
    with pytest.raises(UserError, match=message) as caught:
        check_videos(tmp_path, [cell])
    command = re.search(r"^  (sed .*)$", str(caught.value), re.M)[1]
    subprocess.run(command, shell=True, check=True)
    left = read_answers(cell.folder)
    assert sorted(left) == sorted(f"v{i}-q{j}" for i in (0, 2) for j in range(3))
    check_videos(tmp_path, [dataclasses.replace(cell, answers=left)])


def test_failed_answers_bind_nothing(opened, videos, tmp_path):
    cell = opened()
    failed = {k: dataclasses.replace(a, status="failed", error={"type": "E"}) for k, a in cell.answers.items()}
    make_video(tmp_path, "v1", frames=8)
    check_videos(tmp_path, [dataclasses.replace(cell, answers=failed)])
