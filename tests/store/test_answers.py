"""nice python -m pytest tests/store"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from harness.errors import UserError
from harness.records import seal, unseal
from harness.store import Answer, AnswerLog, StoreError, failed_answer, is_needed, iter_answers, read_answers


def answer(question: str, status: str = "ok", **fields) -> Answer:
    if status == "failed":
        fields.setdefault("error", {"type": "VideoError", "message": "no frames"})
    return Answer(question, "v1", status, **{"text": "(A)", "chunk_budget": [3, 4], **fields})


def write(folder, *answers, worker=None):
    with AnswerLog(folder, worker) as log:
        for one in answers:
            log.append(one)
    return log.path


def run_python(source: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def test_what_was_appended_is_read_back(tmp_path):
    hard = answer("q1", text='line\nbreak \u2028 "quote" \ud800 中文', seconds={"decode": 0.5}, cache_length=[3, 4])
    write(tmp_path, hard, answer("q2"))
    hard.cell = tmp_path.name
    assert read_answers(tmp_path) == {"q1": hard, "q2": read_answers(tmp_path)["q2"]}
    assert len((tmp_path / "answers.jsonl").read_bytes().splitlines()) == 2


def test_a_line_carries_every_field_of_the_contract(tmp_path):
    record = json.loads(write(tmp_path, answer("q1")).read_text())
    assert set(record) == {*Answer.__struct_fields__, "check"}
    assert (
        record["schema"] == 4
        and record["cell"] == tmp_path.name
        and (list(record)[0], list(record)[-1]) == ("schema", "check")
    )


def test_an_empty_folder_has_no_answers(tmp_path):
    assert read_answers(tmp_path) == {}
    assert read_answers(tmp_path / "absent") == {}


def test_last_ok_wins_over_earlier_and_over_failed(tmp_path):
    write(tmp_path, answer("q", text="1"), answer("q", text="2"), answer("q", "failed", text="3"))
    assert read_answers(tmp_path)["q"].text == "2"
    write(tmp_path, answer("f", "failed", text="1"), answer("f", "failed", text="2"))
    assert read_answers(tmp_path)["f"].text == "2"


def test_order_inside_a_file_counts_more_than_a_clock_set_back(tmp_path):
    write(tmp_path, answer("q", text="old", time="2030-01-01"), answer("q", text="new", time="2020-01-01"))
    assert read_answers(tmp_path)["q"].text == "new"


def test_worker_files_merge_by_status_then_time(tmp_path):
    write(tmp_path, answer("q", "failed", time="2026-01-03"), answer("only", time="2026-01-01"))
    write(tmp_path, answer("q", text="first", time="2026-01-01"), worker="0")
    write(tmp_path, answer("q", text="second", time="2026-01-02"), worker="1")
    merged = read_answers(tmp_path)
    assert merged["q"].text == "second" and set(merged) == {"q", "only"}


def test_other_files_beside_are_not_answers(tmp_path):
    write(tmp_path, answer("q"))
    (tmp_path / "answers.jsonl.bak").write_text("garbage\n")
    (tmp_path / "answers_old.jsonl").write_text("garbage\n")
    assert set(read_answers(tmp_path)) == {"q"}


@pytest.mark.parametrize("cut", [1, 2, 40, 90])
def test_a_torn_last_line_is_passed_over_then_removed_and_nothing_else(tmp_path, cut):
    path = write(tmp_path, answer("q1"), answer("q2"), answer("q3"))
    whole = path.read_bytes()
    two = whole[: whole.rindex(b"\n", 0, -1) + 1]
    path.write_bytes(whole[: len(two) + cut])
    assert set(read_answers(tmp_path)) == {"q1", "q2"}
    assert path.read_bytes() == whole[: len(two) + cut], "reading must not write: the file may belong to a live run"
    AnswerLog(tmp_path).close()
    assert path.read_bytes() == two


def test_an_answer_that_lacks_only_its_newline_is_kept(tmp_path):
    path = write(tmp_path, answer("q1"), answer("q2"))
    path.write_bytes(path.read_bytes()[:-1])
    assert set(read_answers(tmp_path)) == {"q1", "q2"}
    write(tmp_path, answer("q3"))
    assert [a.question_id for a in iter_answers(path)] == ["q1", "q2", "q3"]


def test_a_last_page_of_zeros_after_a_power_cut_is_a_torn_line(tmp_path):
    path = write(tmp_path, answer("q1"))
    good = path.read_bytes()
    path.write_bytes(good + b"\0" * 4096)
    assert set(read_answers(tmp_path)) == {"q1"}
    write(tmp_path, answer("q2"))
    assert path.read_bytes().startswith(good) and set(read_answers(tmp_path)) == {"q1", "q2"}


def test_a_file_with_nothing_but_a_torn_line_is_emptied(tmp_path):
    (tmp_path / "answers.jsonl").write_bytes(b'{"schema":1,"question_id":"q')
    assert read_answers(tmp_path) == {}
    AnswerLog(tmp_path).close()
    assert (tmp_path / "answers.jsonl").read_bytes() == b""


def test_one_torn_line_in_each_file_is_fine(tmp_path):
    for worker in ("0", "1"):
        path = write(tmp_path, answer("q" + worker), worker=worker)
        path.write_bytes(path.read_bytes() + b'{"schema"')
    assert set(read_answers(tmp_path)) == {"q0", "q1"}


def test_damage_before_the_last_line_names_file_and_line(tmp_path):
    path = write(tmp_path, answer("q1"), answer("q2"), answer("q3"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:30] + b"\n" + lines[2])
    for opener in (read_answers, AnswerLog):
        with pytest.raises(UserError, match=r"answers\.jsonl, line 2 is damaged.*sed -i '2d'"):
            opener(tmp_path)
    assert path.stat().st_size > 0, "a damaged file is left as it is"
    AnswerLog(tmp_path, "0").close()  # and the lock on it is free again: the error above is not 'another process'


@pytest.mark.parametrize("schema", [0, 1, 2, 3, None, "4"])
def test_answers_of_another_schema_are_refused_with_the_way_out(tmp_path, schema):
    path = write(tmp_path, answer("q1"))
    record = {**json.loads(path.read_text()), "schema": schema}
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(UserError, match=r"line 1 has schema .* Move the folder away \(mv "):
        read_answers(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1, 2]\n", "line 1 is damaged"),
        ('{"schema": 4, "question": 1}', "line 1 is not a record of an answer"),
        ('{"schema": 4, "question_id": "q"}', "line 1: it is not as it was written"),
    ],
)
def test_foreign_json_is_refused(tmp_path, line, message):
    (tmp_path / "answers.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        read_answers(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"), [('"text":"(A)"', '"text":"(B)"'), ('"text":"(A)"', '"text":5'), ('"time":"2', '"time":"9')]
)
def test_an_edited_answer_is_refused_with_file_line_and_the_way_to_ask_again(tmp_path, old, new):
    path = write(tmp_path, answer("q1"), answer("q2"), answer("q3"))
    lines = path.read_text().splitlines(keepends=True)
    assert old in lines[1]
    path.write_text(lines[0] + lines[1].replace(old, new) + lines[2])
    with pytest.raises(UserError, match=r"answers\.jsonl, line 2: it is not as it was written.*sed -i '2d'"):
        read_answers(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", 5),
        ("cache_length", ["x"]),
        ("cache_length", 3),
        ("n_new", 2.5),
        ("n_new", True),
        ("seconds", {"encode": "fast"}),
        ("error", {"type": 3}),
        ("video_digest", []),
    ],
)
def test_a_record_of_wrong_types_is_refused_although_its_digest_is_right(tmp_path, name, value):
    path = write(tmp_path, answer("q1", cache_length=[3, 4.5], n_new=2, seconds={"encode": 1}))
    assert read_answers(tmp_path)["q1"].n_new == 2
    path.write_bytes(seal({**unseal(path.read_bytes()), name: value}))
    with pytest.raises(UserError, match=rf"line 1 is not a record of an answer: Expected .*`\$\.{name}"):
        read_answers(tmp_path)


def test_answers_of_another_cell_are_refused_although_each_line_is_as_it_was_written(tmp_path):
    path = write(tmp_path / "random", answer("q1"))
    (tmp_path / "adaretake").mkdir()
    (tmp_path / "adaretake" / path.name).write_bytes(path.read_bytes())
    for reader in (read_answers, AnswerLog):
        with pytest.raises(UserError, match="line 1 is an answer of the cell 'random' and not of 'adaretake'"):
            reader(tmp_path / "adaretake")


def test_a_digest_that_was_cut_off_or_taken_from_another_line_is_an_edit(tmp_path):
    path = write(tmp_path, answer("q1"), answer("q2"))
    first, second = path.read_text().splitlines()
    for changed in (first[: first.index(',"check"')] + "}", first.rpartition(":")[0] + ":" + second.rpartition(":")[2]):
        path.write_text(f"{changed}\n{second}\n")
        with pytest.raises(UserError, match="line 1: it is not as it was written"):
            read_answers(tmp_path)


@pytest.mark.parametrize("how", ["replace", "remove", "append", "truncate"])
def test_a_file_that_another_program_changes_under_a_run_stops_it_before_more_is_lost(tmp_path, how):
    log = AnswerLog(tmp_path)
    log.append(answer("q1"))
    whole = log.path.read_bytes()
    if how == "replace":  # as an editor, or sed -i, writes
        (tmp_path / "draft").write_bytes(whole)
        os.replace(tmp_path / "draft", log.path)
    elif how == "remove":
        log.path.unlink()
    else:
        log.path.write_bytes(whole + whole if how == "append" else b"")
    with pytest.raises(StoreError, match="was replaced, removed or changed.*start the same command again"):
        log.append(answer("q2"))
    with pytest.raises(ValueError, match="is closed"):
        log.append(answer("q3"))
    with AnswerLog(tmp_path) as again:  # its lock is free
        again.append(answer("q4"))
    assert "q4" in read_answers(tmp_path)


def test_whether_a_failure_was_tried_does_not_depend_on_a_clock():
    future = answer("q", "failed", time="2999-01-01T00:00:00", start="one")
    assert is_needed(future, "failed", "two") and is_needed(future, "failed")
    assert not is_needed(future, "failed", "one") and not is_needed(future, "none")
    assert is_needed(None, "none", "one") and not is_needed(answer("q"), "failed", "two")


def test_a_failed_answer_needs_a_reason():
    with pytest.raises(ValueError, match="without an error"):
        Answer("q", "v", "failed")
    with pytest.raises(ValueError, match="status 'done'"):
        Answer("q", "v", "done")
    assert failed_answer("q", "v", KeyError("x")).error == {"type": "KeyError", "message": "'x'"}


@pytest.mark.parametrize("worker", ["", "a/b", "../x", "a.b"])
def test_a_worker_name_must_fit_a_file_name(tmp_path, worker):
    with pytest.raises(UserError, match="worker name"):
        AnswerLog(tmp_path, worker)


OPEN = "import sys; from harness.store import AnswerLog; AnswerLog(sys.argv[1]); print('opened')"


def test_a_second_process_may_not_write_the_same_file(tmp_path):
    with AnswerLog(tmp_path) as log:
        second = run_python(OPEN, tmp_path)
        assert second.returncode != 0 and "another process is writing" in second.stderr
        log.append(answer("q"))
        other = run_python(OPEN.replace("sys.argv[1]", "sys.argv[1], '1'"), tmp_path)
        assert other.stdout.strip() == "opened"
    assert run_python(OPEN, tmp_path).stdout.strip() == "opened"
    assert set(read_answers(tmp_path)) == {"q"}


FULL = """
import resource, sys
from harness.store import Answer, AnswerLog, StoreError
log = AnswerLog(sys.argv[1])
log.append(Answer("q1", "v", "ok", text="x" * 100))
resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + int(sys.argv[2]),) * 2)
try:
    log.append(Answer("q2", "v", "ok", text="x" * 4000))
except StoreError as error:
    print(error)
else:
    raise SystemExit("the second answer was taken")
try:
    log.append(Answer("q3", "v", "ok"))
except ValueError as error:
    print("closed")
"""


@pytest.mark.parametrize("room", [0, 1, 1000])
def test_a_full_disk_stops_with_advice_and_loses_nothing(tmp_path, room):
    done = run_python(FULL, tmp_path, room)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cannot append to" in done.stdout and "start the same command again" in done.stdout
    assert done.stdout.strip().endswith("closed")
    assert set(read_answers(tmp_path)) == {"q1"}
    write(tmp_path, answer("q2"))
    assert [a.question_id for a in iter_answers(tmp_path / "answers.jsonl")] == ["q1", "q2"]


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write .*results="):
        AnswerLog(tmp_path / "file" / "cell")


WRITER = """
import sys
from harness.store import Answer, AnswerLog
with AnswerLog(sys.argv[1], wait_s=5) as log:
    for i in range(10**9):
        log.append(Answer(f"{sys.argv[2]}-{i}", "v", "ok", text="x" * 20000))
        print(i, flush=True)
"""


def test_kill_dash_nine_loses_no_answer_that_append_returned_from(tmp_path):
    promised = {}
    for start in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(start)], stdout=subprocess.PIPE, text=True
        )
        first = process.stdout.readline()
        assert first.strip() == "0"
        time.sleep(0.02 + 0.013 * start)
        os.kill(process.pid, signal.SIGKILL)
        tail = process.stdout.read()
        process.wait()
        promised[start] = len(tail.split("\n")[:-1])
    held = [a.question_id for a in iter_answers(tmp_path / "answers.jsonl")]
    assert len(held) == len(set(held))
    for start, last in promised.items():
        assert {f"{start}-{i}" for i in range(last + 1)} <= set(held)


@pytest.mark.parametrize("how", ["dangling link", "loop", "pipe", "folder"])
def test_what_is_no_file_is_named_without_waiting_for_it(tmp_path, how):
    path = tmp_path / "answers.jsonl"
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / ("absent" if how == "dangling link" else "answers.jsonl"))
    with pytest.raises(UserError, match=r"answers\.jsonl is not a regular file"):
        read_answers(tmp_path)


@pytest.mark.parametrize("name", ["answers (1).jsonl", "answers (conflicted copy).jsonl", "answers.a.b.jsonl"])
def test_answers_under_a_name_that_is_not_read_are_named_with_one_that_is(tmp_path, name):
    path = write(tmp_path, answer("q1"), answer("q2"))
    path.rename(tmp_path / name)
    with pytest.raises(UserError, match="holds answers under a name that is not read") as caught:
        read_answers(tmp_path)
    subprocess.run(str(caught.value).rpartition("away: ")[2], shell=True, check=True)
    assert set(read_answers(tmp_path)) == {"q1", "q2"}
