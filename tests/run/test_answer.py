"""nice python -m pytest tests/run/test_answer.py"""

import re

import pytest
from fake_model import FakeFrames, FakeResponder, make_order, make_video

from harness.benchmarks.parse import parse_letter
from harness.config import RunConfig
from harness.errors import UserError
from harness.run.answer import Loop, Streak
from harness.run.status import Board, GroupStatus
from harness.store import AnswerLog, iter_answers, read_answers


def run(order, responder=None, limit=5, parse=parse_letter):
    """Run the order's only group in this process; return its board."""
    group = order.groups[0]
    board = Board("0")
    board.plan([GroupStatus(group.name, len(group.videos), answers=group.asks)])
    logs = [AnswerLog(cell.folder) for cell in group.cells]
    try:
        frames = FakeFrames(group.cells[0].cell, order.run)
        Loop(group, responder or FakeResponder(), logs, frames, board, parse, Streak(limit), "start").run()
    finally:
        for log in logs:
            log.close()
    return board


def folders(tmp_path):
    return sorted((tmp_path / "runs").iterdir())


def test_each_video_is_decoded_and_encoded_once_for_all_questions_and_cells(tmp_path):
    videos = [make_video(tmp_path, f"v{i}", frames=6 + i) for i in range(3)]
    responder = FakeResponder()
    counters = run(make_order(tmp_path, videos), responder).counters
    assert sorted(responder.encoded) == [6, 7, 8]
    assert (counters.videos_decoded, counters.videos_encoded) == (3, 3)
    assert counters.encoder_windows == 6, "windows of 4 frames: 6, 7 and 8 frames need two each"
    assert (counters.frames, counters.answers, counters.failed) == (21, 18, 0)
    for folder in folders(tmp_path):
        assert len(read_answers(folder)) == 9


def test_sharing_off_decodes_for_every_answer_and_answers_the_same(tmp_path):
    videos = [make_video(tmp_path, f"v{i}") for i in range(2)]
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    run(make_order(shared, videos))
    counters = run(make_order(alone, videos, sharing=False)).counters
    assert (counters.videos_decoded, counters.videos_encoded, counters.answers) == (12, 12, 12)

    def texts(root):
        return [{k: a.text for k, a in sorted(read_answers(f).items())} for f in folders(root)]

    assert texts(shared) == texts(alone)


def test_an_answer_holds_what_the_contract_lists(tmp_path):
    run(make_order(tmp_path, [make_video(tmp_path, "v")], contexts=(100,)))
    answer = read_answers(folders(tmp_path)[0])["v-q1"]
    assert (answer.video_id, answer.status, answer.text) == ("v", "ok", "(B)")
    assert (answer.n_prompt, answer.n_video, answer.n_new, answer.n_cache_mean) == (100, 80, 2, 15.0)
    assert (answer.cache_length, answer.chunk_budget, answer.peak_memory) == ([10, 20], [5, 5], 1000)
    assert (answer.frame_indices, answer.timestamps) == ([0, 2, 4, 6, 8, 10], [0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    assert (answer.sampling_fps, answer.backend) == (2.0, "fake")
    assert set(answer.seconds) == {"frames", "encode", "generate"} and answer.error is None


def test_a_second_start_asks_only_what_is_missing(tmp_path):
    videos = [make_video(tmp_path, f"v{i}") for i in range(3)]
    run(make_order(tmp_path, videos[:2]))
    order = make_order(tmp_path, videos)
    assert [work.path for work in order.groups[0].videos] == [videos[2]] and order.groups[0].answered == 12
    assert run(order).counters.answers == 6
    assert make_order(tmp_path, videos).groups[0].videos == ()
    for folder in folders(tmp_path):
        held = [a.question_id for a in iter_answers(folder / "answers.jsonl")]
        assert len(held) == len(set(held)) == 9


@pytest.mark.parametrize("fail", ["decode", "absent"])
def test_a_damaged_video_fails_alone_with_its_reason(tmp_path, fail):
    bad = make_video(tmp_path, "bad", fail=fail, frames=8)
    order = make_order(tmp_path, [bad, make_video(tmp_path, "good")])
    if fail == "absent":
        bad.unlink()
    counters = run(order).counters
    assert (counters.answers, counters.failed) == (6, 6)
    for folder in folders(tmp_path):
        answers = read_answers(folder)
        for i in range(3):
            error = answers[f"bad-q{i}"].error
            assert error["type"] == "VideoError" and "bad.json" in error["message"]
            assert answers[f"good-q{i}"].ok


def test_any_number_of_damaged_videos_never_stops_a_run(tmp_path):
    videos = [make_video(tmp_path, f"v{i}", fail="decode") for i in range(7)]
    assert run(make_order(tmp_path, videos), limit=2).counters.failed == 42


def test_failed_questions_are_asked_again_on_request_only(tmp_path):
    bad = make_video(tmp_path, "bad", fail="decode")
    run(make_order(tmp_path, [bad]))
    make_video(tmp_path, "bad")
    assert make_order(tmp_path, [bad]).groups[0].asks == 0
    retry = make_order(tmp_path, [bad], run=RunConfig(retry="failed"))
    assert retry.groups[0].asks == 6
    run(retry)
    assert all(answer.ok for folder in folders(tmp_path) for answer in read_answers(folder).values())
    assert make_order(tmp_path, [bad], run=RunConfig(retry="failed")).groups[0].asks == 0


def test_out_of_memory_fails_the_video_in_that_cell_with_advice_and_the_run_goes_on(tmp_path):
    big = make_video(tmp_path, "big", fail="memory", cells=[200])
    counters = run(make_order(tmp_path, [big, make_video(tmp_path, "small")])).counters
    assert (counters.answers, counters.failed) == (9, 3)
    small, large = folders(tmp_path)
    assert all(answer.ok for answer in read_answers(small).values())
    answer = read_answers(large)["big-q0"]
    assert answer.error["type"] == "OutOfMemory"
    lower = r"Lower one of video\.max_frames=8, method\.chunk_frames=32, video\.window=4"
    advice = rf"20\.00 GiB\. {lower}.*run\.retry=failed"
    assert re.search(advice, answer.error["message"])


def test_a_bug_at_one_question_is_stored_with_type_and_message(tmp_path, caplog):
    bug = make_video(tmp_path, "bug", fail="bug", cells=[100])
    with caplog.at_level("ERROR", "harness"):
        counters = run(make_order(tmp_path, [bug, make_video(tmp_path, "good")])).counters
    assert (counters.answers, counters.failed) == (9, 3)
    assert read_answers(folders(tmp_path)[0])["bug-q0"].error == {"type": "KeyError", "message": "'layer 3'"}
    assert "Traceback" in caplog.text and "fake_model.py" in caplog.text


def test_videos_in_a_row_failing_alike_stop_the_run(tmp_path):
    videos = [make_video(tmp_path, f"v{i}", fail="bug") for i in range(9)]
    with pytest.raises(UserError, match=r"3 videos in a row failed with KeyError: 'layer 3'.*run\.retry=failed"):
        run(make_order(tmp_path, videos), limit=3)
    assert [len(read_answers(folder)) for folder in folders(tmp_path)] == [9, 9], "what was tried is stored"


def test_a_video_that_works_or_is_damaged_breaks_or_spares_the_row(tmp_path):
    kinds = ["bug", "bug", None, "bug", "decode", "bug"]
    videos = [make_video(tmp_path, f"v{i}", fail=kind, frames=20 - 2 * i) for i, kind in enumerate(kinds)]
    order = make_order(tmp_path, videos)
    by_name = sorted(order.groups[0].videos, key=lambda work: work.video_id)
    object.__setattr__(order.groups[0], "videos", tuple(by_name))
    assert run(order, limit=3).counters.failed == 30


def test_a_setting_that_cannot_work_stops_at_once(tmp_path):
    videos = [make_video(tmp_path, "v0", fail="user"), make_video(tmp_path, "v1")]
    with pytest.raises(UserError, match=r"raise context\.tokens"):
        run(make_order(tmp_path, videos))
    assert not any(read_answers(folder) for folder in folders(tmp_path))


def test_ctrl_c_keeps_what_was_answered(tmp_path):
    videos = [make_video(tmp_path, "a", title="longer file, so first"), make_video(tmp_path, "b", fail="interrupt")]
    with pytest.raises(KeyboardInterrupt):
        run(make_order(tmp_path, videos))
    assert [len(read_answers(folder)) for folder in folders(tmp_path)] == [3, 3]
    assert run(make_order(tmp_path, videos)).counters.answers == 6
    assert [len(read_answers(folder)) for folder in folders(tmp_path)] == [6, 6]


def test_a_full_disk_stops_the_run_and_is_no_failed_answer(tmp_path):
    order = make_order(tmp_path, [make_video(tmp_path, "v")])

    class Full(AnswerLog):
        def _write(self, data):
            raise OSError(28, "No space left on device")

    group, board = order.groups[0], Board("0")
    board.plan([GroupStatus(group.name)])
    logs = [Full(cell.folder) for cell in group.cells]
    with pytest.raises(UserError, match="No space left on device.*start the same command again"):
        Loop(group, FakeResponder(), logs, FakeFrames(None, None), board, parse_letter, Streak(5), "start").run()
    assert not any(read_answers(folder) for folder in folders(tmp_path))


def test_running_accuracy_and_time_are_counted(tmp_path):
    board = run(make_order(tmp_path, [make_video(tmp_path, "v", ask_seconds=0.01)]))
    group = board.status.groups[0]
    assert (group.answers, group.answers_done, group.scored, group.correct) == (6, 6, 6, 2), "gold is B, one in three"
    assert (group.videos, group.videos_done) == (1, 1)
    assert board.counters.seconds_answering >= 0.06
