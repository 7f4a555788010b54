"""The four benchmarks: the layouts and keys of the real ones, balanced letters, one source of prompts."""

import hashlib
import json
from collections import Counter

import pandas as pd
import pytest
from toy_training.prompts import prompt

from harness.benchmarks.questions import load_asked
from harness.cli import main
from harness.settings.compose import compose_config
from harness.toy.benchmarks import GENERATOR, build
from harness.toy.layouts import LAYOUTS
from harness.toy.questions import ONE_EVENT, kind_of

NAMES = [layout.name for layout in LAYOUTS]


def asked(name, root):
    return load_asked(compose_config([f"task={name}"]).task, root)


def test_videomme_keys(root):
    frame = pd.read_parquet(root / "videomme" / "test.parquet")
    assert list(frame.columns) == (
        "video_id duration domain sub_category url videoID question_id task_type question options answer".split()
    )
    assert set(frame.duration) == {"short", "medium", "long"}
    assert all(len(options) == 4 and options[0].startswith("A. ") for options in frame.options)
    assert all((root / "videomme" / "videos" / f"{name}.mp4").exists() for name in frame.videoID)
    assert list((root / "videomme" / "subtitles").glob("*.srt"))


def test_mlvu_keys(root):
    for path in sorted((root / "mlvu" / "json").glob("*.json")):
        for row in json.loads(path.read_text()):
            assert set(row) == {"video", "duration", "question", "candidates", "answer", "question_type"}
            assert row["answer"] in row["candidates"]
            assert (root / "mlvu" / "videos" / path.stem / row["video"]).exists()


def test_longvideobench_keys_and_both_subtitle_schemas(root):
    rows = json.loads((root / "longvideobench" / "lvb_val.json").read_text())
    assert {len(row["candidates"]) for row in rows} == {4, 5}
    assert {row["duration_group"] for row in rows} == {15, 60, 600, 3600}
    keys = set()
    for row in rows:
        assert (root / "longvideobench" / "videos" / row["video_path"]).exists()
        lines = json.loads((root / "longvideobench" / "subtitles" / row["subtitle_path"]).read_text())
        keys.add(frozenset(lines[0]))
    assert keys == {frozenset({"start", "end", "line"}), frozenset({"timestamp", "text"})}


def test_lvbench_keys(root):
    for line in (root / "lvbench" / "video_info.meta.jsonl").read_text().splitlines():
        video = json.loads(line)
        assert set(video) == {"key", "type", "video_info", "qa"}
        assert (root / "lvbench" / "videos" / f"{video['key']}.mp4").exists()
        for qa in video["qa"]:
            assert set(qa) == {"uid", "question", "answer", "question_type", "time_reference"}
            assert "\n(A) " in qa["question"] and isinstance(qa["question_type"], list)


@pytest.mark.parametrize("name", NAMES)
def test_letters_are_balanced(name, root):
    by_options = {}
    for _, question in asked(name, root):
        by_options.setdefault(len(question.options), []).append(question.answer)
    for n, letters in by_options.items():
        counts = Counter(letters)
        assert max(counts.values()) - min(counts.get(letter, 0) for letter in "ABCDE"[:n]) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_those_of_training(name, root):
    for row, question in asked(name, root):
        subtitles = question.prompt.split("\n")[0].removeprefix("Subtitles: ")
        options = [text.rstrip(".") for text in question.options.values()]
        assert question.prompt == prompt(name, row["question"].split("\n")[0], options, subtitles)


def test_half_of_the_questions_need_several_events(root):
    kinds = [kind_of(row["question"]) for name in NAMES for row, _ in asked(name, root)]
    assert 0.4 < sum(kind in ONE_EVENT for kind in kinds) / len(kinds) < 0.6


def test_build_is_idempotent_and_seeded(root, tmp_path):
    manifest = root / "manifest.json"
    before = manifest.stat().st_mtime_ns
    build(root, scale=0.1)
    assert manifest.stat().st_mtime_ns == before
    build(tmp_path, scale=0.1)
    assert (tmp_path / "manifest.json").read_text() == manifest.read_text()


def test_build_keeps_its_hands_off_other_data(tmp_path):
    (tmp_path / "mlvu").mkdir()
    with pytest.raises(FileExistsError, match="is not empty"):
        build(tmp_path, scale=0.1)


def test_what_is_written_has_a_version(root):
    """Annotations tell what the videos show; other ones need another `GENERATOR`, so that older builds are replaced."""
    digest = hashlib.sha256()
    for path in sorted(path for name in NAMES for path in (root / name).rglob("*") if path.is_file()):
        if path.suffix == ".parquet":
            digest.update(pd.read_parquet(path).to_json().encode())
        elif path.suffix != ".mp4":
            digest.update(path.read_bytes())
    assert (GENERATOR, digest.hexdigest()[:16]) == (1, "e3c96ae17d528ff6"), "raise GENERATOR, and note its digest here"


def test_an_older_build_is_replaced(tmp_path):
    build(tmp_path, scale=0.03)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["build"]["generator"] = GENERATOR - 1
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    video = next((tmp_path / "mlvu").rglob("*.mp4"))
    written = video.stat().st_mtime_ns
    build(tmp_path, scale=0.03)
    assert video.stat().st_mtime_ns != written
    assert json.loads((tmp_path / "manifest.json").read_text())["build"]["generator"] == GENERATOR


@pytest.mark.parametrize(
    "content", [None, "{}", "[1]", '{"complete": true}', '{"complete": 1, "build": {}}', "{" * 2000]
)
def test_a_folder_of_something_else_is_never_built_into(tmp_path, content):
    """Such as /etc, a home folder, or one with another program's manifest.json."""
    (tmp_path / "photo.jpg").write_text("x")
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileExistsError, match="is not empty and was not written by the toy"):
        build(tmp_path, scale=0.06)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("word", ["data.source=/nope", "data.mirror=https://hub.invalid"])
def test_a_source_is_not_ignored_on_the_toy(tmp_path, capsys, word):
    assert main(["prepare", "task=mlvu", word, f"data.root={tmp_path / 'toy'}"]) == 2
    assert word in capsys.readouterr().err and not (tmp_path / "toy").exists()
