"""The demo: what is asked, what is shown, and its errors."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from rich.console import Console
from toy_training import checkpoint
from toy_training.tokens import build_tokenizer
from verbs import composed

from harness.cli import main
from harness.errors import UserError
from harness.settings.compose import compose_config
from harness.settings.matrix import build_cells
from harness.tools.show import demo
from harness.tools.show.figure import lit
from harness.tools.show.kept import HeldFrames, Timeline, choose_grids, chunk_ends, kept_of, video_clock

QUESTION = ["--question", "What moves?", "--options", "a ball", "a box"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """The toy's shape with random weights."""
    folder = tmp_path_factory.mktemp("weights")
    checkpoint.save(checkpoint.build_model(0, build_tokenizer()), folder)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Twelve seconds at 10 fps, 84 x 56: a white square moves in the second half."""
    path = tmp_path_factory.mktemp("video") / "square.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 84, 56, "yuv420p", Fraction(1, 10)
        for number in range(120):
            picture = np.full((56, 84, 3), 60, np.uint8)
            left = max(0, number - 60)
            picture[20:36, left : left + 16] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def run(*words: str) -> int:
    return main(["demo", *words])


def test_answers_about_any_video(weights, video, tmp_path, capsys):
    picture = tmp_path / "new folder" / "demo.png"
    words = [f"model.path={weights}", "method.chunk_frames=8", "task.max_new_tokens=3", "model.device=cpu"]
    assert run("--video", str(video), *QUESTION, "--output", str(picture), *words) == 0
    out = capsys.readouterr().out
    # 24 frames are 12 grids of 2 x 3 tokens; one in eight of the 72 fits.
    assert "24 frames of 84x56" in out and "72 of them video" in out and "9 of them video (12.5%)" in out
    assert "per chunk" in out and "per layer" in out and "A. a ball" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_context_that_holds_everything_keeps_everything(weights, video, tmp_path, capsys):
    words = [f"model.path={weights}", "context.tokens=5000", "task.max_new_tokens=2", "model.device=cpu"]
    assert run("--video", str(video), *QUESTION, "--output", str(tmp_path / "a.png"), *words) == 0
    assert "the context of 5,000 holds them" in capsys.readouterr().out


def test_an_accelerator_profile_needs_a_video(capsys):
    assert run("profile=published") == 2
    assert "--video is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--video", "nowhere.mp4", *QUESTION], "--video nowhere.mp4 is not a file"),
        (["--video", "{video}"], "--question is missing"),
        (["--video", "{video}", "--question", " "], "--question is empty"),
        (["--options", "a", "b"], "--options are given without a question"),
        (["--video", "{video}", "--question", "x", "--options", *"abcdefghij"], "at most 8"),
        (["--video", "{video}", *QUESTION, "contxt.tokens=9"], "write settings before --options"),
        (["--video", "{video}", *QUESTION, "--output", "picture.gif"], "must end in .png"),
        (["--video", "{video}", "--question", "caf\udce9"], "--question holds bytes that are not UTF-8: 'caf\\udce9'"),
        (["--video", "{video}", "--question", "x", "--options", "a", "\ud800"], "--options holds bytes"),
    ],
)
def test_what_is_missing_is_named_without_a_traceback(video, capsys, words, message):
    assert run(*(word.format(video=video) for word in words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error


@pytest.mark.parametrize("damage", [lambda whole: b"not a video" * 100, lambda whole: b"", lambda whole: whole[:2000]])
def test_a_damaged_video_is_named_before_a_model_is_loaded(video, tmp_path, capsys, damage):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(damage(video.read_bytes()))
    assert run("model.path=no/such/model", "--video", str(broken), *QUESTION) == 2
    assert str(broken) in capsys.readouterr().err


def test_a_strip_of_224_to_1_is_refused_before_a_model_is_loaded(tmp_path, capsys):
    path = tmp_path / "strip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 3584, 16, "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 3584, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    assert run("model.path=no/such/model", "--video", str(path), *QUESTION) == 2
    error = capsys.readouterr().err
    assert "strip.mp4" in error and "224" in error and "Traceback" not in error


def test_control_codes_of_a_question_or_an_answer_do_not_reach_the_terminal(capsys):
    shown = demo.DemoQuestion(Path("v\x1b]0;x\x07.mp4"), "What\x1b[2J?", "", {"A": "a\x1b[31m box", "B": "b"}, "B")
    plan = SimpleNamespace(indices=range(4), sampling_fps=2.0)
    video = SimpleNamespace(path=shown.video, info=SimpleNamespace(duration_s=2.0), plan=plan, width=28, height=28)
    demo.print_answer(shown, "B \x1b[1A\x9b2J", video, "toy", Console(highlight=False))
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x9b" not in out and "\x07" not in out
    assert r"What\x1b[2J?" in out and "B. b  <- right" in out


def test_a_context_below_the_text_says_what_is_needed(weights, video, tmp_path, capsys):
    words = [f"model.path={weights}", "context.tokens=5", "model.device=cpu"]
    assert run("--video", str(video), *QUESTION, "--output", str(tmp_path / "a.png"), *words) == 2
    assert "use a context of at least" in capsys.readouterr().err


def asked_of(config, given):
    return demo.what_is_asked(given, config.profile, config.task, Path(config.data.root))


def test_settings_are_those_of_the_matrix_unless_given():
    config = compose_config([])
    cell = build_cells(config, [])[0]
    first = (config.matrix.frames[0], config.matrix.fps[0], config.matrix.context[0])
    assert (cell.video.max_frames, cell.video.fps, cell.context) == first
    cell = build_cells(compose_config(["video.max_frames=64", "context=1k", "method=none"]), [])[0]
    assert (cell.video.max_frames, cell.context) == (64, None)
    assert build_cells(compose_config(["profile=published"]), [])[0].method.semantics == "release_2026"
    words = ["profile=published", "method.semantics=paper", "context.tokens=2000"]
    cell = build_cells(compose_config(words), [])[0]
    assert (cell.method.semantics, cell.context, cell.method.reforge) == ("paper", 2000, False)


def test_without_a_video_the_toy_asks_about_its_longest(monkeypatch):
    import harness.benchmarks.questions as questions

    asked = [SimpleNamespace(video=Path(f"{n}.mp4"), prompt=f"Question {n}?\nA. x", options={"A": "x"}, answer="A",
                             video_s=(5.0, 9.0, None)[n]) for n in range(3)]  # fmt: skip
    monkeypatch.setattr(questions, "load_questions", lambda task, root: asked)
    config, asked_for = composed("demo")
    assert asked_of(config, asked_for).prompt == "Question 1?\nA. x"
    own = asked_of(config, dataclasses.replace(asked_for, question="Why?"))
    assert (own.video, own.prompt, own.answer) == (Path("1.mp4"), "Why?", None)


def test_options_become_lines_with_letters(video):
    config, given = composed("demo")
    given = dataclasses.replace(given, video=str(video), question="Why? ", options=["one", " two "])
    assert asked_of(config, given).prompt == (
        "Why?\nOptions:\nA. one.\nB. two.\nAnswer with the option's letter from the given choices directly."
    )


@pytest.mark.parametrize("size", [1, 5, 512])
def test_held_frames_do_not_depend_on_the_windows(size):
    frames = np.arange(600, dtype=np.uint16)[:, None, None, None]
    held = HeldFrames(np.split(frames, range(size, 600, size)), 600, 2)
    assert np.array_equal(np.concatenate(list(held)), frames)
    assert {grid: int(frame.item()) for grid, frame in held.frames.items()} == {g: 2 * g for g in range(0, 300, 2)}


def trace_of(kept_indices, lengths, layers=2, entered=None):
    indices = [rows and [torch.tensor(i) for i in rows] for rows in kept_indices]
    recording = SimpleNamespace(kept_indices=indices, entered=entered)
    return SimpleNamespace(chunk_lengths=lengths, recording=recording, cache_length=[0] * layers, compressed=True)


FEATURES = SimpleNamespace(grid=(3, 4, 4), tokens_per_grid=4)
"""2 x 2 merged tokens per grid."""


def test_kept_share_counts_layers_per_token():
    kept = kept_of(trace_of([[[0, 5], [0, 1, 7]], None], [8, 4]), FEATURES)
    assert kept.share.tolist() == [[[1.0, 0.5], [0, 0]], [[0, 0.5], [0, 0.5]], [[1, 1], [1, 1]]]
    assert kept.of_chunks.tolist() == [[0.25, 1], [0.375, 1]] and kept.ends == (0, 8, 12)


def test_a_token_that_half_the_heads_of_a_layer_keep_counts_half():
    kept = kept_of(trace_of([[[0], [0, 1], [2], [2]]], [12]), FEATURES)
    assert kept.layers[:, :3].tolist() == [[1, 0.5, 0], [0, 0, 1]]


def test_tokens_chosen_before_the_model_stand_at_their_places_in_the_video():
    kept = kept_of(trace_of([None, None], [2, 2], entered=torch.tensor([1, 5, 6, 11])), FEATURES)
    assert kept.layers.nonzero()[1].tolist() == [1, 5, 6, 11] * 2 and kept.ends == (0, 6, 12)


def test_what_was_not_recorded_is_not_drawn_as_kept():
    assert kept_of(trace_of([None], [12]), FEATURES) is None
    assert kept_of(trace_of([[[0], [1]]], [8]), FEATURES) is None  # of other frames


def test_chosen_grids_are_the_fullest_of_each_stretch():
    kept = np.zeros((8, 1, 1))
    kept[[1, 2, 6], 0, 0] = [1, 0.5, 1]
    assert choose_grids(kept, range(8), 2) == [1, 6]
    assert choose_grids(kept, [0, 2, 4, 5], 2) == [2, 4]
    assert choose_grids(kept, [3], 12) == [3]


def test_a_token_is_lit_by_the_share_of_its_layers():
    frame = np.full((5, 6, 3), 200, np.uint8)
    picture = lit(frame, np.array([[1.0, 0.0, 0.5]]))
    assert (picture[:, :2] == 200).all()
    assert (picture[:, 2:4] < 70).all()
    assert (picture[:, 2:4] < picture[:, 4:]).all() and (picture[:, 4:] < 200).all()


def test_chunks_have_times_also_where_they_end_inside_a_grid():
    timeline = Timeline.of(chunk_ends([6, 6, 4]), 4, [0.0, 1.0, 2.0, 3.0, 5.0])
    assert timeline.edges == [0.0, 1.5, 3.0, 5.0] and timeline.grids == [0.0, 1.0, 2.0, 3.0]


def test_clock():
    assert [video_clock(s) for s in (0, 59.6, 61, 3725)] == ["0:00", "1:00", "1:01", "1:02:05"]


def test_a_question_is_required_with_a_video(video):
    config, given = composed("demo")
    with pytest.raises(UserError, match="--question is missing"):
        asked_of(config, dataclasses.replace(given, video=str(video)))
