"""The releases' result files, as ``retake/infer_eval.py`` writes them over what ``build_*_dataset.py`` makes.

SCZwangxiao/video-ReTaKe and iLearn-Lab/ACL25-AdaReTaKe: ``json.dump`` of answers and metas by place in the annotation.
"""

from __future__ import annotations

import json

import pytest
from verbs import composed, imported

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.files import Folder
from harness.errors import UserError
from harness.tools.exchange.importing import main
from harness.tools.exchange.release import QUESTION_TYPES

LETTERS = ["A", "B", "", "D", "C"]
GROUPS = {15: "8s-15s", 60: "15s-60s", 600: "180s-600s", 3600: "900s-3600s"}
CONFIG = """
model_name: qwen2_5_vl
method: retake
scaling_factor: 4
longvideo_kwargs: {
  'kvcache_compression_kwargs': {'compression_method': 'stdvidlkv', 'max_input_length': 16000},
}
dataset_name: %s
sample_fps: 2
max_num_frames: 1024
longsize_resolution: 448
do_sample: false
"""


def meta_of(name, row):
    """``meta`` as the builder of a benchmark makes it, with the answer that BaseDataset adds."""
    item = benchmark(name).item(row)
    if name == "videomme":
        keys = ("video_id", "question_id", "duration", "domain", "sub_category", "task_type")
        return {key: row[key] for key in keys} | {"answer": row["answer"]}
    if name == "longvideobench":
        keys = ("video_id", "duration", "question_category", "topic_category", "subtitle_path")
        made = {key: row[key] for key in keys} | {"question_id": row["id"]}
        return made | {"duration_group": GROUPS[row["duration_group"]], "answer": item.answer}
    if name == "lvbench":
        return {"uid": row["uid"], "question_type": row["question_type"], "answer": row["answer"]}
    printed = {kind: title for title, kind in QUESTION_TYPES.items()}[row["question_type"]]
    return {"video": row["video"], "duration": row["duration"], "question_type": printed, "answer": item.answer}


def write(folder, name, split, root, config=False):
    rows = benchmark(name).load(Folder(root, name, name), split)
    asked = [row for row in rows if benchmark(name).evaluated(row, "release")]
    letters = [LETTERS[i % len(LETTERS)] for i in range(len(asked))]
    folder.mkdir(parents=True)
    metas = {i: meta_of(name, row) for i, row in enumerate(asked)}
    (folder / "anno_id2result.json").write_text(json.dumps(dict(enumerate(letters))))
    (folder / "anno_id2meta.json").write_text(json.dumps(metas))
    if config:
        (folder / "config.yaml").write_text(CONFIG % name)
    return folder / "anno_id2result.json", [benchmark(name).item(row) for row in asked], letters


def settings(results, root, *words):
    return [f"results={results}", f"data.root={root}", *words]


@pytest.mark.parametrize(
    "name, split", [("videomme", "test"), ("mlvu", "dev"), ("longvideobench", "val"), ("lvbench", "test")]
)
def test_every_answer_finds_its_question(name, split, tmp_path, root):
    path, items, letters = write(tmp_path / "release", name, split, root)
    cell = imported(path, *settings(tmp_path, root))
    assert (cell.benchmark, cell.record["split"], cell.parser) == (name, split, "release")
    found = {q.question_id: cell.answers[q.question_id].text for q in cell.questions}
    assert found == {item.question_id: letter for item, letter in zip(items, letters, strict=True)}
    assert not cell.matching["unmatched"] and not cell.matching["gold_differs"]
    assert [bool(x) for x in cell.correct()] == [cell.said[q.question_id].correct for q in cell.questions]
    assert cell.unparsed == letters.count("")


def test_the_settings_beside_the_answers_are_declared(tmp_path, root):
    path, _, _ = write(tmp_path / "release", "lvbench", "test", root, config=True)
    setting = imported(path, *settings(tmp_path, root)).setting
    wanted = {"model": "qwen2_5_vl", "frames": 1024, "fps": 2, "long_side": 448, "yarn_factor": 4, "context": 16000}
    assert {key: setting[key] for key in wanted} == wanted
    assert setting["release.compression_method"] == "stdvidlkv" and setting["dtype"] == "not said"


def test_questions_that_the_release_skipped_are_absent(tmp_path, root, capsys):
    path, items, _ = write(tmp_path / "release", "videomme", "test", root)
    for file in (path, path.with_name("anno_id2meta.json")):
        kept = json.loads(file.read_text())
        del kept["3"]
        file.write_text(json.dumps(kept))
    assert main(*composed("import", *settings(tmp_path, root, f"imported.files=['{path.parent}']"))) == 0
    assert f"1 questions of the benchmark are not in the file: {items[3].question_id}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "result, meta, message",
    [
        ('{"0": "A"}', None, r"needs anno_id2meta.json .* of the same run"),
        ('{"0": "A"', "{}", "is not JSON"),
        ('{"0": "\udcff"}', "{}", "line 1: is not UTF-8"),
        ("[]", "{}", r"is not an object but '\[\]'"),
        ("{}", "{}", "holds no answer"),
        ('{"0": 1}', '{"0": {"sub_category": "x"}}', "question 0: the answer is 1, not a letter"),
        ('{"0": "A", "7": "B"}', '{"0": {"sub_category": "x"}}', "question 7: is absent"),
    ],
)
def test_bad_files_are_named_with_the_question(result, meta, message, tmp_path, root):
    (tmp_path / "anno_id2result.json").write_text(result, errors="surrogateescape")
    if meta is not None:
        (tmp_path / "anno_id2meta.json").write_text(meta)
    with pytest.raises(UserError, match=message):
        imported(tmp_path / "anno_id2result.json", *settings(tmp_path, root))
