"""Small files of other code bases that were once read wrongly; tests/cases/README.md says what each holds."""

from __future__ import annotations

import codecs
import json
import shutil
from pathlib import Path

import pytest
from cell_folders import questions, write_cell
from verbs import imported

from harness.errors import UserError

CASES = Path(__file__).parents[1] / "cases"


@pytest.fixture
def read(tmp_path):
    """Imports a file whose questions are those of the six in tests/cases/mlvu."""

    def call(path: Path, *words: str):
        return imported(path, f"results={tmp_path / 'results'}", f"data.root={CASES}", *words)

    return call


def by_question(cell) -> dict[str, str]:
    return {question.question_id: cell.answers[question.question_id].text for question in cell.questions}


def test_rows_of_two_ranks_answer_the_questions_that_those_of_one_rank_do(read):
    one, two = (read(CASES / f"{ranks}_samples_mlvu_dev.jsonl") for ranks in ("one_rank", "two_ranks"))
    assert one.n == two.n == 6 and by_question(one) == by_question(two)
    assert (one.correct() == two.correct()).all()


def test_a_response_that_is_no_text_is_no_answer(read):
    cell = read(CASES / "null_samples_mlvu_dev.jsonl")
    assert (cell.n, cell.failed) == (6, 5) and [a.text for a in cell.answers.values() if a.ok] == ["D"]


def test_the_text_that_lmms_eval_scored_counts_and_not_the_reasoning(read):
    cell = read(CASES / "think_samples_mlvu_dev.jsonl")
    assert not any("<think>" in answer.text for answer in cell.answers.values())
    assert cell.correct("anchored").sum() == 6


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_with_a_byte_order_mark_is_read(read, tmp_path, encoding):
    text = (CASES / "one_rank_samples_mlvu_dev.jsonl").read_text()
    path = tmp_path / "20260101_samples_mlvu_dev.jsonl"
    path.write_bytes(text.encode(encoding))
    assert path.read_bytes().startswith((codecs.BOM_UTF8, codecs.BOM_UTF16))
    assert read(path).n == 6


def test_a_file_whose_right_answers_are_others_is_refused(read, tmp_path):
    rows = [json.loads(line) for line in (CASES / "one_rank_samples_mlvu_dev.jsonl").read_text().splitlines()]
    for row in rows[:4]:
        metric = row["mlvu_percetion_score"]
        row["target"] = metric["answer"] = "A" if metric["answer"] != "A" else "B"
    path = tmp_path / "20260101_samples_mlvu_dev.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="4 of 6 questions have another right answer"):
        read(path)


def test_what_the_first_release_of_retake_leaves_is_imported(tmp_path):
    asked = questions("videomme", 2, 1)
    asked = [type(q)(f"000-{i}", q.video_id, q.options, q.answer, q.tags) for i, q in enumerate(asked, start=1)]
    write_cell(tmp_path / "results", asked, [True, True], task="videomme")
    shutil.copytree(CASES / "retake_first", tmp_path / "first")
    cell = imported(
        tmp_path / "first" / "anno_id2result.json", f"results={tmp_path / 'results'}", f"data.root={tmp_path}"
    )
    assert by_question(cell) == {"000-1": "C", "000-2": "A"} and cell.benchmark == "videomme"
    (tmp_path / "first" / "infer_results.csv").write_text("question_id,answer\n000-1,C\n000-2,B\n")
    with pytest.raises(UserError, match="is not the table of question_id and answer"):
        imported(tmp_path / "first" / "anno_id2result.json", f"results={tmp_path / 'r'}", f"data.root={tmp_path}")


def test_answers_for_the_benchmarks_own_scripts_are_imported(tmp_path):
    asked = questions("videomme", 2, 1)
    write_cell(tmp_path / "results", asked, [True, True], task="videomme")
    listed = [
        {"question_id": q.question_id, "options": [f"{k}. {v}" for k, v in q.options.items()], "answer": q.answer,
         "response": response}
        for q, response in zip(asked, ("The best answer is B.", ""), strict=True)
    ]  # fmt: skip
    path = tmp_path / "output.json"
    path.write_text(json.dumps([{"video_id": "001", "questions": listed}]))
    cell = imported(path, f"results={tmp_path / 'results'}", f"data.root={tmp_path}")
    assert cell.record["format"] == "official" and cell.n == 2 and cell.failed == 1
    path.write_text(json.dumps([{"question_id": "x", "question_type": "order", "option": 3}, {"question_type": 1}]))
    with pytest.raises(UserError, match="row 2: cannot be read"):
        imported(path, f"results={tmp_path / 'results'}", f"data.root={tmp_path}")


def test_predictions_as_json_are_read_in_both_forms(tmp_path):
    asked = questions("videomme", 3, 1)
    write_cell(tmp_path / "results", asked, [True] * 3, task="videomme")
    rows = [
        {"question_id": q.question_id, "answer": q.answer, "prediction": text, **q.options}
        for q, text in zip(asked, ("A", "B.", None), strict=True)
    ]
    columns = {name: {str(i): row[name] for i, row in enumerate(rows)} for name in rows[0]}
    found = []
    for content in (rows, columns):
        path = tmp_path / "Qwen_Video-MME_64frame_subs.json"
        path.write_text(json.dumps(content))
        cell = imported(
            path, f"results={tmp_path / 'results'}", f"data.root={tmp_path}", f"imported.name=n{len(found)}"
        )
        found.append(by_question(cell))
    assert found[0] == found[1] and list(found[0].values()) == ["A", "B.", ""]
    assert cell.setting["frames"] == 64 and cell.declared["subtitles"]


def test_the_file_s_own_score_stands_next_to_ours_where_they_differ(read):
    assert not read(CASES / "one_rank_samples_mlvu_dev.jsonl").own_score
    thinks = read(CASES / "think_samples_mlvu_dev.jsonl")  # lmms-eval took "<" for the letter of each
    assert thinks.own_score.startswith("the file itself scores 0.00 % of 6 questions, our parser")
