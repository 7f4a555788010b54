"""python -m pytest tests/report/test_score.py

Scoring through lmms-eval itself, on toy-sized LVBench and MLVU annotations.
"""

import gc
import json
import re

import pytest
from cell_folders import LETTERS, TYPES, cell_record, configuration, rewrite, write_cell

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.metrics import Metrics
from harness.benchmarks.questions import load_questions
from harness.errors import UserError
from harness.evidence.loading import load_cells
from harness.lmms import score
from harness.settings.groups import TaskConfig
from harness.store import QuestionRecord


@pytest.fixture
def data(tmp_path, monkeypatch):
    root = tmp_path / "data"
    (root / "lvbench").mkdir(parents=True)
    rows = []
    for v in range(6):
        kinds = [["temporal grounding", "reasoning"], ["reasoning"], ["entity recognition"]]
        qa = [
            {
                "uid": f"{v}{q}",
                "question": "What?\n(A) w\n(B) x\n(C) y\n(D) z",
                "answer": LETTERS[(v + q) % 4],
                "question_type": kinds[q],
                "time_reference": "00:15-00:19",
            }
            for q in range(3)
        ]
        info = {"duration_minutes": 1, "fps": 2, "resolution": {"width": 64, "height": 64}}
        rows.append({"key": f"k{v}", "type": "sport", "video_info": info, "qa": qa})
    (root / "lvbench" / "video_info.meta.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "mlvu" / "json").mkdir(parents=True)
    for i, kind in enumerate(TYPES):
        made = [
            {
                "video": f"{kind}_{j}.mp4",
                "duration": 60.0,
                "question": f"Which {j}?",
                "candidates": ["a", "b", "c", "d"],
                "answer": "abcd"[j % 4],
                "question_type": kind,
            }
            for j in range(2 + i)
        ]
        (root / "mlvu" / "json" / f"{i + 1}_{kind}.json").write_text(json.dumps(made))
    monkeypatch.setenv("ADARETAKE_DATA", str(root))
    return root


def answered(tmp_path, data, task, right, **changes):
    record = cell_record(task)
    asked = load_questions(TaskConfig(**record["task"]), data)
    records = [QuestionRecord(q.question_id, q.video_id, q.options, q.answer, q.tags) for q in asked]
    record |= {"context": changes.pop("context", record["context"])}
    write_cell(tmp_path, records, [right(i) for i in range(len(records))], record=record, **changes)
    return next(cell for cell in load_cells(tmp_path) if cell.task == task)


def scored(cell):
    with score.lmms_eval() as scorer:
        return score.score_cell(cell, scorer)


def test_siblings_share_one_reading_of_the_annotation_and_no_search_for_garbage(tmp_path, data, monkeypatch):
    from harness.lmms import task as lmms_task

    for context in (1000, 2000, 3000):
        answered(tmp_path, data, "lvbench", lambda i: True, context=context, digest=f"{context:08}")
    read, frozen, load = [], [], lmms_task.load_asked
    monkeypatch.setattr(lmms_task, "load_asked", lambda *of: read.append(of) or load(*of))
    compare = score.compare_metrics
    monkeypatch.setattr(score, "compare_metrics", lambda *of: frozen.append(gc.get_freeze_count()) or compare(*of))
    assert score.main(configuration(tmp_path)) == 0
    assert len(read) == 1 and len(frozen) == 3 and min(frozen) > 10_000
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("task", ["lvbench", "mlvu"])
def test_lmms_eval_gives_our_numbers_to_the_last_digit(tmp_path, data, task):
    cell = answered(tmp_path, data, task, lambda i: i % 3 != 0, failed={1}, unparsed={2})
    record, fresh = scored(cell)
    assert fresh and record["scored_by"].startswith("lmms-eval ")
    assert set(record["metrics"]) > {"overall" if task == "lvbench" else "m_avg", "unparsed"}
    for name, value in benchmark(task).metrics.scores(cell.items()).items():
        assert record["metrics"][name] == value
    assert (record["failed"], record["unparsed"]) == (1, 1)


def test_a_second_score_reads_the_first(tmp_path, data, capsys, monkeypatch):
    answered(tmp_path, data, "lvbench", lambda i: True)
    assert score.main(configuration(tmp_path)) == 0
    monkeypatch.setattr(score, "write_atomic", lambda *_: pytest.fail("scored again"))
    assert score.main(configuration(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"overall 100.00 \(\w+\), n 18, lmms-eval", lines[0]) and lines[1] == lines[0] + " (unchanged)"


def test_a_changed_answer_is_scored_again(tmp_path, data):
    cell = answered(tmp_path, data, "lvbench", lambda i: True)
    scored(cell)
    cell = answered(tmp_path, data, "lvbench", lambda i: i > 0)
    record, fresh = scored(cell)
    assert fresh and record["metrics"]["overall"] == pytest.approx(100 * 17 / 18)


def test_an_incomplete_cell_is_marked_and_not_replayed(tmp_path, data, capsys):
    answered(tmp_path, data, "lvbench", lambda i: None if i == 5 else True)
    assert score.main(configuration(tmp_path)) == 0
    assert "1 missing, harness, INCOMPLETE" in capsys.readouterr().out


def test_a_disagreement_names_the_cell_and_both_numbers(tmp_path, data, monkeypatch):
    cell = answered(tmp_path, data, "lvbench", lambda i: i % 2 == 0)
    monkeypatch.setattr(Metrics, "scores", lambda *_: {"overall": 49.9})
    with pytest.raises(UserError, match=rf"(?s){cell.id}.*overall: ours 49.9, lmms-eval 50.0"):
        scored(cell)


def test_changed_annotations_are_refused(tmp_path, data):
    cell = answered(tmp_path, data, "lvbench", lambda i: True)
    path = data / "lvbench" / "video_info.meta.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(UserError, match="holds 18 questions, the annotation asks 15"):
        scored(cell)


def test_every_other_parsers_score_stands_beside_it(tmp_path, data):
    cell = answered(tmp_path, data, "lvbench", lambda i: True)
    rewrite(cell.folder, lambda i, answer: answer | {"text": f"Answer: {answer['text']}"})
    record, _ = scored(load_cells(tmp_path)[0])
    scores = {**record["other_parsers"], record["parser"]: record["metrics"]}
    right = sum(question.answer == "A" for question in cell.questions)
    assert scores["anchored"]["overall"] == 100 and scores["release"]["overall"] == pytest.approx(100 * right / 18)


def test_an_edited_score_is_made_again(tmp_path, data):
    cell = answered(tmp_path, data, "lvbench", lambda i: True)
    scored(cell)
    path = cell.folder / "score.json"
    path.write_text(path.read_text().replace("100.0", "12.0"))
    assert scored(load_cells(tmp_path)[0])[1]
    assert not scored(load_cells(tmp_path)[0])[1]
