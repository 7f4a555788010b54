"""nice python -m pytest tests/run/test_loop.py"""

import dataclasses
import re

import fake_model
import pytest
from fake_model import FakeAdapter, make_order, make_video

from harness.digest import file_digest
from harness.errors import UserError
from harness.run.failures import Streak
from harness.run.frames import Frames
from harness.run.loop import Loop
from harness.run.status import StatusFile, status_path
from harness.settings.groups import DEFAULT_READER, RunConfig
from harness.store import AnswerLog, FrameRecords, StoreError, iter_answers, read_answers


def run(order, adapter=None, limit=5, log=AnswerLog, frames=Frames):
    """Run the order's only siblings in this process; return the counters."""
    (siblings,) = order.siblings
    status = StatusFile(status_path(order.logs, 0, 0), "0")
    logs = [log(folder) for folder in siblings.folders]
    try:
        frames = frames(siblings.cells, order.run)
        Loop(siblings, adapter or FakeAdapter(), logs, frames, status, Streak(limit), order.start).run()
    finally:
        for each in logs:
            each.close()
    return status.counters


def folders(tmp_path):
    return sorted((tmp_path / "runs").iterdir())


def test_each_video_is_encoded_once_for_all_questions_and_cells(tmp_path):
    videos = [make_video(tmp_path, f"v{i}") for i in range(4)]
    adapter = FakeAdapter()
    order = make_order(tmp_path, videos, contexts=(100, 200, 300))
    assert order.siblings[0].asks == 4 * 3 * 3
    counters = run(order, adapter)
    assert adapter.encoded == [6] * 4
    assert (counters.videos_encoded, counters.videos_decoded, counters.answers) == (4, 4, 36)
    assert (counters.frames, counters.encoder_windows, counters.videos_done) == (24, 8, 4)
    for folder in folders(tmp_path):
        answers = read_answers(folder)
        assert len(answers) == 12 and {a.text for a in answers.values()} == {"(A)", "(B)", "(C)"}


def test_without_sharing_every_answer_decodes_for_itself(tmp_path):
    videos = [make_video(tmp_path, f"v{i}") for i in range(2)]
    counters = run(make_order(tmp_path, videos, sharing=False))
    assert (counters.videos_encoded, counters.answers) == (12, 12)


def test_an_answer_carries_what_was_seen_and_kept(tmp_path):
    (video,) = videos = [make_video(tmp_path, "v")]
    run(make_order(tmp_path, videos))
    answer = read_answers(folders(tmp_path)[0])["v-q1"]
    assert (answer.video_id, answer.status, answer.text, answer.start) == ("v", "ok", "(B)", "start")
    assert answer.video_digest == file_digest(video)
    assert (answer.n_prompt, answer.n_video, answer.n_new, answer.n_cache_mean) == (100, 80, 2, 15.0)
    assert (answer.cache_length, answer.chunk_budget, answer.peak_memory) == ([10, 20], [5, 5], None)
    assert (answer.kept_digest, answer.n_encoded) == ("0123abcd", 80)
    seen = FrameRecords(tmp_path).find(answer.frames)
    assert seen.indices == (0, 14, 29, 44, 59, 74)
    assert seen.timestamps == pytest.approx([index / 25 for index in seen.indices])
    assert (answer.sampling_fps, answer.backend) == (2.0, DEFAULT_READER)
    assert set(answer.seconds) == {"frames", "encode", "generate"} and answer.error is None


def test_no_answer_is_stored_whose_frames_are_not(tmp_path):
    (tmp_path / "frames").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write .*frames"):
        run(make_order(tmp_path, [make_video(tmp_path, "v")]))
    assert not any(read_answers(folder) for folder in folders(tmp_path))


def test_frames_are_recorded_once_for_all_questions_of_all_cells(tmp_path):
    videos = [make_video(tmp_path, "a"), make_video(tmp_path, "b", frames=8)]
    run(make_order(tmp_path, videos))
    answers = [answer for folder in folders(tmp_path) for answer in read_answers(folder).values()]
    names = {answer.video_id: {a.frames for a in answers if a.video_id == answer.video_id} for answer in answers}
    assert len(answers) == 12 and {len(own) for own in names.values()} == {1}
    assert {path.stem for path in (tmp_path / "frames").iterdir()} == set.union(*names.values())


def test_a_second_start_asks_only_what_is_missing(tmp_path):
    videos = [make_video(tmp_path, f"v{i}") for i in range(3)]
    run(make_order(tmp_path, videos[:2]))
    order = make_order(tmp_path, videos)
    assert [work.path for work in order.siblings[0].videos] == [videos[2]]
    assert run(order).answers == 6
    assert make_order(tmp_path, videos).siblings[0].videos == ()
    for folder in folders(tmp_path):
        held = [a.question_id for a in iter_answers(folder / "answers.jsonl")]
        assert len(held) == len(set(held)) == 9


@pytest.mark.parametrize("fail", ["decode", "absent"])
def test_a_damaged_video_fails_alone_with_its_reason(tmp_path, fail):
    bad = make_video(tmp_path, "bad", fail=fail)
    order = make_order(tmp_path, [bad, make_video(tmp_path, "good")])
    if fail == "absent":
        bad.unlink()
    counters = run(order)
    assert (counters.answers, counters.failed) == (6, 6)
    for folder in folders(tmp_path):
        answers = read_answers(folder)
        for i in range(3):
            error = answers[f"bad-q{i}"].error
            assert error["type"] == "VideoError" and "bad.mp4" in error["message"]
            assert answers[f"good-q{i}"].ok


def test_any_number_of_damaged_videos_never_stops_a_run(tmp_path):
    videos = [make_video(tmp_path, f"v{i}", fail="decode") for i in range(4)]
    assert run(make_order(tmp_path, videos, per_video=1), limit=2).failed == 8


def test_failed_questions_are_asked_again_on_request_only(tmp_path):
    bad = make_video(tmp_path, "bad", fail="decode")
    run(make_order(tmp_path, [bad]))
    make_video(tmp_path, "bad")
    assert make_order(tmp_path, [bad]).siblings[0].asks == 0
    retry = make_order(tmp_path, [bad], run=RunConfig(retry="failed"))
    assert retry.siblings[0].asks == 6
    run(retry)
    assert all(answer.ok for folder in folders(tmp_path) for answer in read_answers(folder).values())
    assert make_order(tmp_path, [bad], run=RunConfig(retry="failed")).siblings[0].asks == 0


def test_out_of_memory_fails_the_video_in_that_cell_with_advice_and_the_run_goes_on(tmp_path):
    big = make_video(tmp_path, "big", fail="memory", cells=[200])
    counters = run(make_order(tmp_path, [big, make_video(tmp_path, "small")]))
    assert (counters.answers, counters.failed) == (9, 3)
    small, large = folders(tmp_path)
    assert all(answer.ok for answer in read_answers(small).values())
    answer = read_answers(large)["big-q0"]
    assert answer.error["type"] == "OutOfMemory"
    lower = r"Lower one of video\.max_frames=32, method\.chunk_frames=32, video\.window=4"
    advice = rf"20\.00 GiB\. {lower}.*run\.retry=failed"
    assert re.search(advice, answer.error["message"])


def test_a_bug_at_one_question_is_stored_with_type_and_message(tmp_path, caplog):
    bug = make_video(tmp_path, "bug", fail="bug", cells=[100])
    with caplog.at_level("ERROR", "harness"):
        counters = run(make_order(tmp_path, [bug, make_video(tmp_path, "good")]))
    assert (counters.answers, counters.failed) == (9, 3)
    assert read_answers(folders(tmp_path)[0])["bug-q0"].error == {"type": "KeyError", "message": "'layer 3'"}
    assert "Traceback" in caplog.text and "fake_model.py" in caplog.text


def test_a_question_that_cannot_be_asked_fails_alone_and_its_reason_holds_no_control_codes(tmp_path):
    long = make_video(tmp_path, "long", fail="question", cells=[100])
    counters = run(make_order(tmp_path, [long, make_video(tmp_path, "good")]))
    assert (counters.answers, counters.failed) == (9, 3)
    answer = read_answers(folders(tmp_path)[0])["long-q0"]
    assert answer.error["type"] == "QuestionError" and "takes 300 tokens" in answer.error["message"]
    assert "\x1b" not in answer.error["message"] and r"\x1b[2J" in answer.reason


def test_a_question_with_a_problem_fails_unasked_and_the_rest_goes_on(tmp_path, monkeypatch):
    first, *others = fake_model.make_questions([make_video(tmp_path, "v")])
    asked = [dataclasses.replace(first, prompt="", problem="the subtitles x.json cannot be read"), *others]
    monkeypatch.setattr(fake_model, "make_questions", lambda *_: asked)
    counters = run(make_order(tmp_path, [first.video], contexts=[100]))
    assert (counters.answers, counters.failed) == (2, 1)
    assert read_answers(folders(tmp_path)[0])["v-q0"].error == {
        "type": "QuestionError",
        "message": "the subtitles x.json cannot be read",
    }


def test_a_context_under_which_no_question_can_be_asked_stops_before_all_videos_are_encoded(tmp_path):
    videos = [make_video(tmp_path, f"v{i}", fail="question") for i in range(5)]
    with pytest.raises(UserError, match="3 videos in a row failed with QuestionError: the question takes 300"):
        run(make_order(tmp_path, videos), limit=3)


def test_videos_in_a_row_failing_alike_stop_the_run(tmp_path):
    videos = [make_video(tmp_path, f"v{i}", fail="bug") for i in range(4)]
    with pytest.raises(UserError, match=r"3 videos in a row failed with KeyError: 'layer 3'.*run\.retry=failed"):
        run(make_order(tmp_path, videos, per_video=1), limit=3)
    assert [len(read_answers(folder)) for folder in folders(tmp_path)] == [3, 3], "what was tried is stored"


def test_a_video_that_works_or_is_damaged_breaks_or_spares_the_row(tmp_path):
    kinds = ["bug", "bug", None, "bug", "decode", "bug"]
    videos = [make_video(tmp_path, f"v{i}", fail=kind, size=10_000 - 100 * i) for i, kind in enumerate(kinds)]
    order = make_order(tmp_path, videos, per_video=1)
    by_name = sorted(order.siblings[0].videos, key=lambda work: work.path)
    object.__setattr__(order.siblings[0], "videos", tuple(by_name))
    assert run(order, limit=3).failed == 10


def test_a_setting_that_cannot_work_stops_at_once(tmp_path):
    videos = [make_video(tmp_path, "v0", fail="user", size=9), make_video(tmp_path, "v1")]
    with pytest.raises(UserError, match=r"chunk_frames=3 cannot work"):
        run(make_order(tmp_path, videos))
    assert not any(read_answers(folder) for folder in folders(tmp_path))


def test_ctrl_c_keeps_what_was_answered(tmp_path):
    videos = [make_video(tmp_path, "a", size=50), make_video(tmp_path, "b", fail="interrupt")]
    with pytest.raises(KeyboardInterrupt):
        run(make_order(tmp_path, videos))
    assert [len(read_answers(folder)) for folder in folders(tmp_path)] == [3, 3]
    assert run(make_order(tmp_path, videos)).answers == 6
    assert [len(read_answers(folder)) for folder in folders(tmp_path)] == [6, 6]


def test_a_full_disk_stops_the_run_and_is_no_failed_answer(tmp_path):
    class Full(AnswerLog):
        def _write(self, data):
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left on device.*start the same command again"):
        run(make_order(tmp_path, [make_video(tmp_path, "v")]), log=Full)
    assert not any(read_answers(folder) for folder in folders(tmp_path))


def test_a_video_replaced_while_it_is_read_fails_instead_of_being_bound_to_one_of_both(tmp_path):
    video = make_video(tmp_path, "v")

    class Replacing(FakeAdapter):
        def encode(self, *arguments, **options):
            make_video(tmp_path, "v", frames=8)
            return super().encode(*arguments, **options)

    counters = run(make_order(tmp_path, [video]), Replacing())
    assert (counters.answers, counters.failed) == (0, 6)
    assert "was replaced while it was read" in read_answers(folders(tmp_path)[0])["v-q0"].reason


def test_time_is_counted_where_it_is_spent(tmp_path):
    counters = run(make_order(tmp_path, [make_video(tmp_path, "v", ask_seconds=0.01)]))
    assert counters.seconds_answering >= 0.06 and counters.seconds_waiting > 0
