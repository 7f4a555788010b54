"""`verify` on videos that can be decoded, and on missing, empty, cut and crashing ones."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from harness.benchmarks.questions import functions
from harness.config import compose_config
from harness.fetch import verify


def write_video(path: Path, n: int = 12) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(n):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * i % 256, np.uint8), format="rgb24")
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
    assert all(outcome["error"] is None and outcome["frames"] == 3 for outcome in report["decoded"].values())
    assert report["known_defects"]
    out = capsys.readouterr()
    assert "2 count" in out.out and "2/2 videos, 0 with problems" in out.err


@pytest.mark.parametrize("spoil", ["missing", "empty", "cut"])
def test_a_spoilt_video_is_named(broken_root, tmp_path, monkeypatch, capsys, spoil):
    monkeypatch.setattr(verify, "check_counts", lambda *args: [])
    path = broken_root / "lvbench" / "videos" / "Cm73ma6Ibcs.mp4"
    if spoil == "missing":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if spoil == "cut" else b"")
    code, report = run(broken_root, tmp_path)
    assert code == 1
    assert [(p["kind"], p["what"]) for p in report["problems"]] == [
        ("missing" if spoil == "missing" else "damaged", str(path))
    ]
    assert str(path) in capsys.readouterr().out


def test_nothing_wrong_with_the_toy_is_zero(broken_root, tmp_path, capsys):
    """The published counts are not asked of it."""
    (broken_root / "manifest.json").write_text('{"complete": true, "build": {"generator": "0"}}')
    code, report = run(broken_root, tmp_path)
    assert code == 0 and report["problems"] == [] and "no problem" in capsys.readouterr().out


def die_on_bad(path: Path) -> dict:
    if path.name.startswith("bad"):
        os._exit(11)
    return {"error": None}


def test_a_decoder_that_crashes_costs_its_own_video_only():
    videos = [Path(f"{'bad' if i == 1 else 'good'}{i}.mp4") for i in range(4)]
    found = dict(verify.decode_all(videos, die_on_bad, workers=2))
    assert set(found) == set(videos)
    assert {p for p, outcome in found.items() if outcome["error"]} == {videos[1]}


def test_rows_and_prompts_that_are_wrong(root, tmp_path, task):
    module = functions("lvbench")
    rows = module.load(root)
    rows[1] = {**rows[1], "uid": rows[0]["uid"]}
    rows[2] = {**rows[2], "answer": "E"}
    rows[3] = {**rows[3], "question": "No options?"}
    problems = verify.check_rows(rows, task("lvbench"), module)
    assert {(p["what"], p["message"]) for p in problems} == {
        ("1", "2 questions have this id"),
        ("3", "its answer E is no option"),
        ("4", "has 0 options"),
    }
    shutil.copytree(root / "longvideobench", tmp_path / "longvideobench")
    next((tmp_path / "longvideobench" / "subtitles").iterdir()).unlink()
    module = functions("longvideobench")
    problems = verify.check_prompts(
        module.load(tmp_path), task("longvideobench", "release_subtitles", split="val"), module, tmp_path
    )
    assert len(problems) == 1 and "a subtitle file is missing" in problems[0]["message"]


def test_the_two_needle_rows_are_no_problem_of_the_release(root, task):
    module = functions("mlvu")
    rows = [row for row in module.load(root, "dev") if row["folder"].endswith("needle")]
    assert verify.check_rows(rows, task("mlvu", split="dev"), module) == []
    (problem,) = verify.check_rows(rows, task("mlvu", "lmms_eval", split="dev"), module)
    assert problem["message"] == "its answer is no candidate"


def test_counts_by_type(root):
    module = functions("mlvu")
    rows = module.load(root, "dev")
    counts = {"questions": 9, "videos": 7, "question_type": {"plotQA": 4, "ego": 1}}
    assert [p["what"] for p in verify.check_counts(rows, counts, module)] == ["question_type ego"]


SHARED = Path(__file__).resolve().parents[3] / "shared" / "videos"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not on this machine")
def test_real_files():
    found = {path.name: verify.decode_ends(path, "decord", 60.0) for path in sorted(SHARED.iterdir())}
    assert {name for name, outcome in found.items() if outcome["error"]} == {"corrupted.mp4"}
    assert found["h265_video.mp4"]["codec"] == "hevc"
    assert {outcome["frames"] for outcome in found.values() if not outcome["error"]} == {3}
