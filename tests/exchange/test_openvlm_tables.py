"""VLMEvalKit's tables, as its code makes them: the data set's own table with a column ``prediction``, by pandas.

Columns: ``generate_tsv`` in vlmeval/dataset/{videomme,mlvu,longvideobench}.py of open-compass/VLMEvalKit; the
prediction is added and dumped by ``infer_data_job_video`` in vlmeval/inference_video.py.
"""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from verbs import composed, imported

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.files import Folder
from harness.errors import UserError
from harness.evidence.imported import NOT_SAID

TEXTS = ["A", "(B) so\nit is", "=1+1", 'C\t"x" <b>', "", "Failed to obtain answer via API.", "D. é 答案"]
KINDS = {"findNeedle": "needle"}


def rows_of(root, name, split):
    return benchmark(name).load(Folder(root, name, name), split)


def table_of(root, name, split):
    """The data set's table."""
    made = []
    for i, row in enumerate(rows_of(root, name, split)):
        if name == "videomme":
            keys = ("duration", "domain", "sub_category", "task_type", "question", "answer")
            one = {"video": row["videoID"], "candidates": list(row["options"])} | {key: row[key] for key in keys}
        elif name == "mlvu":
            keys = ("duration", "video", "question", "answer", "candidates")
            kind = row["question_type"]
            one = {"task_type": KINDS.get(kind, kind)} | {key: row[key] for key in keys}
        else:
            one = {**row, "video": row["video_id"], "video_path": f"./videos/{row['video_path']}"}
        made.append({"index": i, **one, "prediction": TEXTS[i % len(TEXTS)]})
    return pd.DataFrame(made)


def write(table, path):
    table.to_excel(path, index=False) if path.suffix == ".xlsx" else table.to_csv(path, sep="\t", index=False)
    return path


def settings(results, root):
    return [f"results={results}", f"data.root={root}"]


@pytest.mark.parametrize("suffix", ["xlsx", "tsv"])
@pytest.mark.parametrize(
    "name, split, stem",
    [
        ("videomme", "test", "Qwen2.5-VL-7B-Instruct_Video-MME_64frame_subs"),
        ("mlvu", "dev", "Qwen2.5-VL-7B-Instruct_MLVU_MCQ_0.5fps"),
        ("longvideobench", "val", "some_model_LongVideoBench_8frame"),
    ],
)
def test_every_row_finds_its_question(name, split, stem, suffix, tmp_path, root):
    cell = imported(write(table_of(root, name, split), tmp_path / f"{stem}.{suffix}"), *settings(tmp_path, root))
    rows = rows_of(root, name, split)
    items = [benchmark(name).item(row) for row in rows]
    assert [q.question_id for q in cell.questions] == [item.question_id for item in items]
    assert cell.matching["unmatched"] == [] and cell.matching["gold_differs"] == []
    said = [cell.answers[item.question_id].text for item in items]
    assert said == [TEXTS[i % len(TEXTS)] for i in range(len(rows))]
    assert cell.failed == sum(text.startswith("Failed") for text in said)
    assert cell.parser == "release" and cell.setting["context"] == NOT_SAID
    declared = {key: cell.declared.get(key) for key in ("model", "frames", "fps", "subtitles")}
    wanted = {
        "videomme": ("Qwen2.5-VL-7B-Instruct", 64, None, True),
        "mlvu": ("Qwen2.5-VL-7B-Instruct", None, 0.5, None),
        "longvideobench": ("some_model", 8, None, None),
    }
    assert tuple(declared.values()) == wanted[name]


@pytest.fixture
def told(tmp_path, root):
    """The data root with questions that differ in their texts."""
    rows = rows_of(root, "videomme", "test")
    made = pd.DataFrame([{**row, "question": f"{row['question']} Say {i}."} for i, row in enumerate(rows)])
    folder = tmp_path / "told"
    (folder / "videomme").mkdir(parents=True)
    made.to_parquet(folder / "videomme" / "test.parquet")
    return folder


def test_options_in_another_order_are_read_in_the_order_of_the_table(tmp_path, told):
    table = table_of(told, "videomme", "test")
    table.at[0, "candidates"] = ["A. 4.", "B. 3.", "C. 2.", "D. 1."]
    gold = table.at[0, "answer"]
    moved = dict(zip("ABCD", "DCBA", strict=True))[gold]
    table.loc[0, ["answer", "prediction"]] = [moved, moved]
    cell = imported(write(table, tmp_path / "m_Video-MME_8frame.tsv"), *settings(tmp_path, told))
    assert cell.matching["reordered"] == ["001-1"] and cell.matching["gold_differs"] == []
    assert cell.questions[0].answer == moved and cell.correct()[0] == 1.0


def test_another_right_answer_is_named_and_ours_counts(tmp_path, told):
    table = table_of(told, "videomme", "test")
    ours = table.at[1, "answer"]
    table.loc[1, ["answer", "prediction"]] = ["D" if ours != "D" else "A"] * 2
    cell = imported(write(table, tmp_path / "m_Video-MME_8frame.tsv"), *settings(tmp_path, told))
    assert cell.matching["gold_differs"] == ["001-2"] and cell.correct()[1] == 0.0


def test_rows_that_may_be_several_questions_are_left_out(tmp_path, root):
    """Video-MME's three questions of a video are alike here, and two rows do not say which they are."""
    table = table_of(root, "videomme", "test").iloc[[0, 1, 3, 4, 5]]
    cell = imported(write(table, tmp_path / "m_Video-MME_8frame.tsv"), *settings(tmp_path, root))
    assert cell.matching["matched"] == {"video and text": 5} and not cell.matching["unmatched"]
    table = table.drop(columns=["answer", "A", "B", "C", "D", "candidates"], errors="ignore")
    with pytest.raises(UserError, match="row 2: may be any of 3 questions"):
        imported(write(table, tmp_path / "n_Video-MME_8frame.tsv"), *settings(tmp_path, root))


def test_an_evaluated_table_brings_its_verdicts(tmp_path, root):
    table = table_of(root, "videomme", "test")
    table["score"] = [1, 0, -1, 1, 0, -1, 1, 0, 1]
    cell = imported(write(table, tmp_path / "m_Video-MME_8frame_score.xlsx"), *settings(tmp_path, root))
    assert [said.correct for said in cell.said.values()] == [True, False, True, False, True, False, True]


def test_a_table_is_named_by_of_where_its_name_says_nothing(tmp_path, root):
    path = write(table_of(root, "mlvu", "dev"), tmp_path / "predictions.tsv")
    with pytest.raises(UserError, match="names no benchmark; .*of="):
        imported(path, *settings(tmp_path, root))
    asked = [*settings(tmp_path, root), "imported.of=mlvu"]
    assert imported(path, *asked).record["split"] == "dev"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("m_Video-MME.tsv", b"index\tanswer\n0\tA\n", "has no column `prediction`; its columns are index, answer"),
        ("m_Video-MME.tsv", b"index\tprediction\n", "has no row"),
        ("m_Video-MME.tsv", b"prediction\tindex\nA\t1\t9\n", "row 2: has 3 fields, the header has 2"),
        ("m_Video-MME.tsv", b"prediction\tindex\nA\t1\n\xff\t2\n", "line 3: is not UTF-8"),
        ("m_Video-MME.tsv", b'prediction\tindex\nA\t1\n"x"y\t2\n', "line 3: is not a row of a tsv"),
        ("m_Video-MME.tsv", b"prediction\tprediction\nA\tB\n", "has several columns prediction"),
        ("m_Video-MME.xlsx", b"no zip", "is not an Excel table"),
    ],
)
def test_a_bad_table_is_named_with_the_row(name, content, message, tmp_path, root):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)):
        imported(tmp_path / name, *settings(tmp_path, root), "imported.format=openvlm")


def test_pandas_reads_what_we_export(tmp_path, root):
    """The reader of VLMEvalKit (``load`` in vlmeval/smp/file.py: pandas)."""
    from imported_files import HOSTILE, own_cell

    from harness.tools.exchange.exporting import main

    own_cell(tmp_path, root, "longvideobench_nosub", HOSTILE, failed=3)
    main(*composed("export", f"results={tmp_path}", f"data.root={root}", "export.formats=[openvlm]"))
    (path,) = (tmp_path / "export" / "openvlm").rglob("*.xlsx")
    table = pd.read_excel(path, keep_default_na=False)
    assert list(table["index"]) == [0, 1, 2, 3] and table["prediction"][3] == "Failed to obtain answer via API."
    assert table["prediction"][2] == "=1+1" and list(table["correct_choice"]) == [0, 1, 2, 3]
    rows = rows_of(root, "longvideobench", "val")
    assert [json.loads(text.replace("'", '"')) for text in table["candidates"]] == [row["candidates"] for row in rows]
