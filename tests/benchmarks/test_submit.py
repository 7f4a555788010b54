"""Leaderboard files from stored answers, in the boards' own forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.benchmarks.questions import load_questions
from harness.errors import UserError
from harness.settings.compose import compose_config
from harness.store import Answer, AnswerLog, Manifest, failed_answer, write_manifest
from harness.tools import submit


def store_cell(
    results: Path, task, root: Path, name: str = "cell-1", leave_out: int = 0, texts=("(B) because", "C", "?")
):
    folder = results / "runs" / name
    folder.mkdir(parents=True)
    write_manifest(folder, Manifest(cell_id=name, digest="d", cell={"task": {"name": task.name}}))
    questions = load_questions(task, root)
    with AnswerLog(folder) as log:
        for i, q in enumerate(questions[: len(questions) - leave_out]):
            log.append(Answer(q.question_id, q.video_id, "ok", text=texts[i % len(texts)]))


def run(task_name: str, root: Path, results: Path, *overrides: str) -> tuple[int, dict]:
    config = compose_config(
        [f"task={task_name}", "profile=published", f"data.root={root}", f"results={results}", *overrides]
    )
    store_cell(results, config.task, root)
    code = submit.main(config)
    folder = results / "submissions" / "cell-1"
    return code, {p.name: p.read_text(encoding="utf-8") for p in folder.iterdir()}


def test_videomme(root, tmp_path, capsys):
    code, files = run("videomme", root, tmp_path)
    videos = json.loads(files["videomme_submission.json"])
    assert code == 1  # nine questions are not the published 2700
    assert "questions: 9 found, 2700 expected" in capsys.readouterr().out
    assert [list(v) for v in videos] == [["video_id", "duration", "domain", "sub_category", "questions"]] * 3
    first = videos[0]["questions"]
    assert list(first[0]) == ["question_id", "task_type", "question", "options", "answer", "response"]
    assert [q["response"] for q in first] == ["B", "C", ""]


def test_mlvu_test(root, tmp_path):
    _, files = run("mlvu_test", root, tmp_path)
    assert json.loads(files["mlvu_test_submission.json"]) == [
        {"question_id": "AR_0", "question_type": "anomaly_reco", "option": "B"},
        {"question_id": "TQA_1", "question_type": "tutorialQA", "option": "C"},
        {"question_id": "SQA_2", "question_type": "sportsQA", "option": ""},
    ]


def test_longvideobench_test_is_raw_text(root, tmp_path):
    _, files = run("longvideobench_test", root, tmp_path)
    found = json.loads(files["longvideobench_test_for_submission.json"])
    assert list(found.values()) == ["(B) because", "C", "?", "(B) because"]
    assert list(found) == [f"86CxyhFV9M{k}_0" for k in range(4)]


def test_lvbench(root, tmp_path):
    _, files = run("lvbench", root, tmp_path)
    assert json.loads(files["lvbench_answers.json"]) == {"1": "B", "2": "C", "3": "", "4": "B", "5": "C", "6": ""}
    result = json.loads(files["result.json"])
    # Right answers are A B C and B C D: right are 4 and 5; entity recognition is asked by 1, 3, 4 and 6.
    assert result == {"ER": 0.25, "Rea": 0.5, "TG": 0.5, "Overall": pytest.approx(2 / 6)}


def test_vnbench(root, tmp_path):
    _, files = run("vnbench", root, tmp_path)
    lines = [json.loads(line) for line in files["vnbench_answers.jsonl"].splitlines()]
    assert len(lines) == 24
    assert list(lines[0]) == ["question_id", "pred", "gt", "type", "try", "prompt"]
    assert [(line["pred"], line["gt"]) for line in lines[:3]] == [("B", "B"), ("C", "A"), ("", "D")]


def test_complete_counts_return_zero(root, tmp_path, monkeypatch):
    monkeypatch.setattr(submit, "differences", lambda *args: {})
    assert run("mlvu_test", root, tmp_path)[0] == 0


def test_missing_answers_and_the_wrong_number_of_cells_are_refused(root, tmp_path):
    config = compose_config(["task=lvbench", "profile=published", f"data.root={root}", f"results={tmp_path}"])
    with pytest.raises(UserError, match=r"no cell of task=lvbench; .* -m harness run .*'matrix.task=\[lvbench\]'"):
        submit.main(config)
    store_cell(tmp_path, config.task, root, "cell-1", leave_out=2)
    with pytest.raises(UserError, match="cell-1: 2 of 6 questions have no answer, the first is 5"):
        submit.main(config)
    store_cell(tmp_path, config.task, root, "cell-2")
    with pytest.raises(UserError, match="2 cells; choose one with report.cells"):
        submit.main(config)
    config.report.cells = ["*-2"]
    assert submit.main(config) == 1


def test_a_stored_failure_is_an_empty_answer(root, tmp_path):
    config = compose_config(["task=mlvu_test", "profile=published", f"data.root={root}", f"results={tmp_path}"])
    store_cell(tmp_path, config.task, root, leave_out=1)
    with AnswerLog(tmp_path / "runs" / "cell-1") as log:
        log.append(failed_answer("SQA_2", "test_2", ValueError("no video")))
    submit.main(config)
    found = json.loads((tmp_path / "submissions" / "cell-1" / "mlvu_test_submission.json").read_text())
    assert found[-1]["option"] == ""


def test_a_benchmark_without_a_board_names_those_with_one(root, tmp_path):
    config = compose_config(["task=mlvu", "profile=published", f"data.root={root}", f"results={tmp_path}"])
    with pytest.raises(UserError, match=r"task=mlvu \(split dev\) has no leaderboard file; .*videomme \(test\)"):
        submit.main(config)
