"""What `load_questions` gives for each benchmark, and the annotation's oddities."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.benchmarks.questions import functions, load_questions, load_rows
from harness.benchmarks.root import find_video
from harness.benchmarks.subtitles import cut_to_tokens, json_text
from harness.errors import UserError


def test_videos_are_found_whatever_their_suffix(task, root):
    found = {q.video.name for q in load_questions(task("videomme"), root)}
    assert found == {"AbC_d1E2f3G.mp4", "-medium0001.MP4", "long0000001.mkv"}


def test_a_missing_video_is_the_path_where_it_should_be(tmp_path):
    assert find_video(tmp_path, "x") == tmp_path / "x.mp4"
    assert find_video(tmp_path, "x.mkv") == tmp_path / "x.mkv"
    (tmp_path / "a.b.MP4").touch()
    assert find_video(tmp_path, "a.b.mp4") == tmp_path / "a.b.MP4"


def test_mlvu_release_leaves_out_the_row_without_a_right_candidate(task, root):
    release = load_rows(task("mlvu", split="dev"), root)
    stock = load_rows(task("mlvu", "lmms_eval", split="dev"), root)
    assert [row["video"] for row in stock if row not in release] == ["needle_4.mp4"]
    assert functions("mlvu").doc_to_target(next(row for row in stock if row["video"] == "needle_4.mp4")) is None


def test_mlvu_takes_the_first_of_two_right_candidates(task, root):
    questions = load_questions(task("mlvu", split="dev"), root)
    assert next(q for q in questions if q.video_id == "needle_7").answer == "B"


def test_mlvu_names_of_rows_do_not_depend_on_their_place(task, root, tmp_path):
    folder = tmp_path / "mlvu" / "json"
    folder.mkdir(parents=True)
    for path in (root / "mlvu" / "json").iterdir():
        (folder / path.name).write_text(json.dumps(json.loads(path.read_text())[::-1]))
    ids = {q.question_id for q in load_questions(task("mlvu", split="dev"), root)}
    assert {q.question_id for q in load_questions(task("mlvu", split="dev"), tmp_path)} == ids
    assert sum(name.endswith("-2") for name in ids) == 1  # a row that is there twice


def test_mlvu_videos_in_one_folder(task, root, tmp_path):
    (tmp_path / "mlvu" / "json").mkdir(parents=True)
    (tmp_path / "mlvu" / "videos").mkdir()
    text = (root / "mlvu" / "json" / "1_plotQA.json").read_text()
    (tmp_path / "mlvu" / "json" / "1_plotQA.json").write_text(text)
    (tmp_path / "mlvu" / "videos" / "movie_0.mp4").touch()
    found = [q.video.relative_to(tmp_path).as_posix() for q in load_questions(task("mlvu", split="dev"), tmp_path)]
    assert found[:2] == ["mlvu/videos/movie_0.mp4", "mlvu/videos/1_plotQA/movie_1.mp4"]


def test_mlvu_test_answers_are_joined_as_texts_or_letters(task, root):
    found = {q.question_id: q.answer for q in load_questions(task("mlvu"), root)}
    assert found == {"AR_0": "E", "TQA_1": "F", "SQA_2": "A"}


def test_longvideobench_test_has_no_answers(task, root):
    assert {q.answer for q in load_questions(task("longvideobench"), root)} == {None}


def test_lvbench_questions_have_all_their_types(task, root):
    first = load_questions(task("lvbench"), root)[0]
    assert first.tags == {"question_type": ["entity recognition", "reasoning"], "video_type": "sport"}
    assert first.options == {"A": "a cup", "B": "a hat", "C": "a key", "D": "a map"}


def test_two_questions_of_one_name_are_refused(task, root, tmp_path):
    (tmp_path / "lvbench").mkdir()
    line = (root / "lvbench" / "video_info.meta.jsonl").read_text().splitlines()[0]
    (tmp_path / "lvbench" / "video_info.meta.jsonl").write_text(f"{line}\n{line}\n")
    with pytest.raises(UserError, match="3 question ids occur more than once, the first is '1'"):
        load_questions(task("lvbench"), tmp_path)


def test_unknown_benchmark(task, root):
    with pytest.raises(UserError, match="task.data=mlvv has no tasks/mlvv/functions.py; allowed: .*mlvu"):
        load_questions(task("mlvv"), root)


def subtitle_file(tmp_path: Path, rows: list[dict]) -> Path:
    path = tmp_path / "subtitles.json"
    path.write_text(json.dumps(rows))
    return path


def test_subtitles_are_cut_after_so_many_words(tmp_path):
    path = subtitle_file(tmp_path, [{"line": f"w{i}"} for i in range(9000)])
    assert json_text(path).split(" ")[-1] == "w7999"
    assert json_text(path, words=2) == "w0 w1"


def test_a_subtitle_file_of_mixed_schemas_gives_no_text(tmp_path):
    """As in the release, which reports it and goes on."""
    assert json_text(subtitle_file(tmp_path, [{"line": "a"}, {"text": "b"}])) == ""
    assert json_text(subtitle_file(tmp_path, [])) == ""


def test_long_subtitles_need_a_tokenizer_and_lose_their_tail(monkeypatch):
    monkeypatch.delenv("ADARETAKE_TOKENIZER", raising=False)
    assert cut_to_tokens("a b c", "q?", limit=8) == "a b c"  # eight bytes at most: no tokenizer is needed
    with pytest.raises(UserError, match="ADARETAKE_TOKENIZER"):
        cut_to_tokens("a b c", "q?", limit=6)
    from harness.benchmarks import subtitles

    words = (lambda text: text.split(" "), lambda tokens: " ".join(tokens))
    monkeypatch.setattr(subtitles, "_tokenizer", lambda: words)
    assert cut_to_tokens("a b c", "which one", limit=4) == "a b"
    assert cut_to_tokens("a b c", "which one", limit=5) == "a b c"
