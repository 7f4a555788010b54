"""Rates: measured at the same setting or not at all, per video and per answer."""

import pytest

from harness.plan.plan import Work, answer_key, clock, encode_key, measured_rates
from harness.store import Answer, AnswerLog, Manifest, write_manifest


def record(**changes):
    cell = {
        "name": "cell",
        "variant": "full",
        "model": {"dtype": "float32"},
        "weights": "w",
        "video": {"max_frames": 256, "fps": 2.0, "window": 128, "timeout_s": 9.0},
        "method": {"name": "adaretake", "semantics": "paper"},
        "context": 259,
    }
    for path, value in changes.items():
        group, _, field = path.partition("__")
        cell[group] = {**cell[group], field: value} if field else value
    return cell


def write(results, name, cell, shares, generate, device="cpu"):
    """`shares`: video -> seconds of its decoding and encoding that one of its two answers carries."""
    folder = results / "runs" / name
    write_manifest(folder, Manifest(name, "0", cell, device=device))
    with AnswerLog(folder) as log:
        for video, share in shares.items():
            for k in range(2):
                seconds = {"frames": 0.0, "encode": share, "generate": generate}
                log.append(Answer(f"{video}{k}", video, "ok", text="A", n_video=1000, seconds=seconds))


def test_a_video_costs_once_and_an_answer_each_time(tmp_path):
    # Two siblings: each video took 4 x 0.5 s for their four answers; an answer takes 0.1 s, or 0.3 s at more context.
    write(tmp_path, "a", record(), {"v": 0.5, "w": 0.5}, 0.1)
    write(tmp_path, "b", record(context=999), {"v": 0.5, "w": 0.5}, 0.3)
    rates = measured_rates(tmp_path, [record()])["cpu"]
    assert rates.seconds(Work(record(), 1000, 0)) == pytest.approx(2.0)
    assert rates.seconds(Work(record(), 0, 1000)) == pytest.approx(0.1)
    assert rates.seconds(Work(record(context=999), 1000, 3000)) == pytest.approx(2.0 + 0.9)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "other"},
        {"model__dtype": "bfloat16"},
        {"video__max_frames": 64},
        {"video__fps": 1.0},
        {"context": 100},
        {"method__name": "random"},
        {"method__semantics": "release_2025"},
        {"variant": "no_both"},
    ],
)
def test_no_setting_is_judged_by_another(tmp_path, changes):
    write(tmp_path, "a", record(), {"v": 0.5}, 0.1)
    other = record(**changes)
    rates = measured_rates(tmp_path, [record(), other])["cpu"]
    assert rates.seconds(Work(other, 1000, 1000)) is None
    assert rates.seconds(Work(record(), 1000, 1000)) is not None


def test_another_task_or_window_is_the_same_setting():
    same = record(video__window=4) | {"task": {"name": "other"}, "name": "x"}
    assert (encode_key(same), answer_key(same)) == (encode_key(record()), answer_key(record()))


def test_devices_are_kept_apart_and_foreign_folders_are_left_unread(tmp_path):
    write(tmp_path, "a", record(), {"v": 0.5}, 0.1)
    write(tmp_path, "b", record(), {"v": 5.0}, 1.0, device="other")
    write(tmp_path, "c", record(weights="foreign"), {"v": 0.5}, 0.1)
    (tmp_path / "runs" / "c" / "answers.jsonl").write_text("{damaged\n{damaged\n")
    (tmp_path / "runs" / "d").mkdir()
    rates = measured_rates(tmp_path, [record()])
    assert {device: own.seconds(Work(record(), 0, 1000)) for device, own in rates.items()} == {
        "cpu": pytest.approx(0.1),
        "other": pytest.approx(1.0),
    }
    assert measured_rates(tmp_path / "nothing", [record()]) == {}


def test_failed_answers_and_those_without_times_do_not_count(tmp_path):
    write(tmp_path, "a", record(), {"v": 0.5}, 0.1)
    with AnswerLog(tmp_path / "runs" / "a", "1") as log:
        log.append(
            Answer("x", "v", "failed", error={"type": "E", "message": "m"}, n_video=1000, seconds={"generate": 9.0})
        )
        log.append(Answer("y", "v", "ok", text="A", n_video=1000))
    assert measured_rates(tmp_path, [record()])["cpu"].seconds(Work(record(), 0, 1000)) == pytest.approx(0.1)


@pytest.mark.parametrize(("seconds", "text"), [(35, "35 s"), (300, "5.0 min"), (36_000, "10.0 h"), (9e6, "2,500.0 h")])
def test_clock(seconds, text):
    assert clock(seconds) == text
