"""A replaced video keeps no old answer: nice python -m pytest tests/plan/test_bound_videos.py"""

import dataclasses
import re
import subprocess

import msgspec
import pytest
from fake_model import make_questions, make_video

from harness.digest import file_digest
from harness.errors import UserError
from harness.plan.plan import check_videos
from harness.store import Answer, AnswerLog, read_answers


@pytest.fixture
def videos(tmp_path):
    return [make_video(tmp_path, f"v{i}", size=i) for i in range(3)]


@pytest.fixture
def folder(tmp_path, videos):
    """Of a cell in which every question of three videos is answered."""
    folder = tmp_path / "runs" / "the cell"
    with AnswerLog(folder) as log:
        for q in make_questions(videos):
            log.append(Answer(q.question_id, q.video_id, "ok", "A", video_digest=file_digest(q.video)))
    return folder


def check(folder, questions, answers=None):
    check_videos([(folder, questions, read_answers(folder) if answers is None else answers)])


def test_the_same_videos_pass_wherever_they_lie_and_absent_ones_too(folder, videos):
    check(folder, make_questions(videos))
    for path in videos:
        path.rename(path.with_name(f"moved-{path.name}"))
    questions = make_questions(videos)
    check(folder, [dataclasses.replace(q, video=q.video.with_name(f"moved-{q.video.name}")) for q in questions])
    check(folder, questions)  # absent videos say nothing about what was answered


@pytest.mark.parametrize("how", ["replaced", "repointed"])
def test_another_file_under_an_answered_question_is_an_error_whose_command_drops_those_answers(
    folder, videos, tmp_path, how
):
    questions = make_questions(videos)
    if how == "replaced":
        make_video(tmp_path, "v1", frames=8)
    else:
        questions = [dataclasses.replace(q, video=videos[0]) if q.video == videos[1] else q for q in questions]
    message = r"1 videos are other files than those that were answered, the first is .*v[01]\.mp4: .*Put the old files"
    with pytest.raises(UserError, match=message) as caught:
        check(folder, questions)
    command = re.search(r"^  (sed .*)$", str(caught.value), re.M)[1]
    subprocess.run(command, shell=True, check=True)
    assert sorted(read_answers(folder)) == sorted(f"v{i}-q{j}" for i in (0, 2) for j in range(3))
    check(folder, questions)


def test_failed_answers_bind_nothing(folder, videos, tmp_path):
    answers = read_answers(folder)
    failed = {k: msgspec.structs.replace(a, status="failed", error={"type": "E"}) for k, a in answers.items()}
    make_video(tmp_path, "v1", frames=8)
    check(folder, make_questions(videos), failed)
