"""Old answers are never taken for answers to something else: nice python -m pytest tests/run/test_opening.py"""

import contextlib
import dataclasses

import pytest
from fake_model import make_cell, make_questions, make_video

from harness.digest import file_digest
from harness.errors import UserError
from harness.run.work import open_folder
from harness.settings.groups import EngineConfig, RunConfig
from harness.store import Answer, AnswerLog, StoreError, hold, read_manifest, read_questions

RUNTIME = {"overrides": ["a=b"], "run": vars(RunConfig()), "engine": vars(EngineConfig())}


@pytest.fixture
def videos(tmp_path):
    return [make_video(tmp_path, f"v{i}", size=i) for i in range(3)]


@pytest.fixture
def opened(tmp_path, videos):
    """Opens the cell's folder again and again, with every question answered the first time."""

    def call(questions=None, **more):
        with contextlib.ExitStack() as locks:
            folder = tmp_path / "runs" / "the cell"
            return open_folder(make_cell(), folder, questions or make_questions(videos), RUNTIME, locks, **more)

    cell = call()
    with AnswerLog(cell.folder) as log:
        for q in cell.questions:
            log.append(
                Answer(q.question_id, q.video_id, "ok", "A", prompt_digest=q.digest, video_digest=file_digest(q.video))
            )
    return call


def test_opening_writes_manifest_and_questions_and_returns_the_answers(opened):
    cell = opened()
    assert len(cell.outcomes.of) == 9 and [q.question_id for q in read_questions(cell.folder)][0] == "v0-q0"
    manifest = read_manifest(cell.folder)
    assert manifest.digest == cell.cell.digest and manifest.runtime["overrides"] == ["a=b"]


def test_what_the_plan_read_counts_until_something_is_written(opened):
    cell = opened()
    known = dataclasses.replace(cell.outcomes, of={})
    assert opened(known=known).outcomes is known
    with AnswerLog(cell.folder, "1") as log:
        log.append(Answer("v0-q0", "v0", "ok", "A", prompt_digest=cell.questions[0].digest))
    assert set(opened(known=known).outcomes.of) == set(cell.outcomes.of)


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
