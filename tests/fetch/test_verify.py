"""`verify` on videos that can be decoded, and on missing, empty, cut and crashing ones."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from harness.benchmarks.benchmark import benchmark, differences
from harness.benchmarks.files import Folder
from harness.benchmarks.questions import question_of
from harness.errors import UserError
from harness.fetch import verify
from harness.settings.compose import compose_config
from harness.settings.groups import DEFAULT_READER
from harness.video.sampling import SamplingPolicy


def write_video(path: Path, n: int = 50, size: tuple[int, int] = (64, 48)) -> None:
    width, height = size
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(n):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 5 * i % 256, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def broken_root(root, tmp_path) -> Path:
    """LVBench with one good video and one that the test spoils."""
    target = tmp_path / "data"
    shutil.copytree(root / "lvbench", target / "lvbench")
    for path in (target / "lvbench" / "videos").iterdir():
        write_video(path)
    return target


def run(root: Path, results: Path, *overrides: str) -> tuple[int, dict]:
    config = compose_config(
        ["task=lvbench", "profile=published", f"data.root={root}", f"results={results}", "data.workers=2", *overrides]
    )
    code = verify.main(config)
    return code, json.loads((results / "verify" / "lvbench.json").read_text(encoding="utf-8"))


def test_report_of_a_benchmark_that_is_whole_but_small(broken_root, tmp_path, capsys):
    code, report = run(broken_root, tmp_path)
    assert code == 1  # six questions are not the published 1549
    assert [p["kind"] for p in report["problems"]] == ["count", "count"]
    assert report["problems"][0]["message"] == "6 found, 1549 expected"
    assert all(outcome["error"] is None and outcome["frames"] == 4 for outcome in report["decoded"].values())
    assert report["known_defects"]
    out = capsys.readouterr()
    assert "2 count" in out.out and "2/2 videos, 0 with problems" in out.err


@pytest.mark.parametrize("spoil", ["missing", "empty", "cut"])
def test_a_spoilt_video_is_named(broken_root, tmp_path, monkeypatch, capsys, spoil):
    monkeypatch.setattr(verify, "differences", lambda *args: {})
    path = broken_root / "lvbench" / "videos" / "Cm73ma6Ibcs.mp4"
    if spoil == "missing":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if spoil == "cut" else b"")
    code, report = run(broken_root, tmp_path)
    assert code == 1
    assert [(p["kind"], p["what"]) for p in report["problems"]] == [
        ("missing" if spoil == "missing" else "unusable", str(path))
    ]
    assert str(path) in capsys.readouterr().out


def test_nothing_wrong_with_the_toy_is_zero(broken_root, tmp_path, capsys):
    """The published counts are not asked of it."""
    (broken_root / "manifest.json").write_text('{"complete": true, "build": {"generator": "0"}}')
    code, report = run(broken_root, tmp_path, "profile=toy")
    assert code == 0 and report["problems"] == []
    assert "lvbench of the embedded toy: 6 questions, 2 videos; no problem" in capsys.readouterr().out


def test_the_toy_is_not_the_published_benchmark(broken_root, tmp_path, capsys):
    (broken_root / "manifest.json").write_text('{"complete": true, "build": {"generator": "0"}}')
    code, report = run(broken_root, tmp_path)
    assert code == 1 and [p["kind"] for p in report["problems"]] == ["toy"]
    assert re.search(
        "holds the embedded toy, not LVBench; get that with: .* -m harness prepare", capsys.readouterr().out
    )


def die_on_bad(path: Path) -> dict:
    if path.name.startswith("bad"):
        os._exit(11)
    return {"error": None}


def test_a_decoder_that_crashes_costs_its_own_video_only():
    videos = [Path(f"{'bad' if i == 1 else 'good'}{i}.mp4") for i in range(4)]
    found = dict(verify.decode_all(videos, die_on_bad, workers=2))
    assert set(found) == set(videos)
    assert {p for p, outcome in found.items() if outcome["error"]} == {videos[1]}


def asked_rows(name: str, folder, split: str, changes: dict[int, dict] | None = None):
    asked = benchmark(name)
    rows = [row | (changes or {}).get(i, {}) for i, row in enumerate(asked.load(folder, split))]
    return rows, [asked.item(row) for row in rows], asked


def test_rows_that_are_wrong(folder, task):
    changes = {1: {"uid": "1"}, 2: {"answer": "E"}, 3: {"question": "No options?"}}
    rows, items, asked = asked_rows("lvbench", folder("lvbench"), "test", changes)
    problems = verify.check_rows(rows, items, task("lvbench"), asked)
    assert {(p["what"], p["message"]) for p in problems} == {
        ("1", "2 questions have this id"),
        ("3", "its answer E is no option"),
        ("4", "has 0 options"),
    }


def test_questions_that_cannot_be_asked(root, tmp_path, task):
    shutil.copytree(root / "longvideobench", tmp_path / "longvideobench")
    missing, damaged, *_ = sorted((tmp_path / "longvideobench" / "subtitles").iterdir())
    missing.unlink()
    damaged.write_text('[{"line": ')
    place = Folder(tmp_path, "longvideobench", "longvideobench")
    rows, items, asked = asked_rows("longvideobench", place, "val", {2: {"question": "x" * 200_000}})
    setting = task("longvideobench", "release_subtitles", split="val")
    problems = verify.check_questions(rows, items, setting, asked, place)
    assert [p["message"].split(":")[0].split(" has ")[0] for p in problems] == [
        "a subtitle file is missing",
        f"the subtitles {damaged} cannot be read",
        "question 86CxyhFV9M2_0",
    ]


def test_subtitles_are_verified_without_a_tokenizer(root, folder, task, monkeypatch):
    """How much of them is asked only a model's tokenizer tells; nothing is fetched to know."""
    monkeypatch.setattr("harness.benchmarks.subtitles.VIDEOMME_TOKENS", 3)
    monkeypatch.setattr("harness.benchmarks.subtitles.cut_to_tokens.__defaults__", (3,))
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("went to the network"))
    monkeypatch.setenv("ADARETAKE_TOKENIZER", "Qwen/Qwen2.5-VL-7B-Instruct")
    rows, items, asked = asked_rows("videomme", folder("videomme"), "test")
    setting = task("videomme", "release_subtitles")
    with pytest.raises(UserError, match="tokens of the model's tokenizer"):
        question_of(asked, rows[-1], items[-1], setting.protocol, folder("videomme"))
    assert verify.check_questions(rows, items, setting, asked, folder("videomme")) == []


def test_the_two_needle_rows_are_no_problem_of_the_release(folder, task):
    rows, items, asked = asked_rows("mlvu", folder("mlvu"), "dev")
    assert verify.check_rows(rows, items, task("mlvu", split="dev"), asked) == []
    (problem,) = verify.check_rows(rows, items, task("mlvu", "lmms_eval", split="dev"), asked)
    assert problem["message"] == "its answer is no candidate"


def test_counts_by_type(folder):
    _, items, asked = asked_rows("mlvu", folder("mlvu"), "dev")
    counts = {"dev": {"questions": 9, "videos": 7, "question_type": {"plotQA": 4, "ego": 1}}}
    small = dataclasses.replace(asked, counts=counts)
    assert differences(items, small, "dev") == {"question_type ego": "0 found, 1 expected"}


@pytest.mark.parametrize(
    ("frames", "size", "problem"),
    [(1, (96, 64), "has 1 frame, the model needs 2"), (3, (96, 64), "too short"), (50, (1344, 6), "at most 200:1")],
    ids=["0.04s", "0.12s", "224:1"],
)
def test_a_video_that_a_run_refuses_is_refused(broken_root, tmp_path, monkeypatch, frames, size, problem):
    monkeypatch.setattr(verify, "differences", lambda *args: {})
    path = broken_root / "lvbench" / "videos" / "Cm73ma6Ibcs.mp4"
    write_video(path, frames, size)
    code, report = run(broken_root, tmp_path, "profile=published")
    assert code == 1
    (found,) = report["problems"]
    assert found["kind"] == "unusable" and found["what"] == str(path) and problem in found["message"]


def test_the_policy_is_the_strictest_of_the_matrix():
    config = compose_config(["profile=published", "task=videomme", "matrix.fps=[4,0.5]", "matrix.frames=[64,32]"])
    policy = verify.extreme_policy(min, config.video, config.matrix, "videomme", config.model.name)
    assert (policy.fps, policy.max_frames, policy.long_side) == (0.5, 32, 448)


SHARED = Path(__file__).resolve().parents[3] / "shared" / "videos"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not on this machine")
def test_real_files():
    policy = SamplingPolicy(fps=25.0, max_frames=64)
    found = {
        path.name: verify.decode_frames(path, policy, policy, DEFAULT_READER, 60.0) for path in sorted(SHARED.iterdir())
    }
    assert {name for name, outcome in found.items() if outcome["error"]} == {"corrupted.mp4"}
    assert found["h265_video.mp4"]["codec"] == "hevc"


HOLE = Path(__file__).resolve().parents[1] / "cases" / "hole.mp4"


def test_a_hole_in_the_middle_is_found_by_all_frames_and_the_quick_mode_says_what_it_is(broken_root, tmp_path, capsys):
    path = broken_root / "lvbench" / "videos" / "Cm73ma6Ibcs.mp4"
    path.write_bytes(HOLE.read_bytes())
    code, report = run(broken_root, tmp_path, "profile=published")
    assert code == 1 and str(path) in [found["what"] for found in report["problems"]]
    assert "quick" not in capsys.readouterr().out and not report["quick"]
    run(broken_root, tmp_path, "profile=published", "data.quick=true")
    assert "three frames of each video" in capsys.readouterr().out


def test_what_is_no_file_is_named_without_waiting_for_it(broken_root, tmp_path):
    path = broken_root / "lvbench" / "videos" / "Cm73ma6Ibcs.mp4"
    path.unlink()
    os.mkfifo(path)
    code, report = run(broken_root, tmp_path, "profile=published")
    (problem,) = [found for found in report["problems"] if found["what"] == str(path)]
    assert code == 1 and "is not a regular file" in problem["message"]
