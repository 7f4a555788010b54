"""What is left to do and who does it: nice python -m pytest tests/run/test_work.py"""

import pytest
from fake_model import make_cell, make_order, make_questions, make_video

from harness.errors import UserError
from harness.run.work import OpenCell, check_present, find_work, share_of, still_needed
from harness.settings.groups import RunConfig
from harness.store import Answer, AnswerLog, outcomes_of


@pytest.fixture
def videos(tmp_path):
    return [make_video(tmp_path, f"v{i}", size=100 * i) for i in range(6)]


def failed(question, start):
    return Answer(question, "v", "failed", error={"type": "E", "message": "m"}, start=start, time="2999-01-01")


def test_questions_of_a_video_stand_together_each_in_all_cells_longest_video_first(tmp_path, videos):
    questions = make_questions(videos, 2)
    held = outcomes_of({"v5-q0": Answer("v5-q0", "v5", "ok")}, ())
    nothing = outcomes_of({}, ())
    cells = [OpenCell(make_cell(c), tmp_path / str(c), questions, held if c == 1 else nothing) for c in (1, 2)]
    work = find_work("name", cells, RunConfig())
    assert [video.path.stem for video in work.videos] == ["v5", "v4", "v3", "v2", "v1", "v0"]
    assert [(a.question.question_id, a.cell) for a in work.videos[0].asks] == [("v5-q1", 0), ("v5-q1", 1), ("v5-q0", 1)]
    assert work.asks == 23
    by_length = find_work("name", cells, RunConfig(), {path: float(9 - i) for i, path in enumerate(videos)})
    assert [video.path.stem for video in by_length.videos] == ["v0", "v1", "v2", "v3", "v4", "v5"]
    alone = find_work("name", cells, RunConfig(sharing=False))
    assert len(alone.videos) == 23 and {len(video.asks) for video in alone.videos} == {1}


def test_shares_are_disjoint_complete_balanced_and_longest_first(tmp_path, videos):
    order = make_order(tmp_path, videos, workers=4)
    shares = [[work.path for siblings in share_of(order, i) for work in siblings.videos] for i in range(4)]
    assert sorted(path for share in shares for path in share) == sorted(videos)
    assert {len(share) for share in shares} == {1, 2}
    for share in shares:
        sizes = [path.stat().st_size for path in share]
        assert sizes == sorted(sizes, reverse=True)
    assert not share_of(make_order(tmp_path, videos[:1], workers=2), 1), "siblings without a video are left out"


def test_a_restarted_worker_leaves_out_what_this_start_answered_or_tried_whatever_the_clock_says(tmp_path, videos):
    order = make_order(tmp_path, videos[:2], contexts=(100,), run=RunConfig(retry="failed"), stamp="now")
    (siblings,) = order.siblings
    with AnswerLog(siblings.folders[0]) as log:
        log.append(Answer("v0-q0", "v0", "ok"))
        log.append(failed("v0-q1", "now"))
        log.append(failed("v0-q2", "before"))
        for i in range(3):
            log.append(Answer(f"v1-q{i}", "v1", "ok"))
    (left,) = still_needed(siblings, order).videos
    assert [ask.question.question_id for ask in left.asks] == ["v0-q2"], "failed before, dated in the future"


def test_one_absent_video_of_many_is_left_to_its_questions_and_more_stop_the_run(tmp_path):
    videos = [make_video(tmp_path, f"v{i}") for i in range(11)]
    order = make_order(tmp_path, videos)
    videos[0].unlink()
    check_present(order.siblings)
    videos[1].unlink()
    with pytest.raises(UserError, match="2 of 11 videos are absent, the first is .*v0.mp4.*python -m harness prepare"):
        check_present(order.siblings)
