"""nice python -m pytest tests/store"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.store import (
    Answer,
    AnswerLog,
    Manifest,
    QuestionRecord,
    StoreError,
    hold,
    note_start,
    open_cell,
    read_manifest,
    read_questions,
    set_status,
    write_atomic,
    write_manifest,
    write_questions,
)

GIT = {"commit": "abc", "dirty": False}
MANIFEST = Manifest("cell-1a2b", "1a2b", {"frames": 64}, {"torch": "2.11"}, GIT, device="cpu")


def test_manifest_round_trip(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    assert list(json.loads((tmp_path / "manifest.json").read_text()))[0] == "schema_version"


def test_open_cell_writes_then_resumes(tmp_path):
    assert open_cell(tmp_path, MANIFEST) == MANIFEST
    set_status(tmp_path, "complete")
    later = dataclasses.replace(MANIFEST, created="2030-01-01")
    resumed = open_cell(tmp_path, later)
    assert resumed == read_manifest(tmp_path) == MANIFEST, "same environment: nothing to note, first date stands"


def test_each_environment_is_noted_once(tmp_path):
    fresh = dataclasses.replace(MANIFEST, device=None)
    open_cell(tmp_path, fresh)
    first = {"versions": {"torch": "2.11"}, "git": GIT, "attention_backend": "sdpa", "device": "cpu"}
    for start in (first, first, {**first, "device": "cuda"}, {**first, "versions": {"torch": "3"}}, first):
        note_start(tmp_path, **start)
    held = read_manifest(tmp_path)
    assert (held.device, held.attention_backend, held.versions) == ("cpu", "sdpa", {"torch": "2.11"})
    assert [(s["device"], s["versions"]["torch"]) for s in held.starts] == [("cuda", "2.11"), ("cpu", "3")]
    assert open_cell(tmp_path, fresh) == held, "resuming keeps what was noted"


def test_another_identity_is_refused_with_the_way_out(tmp_path):
    open_cell(tmp_path, MANIFEST)
    with pytest.raises(UserError, match=r"another identity \(digest 1a2b, this run has ffff\).*mv .*results="):
        open_cell(tmp_path, dataclasses.replace(MANIFEST, digest="ffff"))


def test_answers_without_a_manifest_are_refused(tmp_path):
    with AnswerLog(tmp_path, "3") as log:
        log.append(Answer("q", "v", "ok"))
    with pytest.raises(UserError, match=r"holds answers but no manifest\.json"):
        open_cell(tmp_path, MANIFEST)


def test_an_empty_answers_file_is_nobodys(tmp_path):
    AnswerLog(tmp_path).close()
    assert open_cell(tmp_path, MANIFEST) == MANIFEST


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no manifest.json"),
        ("{", "is not a manifest of this harness"),
        ('{"a": 1}', "is not a manifest of this harness"),
        ('{"schema_version": 0}', "written by an older version"),
        ('{"schema_version": 99}', "written by another version"),
        ('{"schema_version": 2, "cell_id": "x", "digest": "y", "cell": {}, "extra": 1}', "was edited"),
        ("[1]", "is not a manifest of this harness"),
    ],
)
def test_foreign_manifests_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_manifest(tmp_path)
    assert f"mv {tmp_path}" in str(caught.value)


def test_an_edited_manifest_is_refused_and_a_reformatted_one_is_edited_too(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    path = tmp_path / "manifest.json"
    whole = path.read_text()
    path.write_text(whole.replace('"frames": 64', '"frames": 65'))
    with pytest.raises(UserError, match=r"manifest\.json was edited: .* put it back"):
        read_manifest(tmp_path)
    path.write_text(whole)
    assert read_manifest(tmp_path) == MANIFEST


QUESTIONS = [
    QuestionRecord("q1", "v1", {"A": "red", "B": "蓝"}, "B", {"duration": "short", "types": ["order", "count"]}, "d1"),
    QuestionRecord("q2", "v1"),
]


def test_questions_round_trip_in_order_and_unchanged_files_are_left_alone(tmp_path):
    write_questions(tmp_path, QUESTIONS)
    stamp = os.stat(tmp_path / "questions.jsonl").st_mtime_ns
    write_questions(tmp_path, QUESTIONS)
    assert os.stat(tmp_path / "questions.jsonl").st_mtime_ns == stamp
    assert read_questions(tmp_path) == QUESTIONS


def test_duplicate_question_ids_are_refused(tmp_path):
    with pytest.raises(UserError, match="'q2' occurs twice"):
        write_questions(tmp_path, [*QUESTIONS, QUESTIONS[1]])
    assert not (tmp_path / "questions.jsonl").exists()


def test_damaged_or_absent_questions_name_the_command(tmp_path):
    with pytest.raises(UserError, match="python -m harness run"):
        read_questions(tmp_path)
    write_questions(tmp_path, QUESTIONS)
    path = tmp_path / "questions.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"schema":9}\n')
    with pytest.raises(UserError, match="line 3"):
        read_questions(tmp_path)
    path.write_text(whole.replace('"answer":"B"', '"answer":"A"'))
    with pytest.raises(UserError, match=r"line 1 .*digest differs.*rm .*python -m harness run"):
        read_questions(tmp_path)
    path.write_text("")
    with pytest.raises(UserError, match="questions.jsonl is empty.*rm .*python -m harness run"):
        read_questions(tmp_path)


def test_write_atomic_leaves_no_draft_and_keeps_the_old_file_on_failure(tmp_path):
    target = tmp_path / "a" / "score.json"
    write_atomic(target, "old")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new" and [p.name for p in target.parent.iterdir()] == ["score.json"]
    limited = (
        "import resource, sys; from harness.store import write_atomic, StoreError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try: write_atomic(sys.argv[1], 'x' * 100)\n"
        "except StoreError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", limited, str(target)], capture_output=True, text=True, timeout=60)
    assert "cannot write" in done.stdout, done.stderr
    assert target.read_bytes() == b"new" and [p.name for p in target.parent.iterdir()] == ["score.json"]


def test_a_folder_lock_is_held_by_one_process_and_freed_at_its_end(tmp_path):
    enter = "import pathlib, sys; from harness.store import hold; held = hold(pathlib.Path(sys.argv[1])); print('in')"
    lock = tmp_path / "new folder" / ".lock"

    def second():
        return subprocess.run([sys.executable, "-c", enter, str(lock)], capture_output=True, text=True, timeout=60)

    with hold(lock):
        refused = second()
        assert "another process is writing" in refused.stderr and refused.returncode != 0
        with pytest.raises(StoreError):
            hold(lock)
    assert second().stdout.strip() == "in"


def test_the_store_needs_nothing_but_the_standard_library_filelock_and_msgspec():
    check = (
        "import sys; before = set(sys.modules); import harness.store\n"
        "new = {m.split('.')[0] for m in set(sys.modules) - before}\n"
        "print(sorted(m for m in new if m not in sys.stdlib_module_names and m != 'harness'))"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n" + check]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['filelock', 'msgspec', 'typing_extensions']", done.stderr


def test_a_doubled_file_of_questions_is_refused(tmp_path):
    write_questions(tmp_path, [QuestionRecord("q1", "v"), QuestionRecord("q2", "v")])
    path = tmp_path / "questions.jsonl"
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(UserError, match="has 2 questions more than once"):
        read_questions(tmp_path)
