"""lmms-eval's sample files: written by its own code, read as imported cells."""

from __future__ import annotations

import copy
import importlib
import json

import pytest
from imported_files import ask_lmms, lmms_samples, write_lmms, write_lmms_before
from verbs import composed, imported

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.files import Folder
from harness.errors import UserError
from harness.evidence.imported import NOT_SAID, load_imported
from harness.evidence.loading import load_cells
from harness.settings.compose import compose_config
from harness.tools.exchange.importing import main

TEXTS = ["A", "The answer is B.", "(C) four", "no idea", "D", "b", 'A\nbecause <b>=1+1</b>\t"x"', "é 答案是 C"]
STOCK = {
    "videomme": ("videomme", "test", "videomme_doc_to_text", "videomme_process_results", "answer"),
    "mlvu_dev": ("mlvu", "dev", "mlvu_doc_to_text", "mlvu_process_results", "answer"),
    "mlvu_test": ("mlvu", "test", "mlvu_doc_to_text", "mlvu_process_results", "answer"),
    "longvideobench_val_v": ("longvideobench", "val", "longvideobench_doc_to_text", "longvideobench_process_results",
                             "correct_choice"),
    "lvbench": ("lvbench", "test", "lvbench_doc_to_text", "lvbench_process_results", "answer"),
}  # fmt: skip
"""lmms-eval's task -> benchmark, split, and the task's own functions in lmms_eval/tasks/<benchmark>/utils.py."""
PROMPTS = {"pre_prompt": "", "post_prompt": "\nAnswer with the option's letter from the given choices directly."}


def mirror(task, row):
    """A row as lmms-eval's mirror of the data has it."""
    if task.startswith("mlvu"):  # sy1998/MLVU_dev: options inside the question, letters as answers
        item = benchmark("mlvu").item(row)
        listed = "\n".join(f"({letter}) {text}" for letter, text in item.options.items())
        kind = {"findNeedle": "needle"}.get(row["question_type"], row["question_type"])
        return {"video_name": row["video"], "question": f"{row['question']}\n{listed}", "task_type": kind,
                "answer": item.answer or "A"}  # fmt: skip
    if task.startswith("longvideobench"):
        options = {f"option{i}": text for i, text in enumerate((row["candidates"] + ["N/A"])[:5])}
        return {key: value for key, value in row.items() if key != "candidates"} | options
    return row


def stock(task, root):
    """Benchmark, split and samples of one of lmms-eval's tasks, by its own functions."""
    name, split, prompt, process, target = STOCK[task]
    code = importlib.import_module(f"lmms_eval.tasks.{name}.utils")
    rows = benchmark(name).load(Folder(root, name, name), split)
    texts = [TEXTS[i % len(TEXTS)] for i in range(len(rows))]
    asks = getattr(code, prompt)
    docs = [mirror(task, row) for row in rows]
    return rows, texts, lmms_samples(docs, texts, getattr(code, process), lambda doc: asks(doc, dict(PROMPTS)), target)


def settings(tmp_path, root, *words):
    return [f"results={tmp_path}", f"data.root={root}", *words]


@pytest.mark.parametrize("writer", [write_lmms, write_lmms_before])
@pytest.mark.parametrize("task", STOCK)
def test_every_row_of_a_stock_task_finds_its_question(task, writer, tmp_path, root):
    rows, texts, samples = stock(task, root)
    name, split = STOCK[task][:2]
    cell = imported(writer(tmp_path / "logs", task, samples), *settings(tmp_path, root))
    items = [benchmark(name).item(row) for row in rows]
    assert [question.question_id for question in cell.questions] == [item.question_id for item in items]
    assert [cell.answers[item.question_id].text for item in items] == texts
    assert not cell.matching["unmatched"] and not cell.matching["absent"] and cell.benchmark == name
    assert cell.record["split"] == split and cell.setting["max_new_tokens"] == 16
    assert cell.setting["frames"] == 64 and cell.setting["context"] == NOT_SAID


@pytest.mark.parametrize("task", ["videomme", "lvbench", "mlvu_test"])
def test_its_parser_gives_the_scores_of_the_file(task, tmp_path, root):
    """Two derivations: lmms-eval's process_results, and our parser of its rule on the raw texts."""
    _, _, samples = stock(task, root)
    cell = imported(write_lmms(tmp_path / "logs", task, samples), *settings(tmp_path, root))
    assert cell.parser == "lmms_eval" and len(cell.said) == cell.n
    right = cell.correct()
    said = [cell.said[question.question_id].correct for question in cell.questions]
    known = [i for i, question in enumerate(cell.questions) if question.answer is not None]
    assert known and [bool(right[i]) for i in known] == [said[i] for i in known]
    assert cell.correct("anchored").shape == right.shape


def test_our_own_tasks_through_lmms_eval(tmp_path, root):
    """The whole way of lmms-eval: its evaluator asks our task, its tracker writes, we read."""
    from harness.lmms.task import build_task

    samples = ask_lmms(build_task(compose_config(["task=vnbench"]).task, root), TEXTS)
    path = write_lmms(tmp_path / "logs", "adaretake_vnbench", samples)
    cell = imported(path, *settings(tmp_path, root))
    assert cell.n == 24 and cell.matching["matched"] == {"id": 24} and cell.parser == "vnbench"
    assert [bool(x) for x in cell.correct()] == [cell.said[q.question_id].correct for q in cell.questions]


def test_rows_of_other_questions_are_counted_and_listed(tmp_path, root, capsys):
    _, _, samples = stock("videomme", root)
    samples[2]["videomme_perception_score"]["question_id"] = "999-9"
    samples[2]["doc"]["question"] = samples[2]["arguments"][0] = "Something else?"
    path = write_lmms(tmp_path / "logs", "videomme", samples[:6])
    assert main(*composed("import", *settings(tmp_path, root, f"imported.files=['{path}']"))) == 1
    (cell,) = load_imported(tmp_path)
    assert [row["place"] for row in cell.matching["unmatched"]] == ["line 3"]
    assert len(cell.matching["absent"]) == 4 and cell.n == 5
    said = capsys.readouterr().out
    assert "1 rows are no question of it" in said and "line 3" in said and "4 questions of the benchmark" in said


def test_foreign_cells_are_not_cells_of_ours(tmp_path, root):
    _, _, samples = stock("lvbench", root)
    cell = imported(write_lmms(tmp_path / "logs", "lvbench", samples), *settings(tmp_path, root))
    assert load_cells(tmp_path) == []
    (tmp_path / "runs").mkdir()
    cell.folder.rename(tmp_path / "runs" / cell.id)
    with pytest.raises(UserError, match="not a manifest of this harness"):
        load_cells(tmp_path)


def test_a_row_twice_is_named_and_two_answers_are_refused(tmp_path, root):
    _, _, samples = stock("videomme", root)
    path = write_lmms(tmp_path / "logs", "videomme", [*samples, copy.deepcopy(samples[0])])
    assert imported(path, *settings(tmp_path, root)).matching["repeated"] == [f"line {len(samples) + 1}"]
    lines = path.read_text().splitlines()
    lines[-1] = json.dumps(json.loads(lines[-1]) | {"filtered_resps": "another"})
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match="answer the same question 001-1 differently"):
        imported(path, *settings(tmp_path, root))


@pytest.mark.parametrize(
    "line, message",
    [
        ("{torn", "line 2: is not JSON"),
        ("[" * 100_000, r"line 2: is not JSON \(maximum recursion"),
        ("[1]", r"line 2: is not an object but '\[1\]'"),
        ('{"doc_id": 3}', "line 2: has neither resps nor filtered_resps; it has doc_id"),
        ('{"resps": ["a", "b"], "doc_id": 1}', "line 2: has 2 different responses"),
    ],
)
def test_a_bad_line_is_named(line, message, tmp_path, root):
    _, _, samples = stock("lvbench", root)
    path = write_lmms(tmp_path / "logs", "lvbench", samples)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:]]))
    with pytest.raises(UserError, match=message):
        imported(path, *settings(tmp_path, root))


def test_another_import_is_not_overwritten(tmp_path, root):
    _, _, samples = stock("lvbench", root)
    path = write_lmms(tmp_path / "logs", "lvbench", samples)
    asked = settings(tmp_path, root, "imported.name=theirs")
    assert imported(path, *asked).id == imported(path, *asked).id == "theirs"
    path.write_text(path.read_text().replace("no idea", "an idea"))
    with pytest.raises(UserError, match="holds another import"):
        imported(path, *asked)
