"""What `load_questions` gives for each benchmark, and the annotation's oddities."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from harness.benchmarks.files import Folder
from harness.benchmarks.questions import load_questions, load_rows
from harness.benchmarks.subtitles import TokenizerMissingError, cut_to_tokens, json_text
from harness.errors import QuestionError, UserError
from harness.settings.compose import compose_config


def test_videos_are_found_whatever_their_suffix(task, root):
    found = {q.video.name for q in load_questions(task("videomme"), root)}
    assert found == {"AbC_d1E2f3G.mp4", "-medium0001.MP4", "long0000001.mkv"}


def test_a_missing_video_is_the_path_where_it_should_be(tmp_path):
    videos = Folder(tmp_path, "b", "b")
    assert videos.video(["x"]) == tmp_path / "b" / "x.mp4"
    assert videos.video(["x.mkv", "y"]) == tmp_path / "b" / "x.mkv"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.b.MP4").touch()
    assert videos.video(["x", "a.b.mp4"]) == tmp_path / "b" / "a.b.MP4"


def test_mlvu_release_leaves_out_the_row_without_a_right_candidate(task, root):
    release = load_rows(task("mlvu", split="dev"), root)
    stock = load_rows(task("mlvu", "lmms_eval", split="dev"), root)
    assert [row["video"] for row, _ in stock if row not in [kept for kept, _ in release]] == ["needle_4.mp4"]
    assert next(item for row, item in stock if row["video"] == "needle_4.mp4").answer is None


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
    with pytest.raises(UserError, match="task.data=mlvv has no folder tasks/mlvv; allowed: .*mlvu"):
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


def mlvu_test(tmp_path: Path, **files: list[dict]) -> Path:
    folder = tmp_path / "mlvu" / "test" / "json"
    folder.mkdir(parents=True)
    for name, rows in files.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return tmp_path


def test_mlvu_test_as_it_lies_on_the_hub(task, root, tmp_path):
    """Three files with the same questions: one bare, one with the answers, one of all tasks."""
    asked = json.loads((root / "mlvu" / "test" / "json" / "test_multi_choice_tasks.json").read_text())
    truth = [row | {"answer": row["candidates"][k]} for k, row in enumerate(asked)]
    written = {"video": "w.mp4", "question": "Sum up.", "question_type": "summary", "question_id": "VS_0"}
    data = mlvu_test(
        tmp_path,
        test_mcq_gt=truth,
        test_multi_choice_tasks=asked[::-1],
        test_question=[*asked, written],
        test_generation_tasks=[written],
    )
    found = load_questions(task("mlvu"), data)
    assert {q.question_id: q.answer for q in found} == {"AR_0": "A", "TQA_1": "B", "SQA_2": "C"}
    assert {q.question_id: q.prompt for q in found} == {
        q.question_id: q.prompt for q in load_questions(task("mlvu"), root)
    }
    # Without the answers it can still be asked, for a submission.
    bare = mlvu_test(tmp_path / "bare", test_multi_choice_tasks=asked, test_question=asked)
    assert {q.answer for q in load_questions(task("mlvu"), bare)} == {None} and len(found) == 3


def test_mlvu_test_of_one_id_and_two_questions_is_refused(task, root, tmp_path):
    asked = json.loads((root / "mlvu" / "test" / "json" / "test_multi_choice_tasks.json").read_text())
    other = [row | {"candidates": row["candidates"][::-1], "answer": "A"} for row in asked]
    data = mlvu_test(tmp_path, test_mcq_gt=other, test_multi_choice_tasks=asked)
    with pytest.raises(
        UserError, match="test_multi_choice_tasks.json asks another question AR_0 than a file before it"
    ):
        load_questions(task("mlvu"), data)


def with_rows(root: Path, tmp_path: Path, **changes) -> Path:
    """LVBench with its first question changed."""
    folder = tmp_path / "lvbench"
    folder.mkdir()
    lines = (root / "lvbench" / "video_info.meta.jsonl").read_text().splitlines()
    video = json.loads(lines[0])
    for key, value in changes.items():
        (video if key in video else video["qa"][0])[key] = value
    (folder / "video_info.meta.jsonl").write_text("\n".join([json.dumps(video), *lines[1:]]))
    return tmp_path


@pytest.mark.parametrize(
    "key", ["../../../../secret", "/etc/passwd", "..", "a/../../b", "x\0y", "x" * 300, "\ud800", ""]
)
def test_a_video_outside_of_the_benchmarks_folder_is_refused(task, root, tmp_path, key):
    (tmp_path / "secret.mp4").touch()
    data = tmp_path / "data" / "root"
    data.mkdir(parents=True)
    with_rows(root, data, key=key)
    with pytest.raises(UserError, match="annotation of lvbench names the file .*; allowed: files below"):
        load_questions(task("lvbench"), data)


def test_a_subtitle_outside_of_the_benchmarks_folder_is_refused(task, root, tmp_path):
    shutil.copytree(root / "longvideobench", tmp_path / "longvideobench")
    path = tmp_path / "longvideobench" / "lvb_val.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([rows[0] | {"subtitle_path": "../../../secret.json"}]))
    with pytest.raises(UserError, match="names the file 'subtitles/../../../secret.json'"):
        load_questions(task("longvideobench", "release_subtitles", split="val"), tmp_path)


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ("x" * 200_000, "question 1 has 200,0.. characters; allowed: up to 100,000"),
        ("q?\n(A) a\n(B) b\n(C) c\n(D) d\n(E) e", "question 1 has a fifth option"),
        ("\ud800?\n(A) a\n(B) b\n(C) c\n(D) d", "question 1 holds a character that is none"),
    ],
)
def test_one_question_that_cannot_be_asked_is_a_problem_of_its_own(task, root, tmp_path, question, problem):
    first, *others = load_questions(task("lvbench"), with_rows(root, tmp_path, question=question))
    assert re.search(problem, first.problem)
    assert [q.problem for q in others] == [None] * 5 and all(q.prompt for q in others)


def test_a_damaged_subtitle_file_is_a_problem_of_its_questions(task, root, tmp_path):
    shutil.copytree(root / "longvideobench", tmp_path / "longvideobench")
    paths = sorted((tmp_path / "longvideobench" / "subtitles").iterdir())
    paths[0].write_text('[{"line": ')
    paths[1].write_text('[{"line": 5}]')
    questions = load_questions(task("longvideobench", "release_subtitles", split="val"), tmp_path)
    assert [bool(q.problem) for q in questions] == [True, True, False, False]
    assert str(paths[0]) in questions[0].problem


def test_a_subtitle_line_that_is_null_has_no_text(tmp_path):
    assert json_text(subtitle_file(tmp_path, [{"line": "a"}, {"line": None}, {"line": "b"}])) == "a  b"


@pytest.mark.parametrize(
    "content", ["", "{", '{"key": "v"}', "[1]", '{"key": "v", "type": "t", "video_info": {}, "qa": [{}]}']
)
def test_a_damaged_annotation_is_named(task, tmp_path, content):
    (tmp_path / "lvbench").mkdir()
    (tmp_path / "lvbench" / "video_info.meta.jsonl").write_text(content)
    with pytest.raises(UserError, match="LVBench|has no question"):
        load_questions(task("lvbench"), tmp_path)


@pytest.mark.parametrize("name", ["foo", "../../etc", "", "/etc", "videomme/.."])
def test_only_folders_of_tasks_are_benchmarks(task, root, name):
    with pytest.raises(UserError, match="has no folder tasks/.*; allowed: longvideobench, lvbench, mlvu"):
        load_questions(task(name), root)


def test_a_tokenizer_is_never_asked_of_the_hub(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("went to the network"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("ADARETAKE_TOKENIZER", "Qwen/Qwen2.5-VL-7B-Instruct-not-here")
    with pytest.raises(TokenizerMissingError, match="there is none on this machine at Qwen/.*model.path=DIR"):
        cut_to_tokens("a b c", "q?", limit=6)


@pytest.mark.parametrize(
    ("reference", "seconds"),
    [
        ("00:15-00:19", ((15.0, 19.0),)),
        ("1:02:03-1:02:04.5", ((3723.0, 3724.5),)),
        ("75:00 - 76:30", ((4500.0, 4590.0),)),
        ("00:19-00:15", ()),
        ("from start to end", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_lvbench_says_when_the_answer_is_seen(task, root, tmp_path, reference, seconds):
    first, *_ = load_questions(task("lvbench"), with_rows(root, tmp_path, time_reference=reference))
    assert first.evidence == seconds
    assert all(q.evidence == () for q in load_questions(task("videomme"), root))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": []}, r"has 0 options: \[\]"),
        ({"candidates": ["only one"], "answer": "only one"}, "has 1 options"),
        ({"candidates": "A vase"}, "has one text for its options: 'A vase'"),
        ({"question_id": None}, None),
        ({"question_id": 7}, "a question_id is 7 and no text"),
        ({"question_id": " "}, "a question_id is ' ' and no text"),
    ],
)
def test_rows_that_can_be_neither_asked_nor_stored_are_refused_before_any_answer(root, tmp_path, change, message):
    shutil.copytree(root / "mlvu", tmp_path / "mlvu")
    path = sorted((tmp_path / "mlvu" / "json").glob("*.json"))[0]
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**rows[0], **change}, *rows[1:]]))
    task = compose_config(["task=mlvu"]).task
    if message is None:
        assert len(load_questions(task, tmp_path)) == len(load_questions(task, root))  # named after what it asks
        return
    with pytest.raises(UserError, match=f"{message}.*get it again"):
        load_questions(task, tmp_path)


def test_two_options_of_one_letter_are_refused(root, tmp_path):
    shutil.copytree(root / "videomme", tmp_path / "videomme")
    path = tmp_path / "videomme" / "test.parquet"
    rows = pd.read_parquet(path)
    options = [list(listed) for listed in rows["options"]]
    options[0][1] = "A. " + options[0][1][3:]
    rows.assign(options=options).to_parquet(path)
    with pytest.raises(UserError, match="has 4 options under 3 letters"):
        load_questions(compose_config(["task=videomme"]).task, tmp_path)


def test_subtitles_that_are_an_object_are_no_empty_text(tmp_path):
    (tmp_path / "s.json").write_text('{"line": "Look at the circle.", "start": "00:00"}')
    with pytest.raises(QuestionError, match="they are no list but dict"):
        json_text(tmp_path / "s.json")
