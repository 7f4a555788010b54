"""A cell of ours, exported and imported again, is the same in every format."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from imported_files import HOSTILE, ask_lmms, own_cell, write_lmms
from verbs import composed, imported

from harness.errors import UserError
from harness.evidence.loading import load_cells
from harness.settings.compose import compose_config
from harness.tools.exchange import exporting
from harness.tools.exchange.exporting import WRITERS, main
from harness.tools.exchange.importing import read_file

TASKS = [
    "videomme",
    "videomme_v2",
    "mlvu",
    "mlvu_test",
    "longvideobench_nosub",
    "longvideobench_test_nosub",
    "lvbench_stock",
    "vnbench",
]


def settings(results, root, *words):
    return [f"results={results}", f"data.root={root}", *words]


def export(results, root, format, *words):
    """The exported file of answers of the only cell."""
    main(*composed("export", *settings(results, root, f"export.formats=[{format}]", *words)))
    (folder,) = (results / "export" / format).iterdir()
    (path,) = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and "_results" not in p.name]
    return path


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize("task", TASKS)
def test_letters_scores_and_texts_come_back(task, format, tmp_path, root):
    own_cell(tmp_path, root, task, HOSTILE, failed=1)
    (own,) = load_cells(tmp_path)
    cell = imported(export(tmp_path, root, format), *settings(tmp_path, root))
    assert cell.benchmark == own.benchmark and cell.record["split"] == own.cell["task"]["split"]
    assert [q.question_id for q in cell.questions] == [q.question_id for q in own.questions]
    assert cell.statuses == own.statuses and cell.failed == 1
    ok = [q.question_id for q, status in zip(own.questions, own.statuses, strict=True) if status == "ok"]
    assert [cell.answers[name].text for name in ok] == [own.answers[name].text for name in ok]
    for parser in (own.parser, *own.other_parsers):
        assert cell.letters(parser) == own.letters(parser)
        assert np.array_equal(cell.correct(parser), own.correct(parser), equal_nan=True)
    made = cell.matching
    assert not (made["unmatched"] or made["reordered"] or made["gold_differs"])
    assert not {q.question_id for q in own.questions} & set(made["absent"])
    assert not made["wording_differs"] and set(made["matched"]) <= {"id", "video and text", "order"}


@pytest.mark.parametrize("format", WRITERS)
def test_without_the_annotation_ids_and_options_are_enough(format, tmp_path, root):
    own_cell(tmp_path, root, "videomme", HOSTILE)
    (own,) = load_cells(tmp_path)
    elsewhere = tmp_path / "nothing"
    cell = imported(export(tmp_path, elsewhere, format), *settings(tmp_path, elsewhere))
    assert "stored cells" in cell.matching["source"] and cell.letters() == own.letters(cell.parser)


@pytest.mark.parametrize("format", WRITERS)
def test_nothing_is_overwritten_that_export_did_not_write(format, tmp_path, root):
    own_cell(tmp_path, root, "vnbench", HOSTILE)
    path = export(tmp_path, root, format)
    assert export(tmp_path, root, format) == path  # its own file is written anew
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(UserError, match="is not as an export wrote it"):
        export(tmp_path, root, format)


@pytest.mark.parametrize("ledger", ["[1]", "torn", '{"a": 1}'])
def test_a_damaged_ledger_is_said_with_a_command_that_works(ledger, tmp_path):
    folder = tmp_path / "my cell"
    exporting.write_exported(folder, {"a": b"old"})
    (folder / exporting.LEDGER).write_text(ledger)
    with pytest.raises(UserError, match="is damaged") as said:
        exporting.write_exported(folder, {"a": b"new"})
    subprocess.run(str(said.value).rpartition(": ")[2], shell=True, check=True)
    assert (tmp_path / "my cell.old" / "a").read_bytes() == b"old"
    exporting.write_exported(folder, {"a": b"new"})


def test_an_interrupted_export_goes_on(tmp_path, monkeypatch):
    """A full disk at the second file: the first is written, and both are written by the next start."""
    from harness.store import StoreError, write_atomic

    def full(path, content):
        if path.name == "b":
            raise StoreError("the disk is full")
        write_atomic(path, content)

    exporting.write_exported(tmp_path / "cell", {"a": b"old", "b": b"old"})
    with monkeypatch.context() as disk, pytest.raises(StoreError):
        disk.setattr(exporting, "write_atomic", full)
        exporting.write_exported(tmp_path / "cell", {"a": b"new", "b": b"new"})
    exporting.write_exported(tmp_path / "cell", {"a": b"newer", "b": b"newer"})
    assert {path.read_bytes() for path in (tmp_path / "cell").glob("[!.]*")} == {b"newer"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_bytes(b"mine")
    with pytest.raises(UserError, match="is left alone"):
        exporting.write_exported(tmp_path / "other", {"a": b"new"})


def test_missing_answers_are_missing_in_the_file(tmp_path, root, capsys):
    folder = own_cell(tmp_path, root, "vnbench", HOSTILE)
    lines = (folder / "answers.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "answers.jsonl").write_bytes(b"".join(lines[:20]))
    assert (
        main(*composed("export", *settings(tmp_path, root, "export.formats=[lmms_eval]", "export.cell=['vnbench*']")))
        == 1
    )
    assert "20 answers; 4 questions " in capsys.readouterr().out


@pytest.mark.parametrize("formats, said", [("[xml]", "export: xml is not known"), ("[]", "export: no format")])
def test_formats_are_named(formats, said, tmp_path, root):
    own_cell(tmp_path, root, "vnbench", HOSTILE)
    with pytest.raises(UserError, match=said):
        main(*composed("export", *settings(tmp_path, root, f"export.formats={formats}")))


@pytest.mark.parametrize("cell", ["{0}", "{0},{0}", "[{0}]", "'vnbench*'", "['vnbench*']"])
def test_cells_are_named_as_for_show(cell, tmp_path, root, capsys):
    folder = own_cell(tmp_path, root, "vnbench", HOSTILE)
    words = ("export.formats=[inspect]", f"export.cell={cell.format(folder.name)}")
    assert main(*composed("export", *settings(tmp_path, root, *words))) == 0
    assert capsys.readouterr().out.count("24 answers") == 1


def test_the_setting_of_our_own_export_comes_back(tmp_path, root):
    own_cell(tmp_path, root, "longvideobench", HOSTILE)
    (own,) = load_cells(tmp_path)
    cell = imported(export(tmp_path, root, "lmms_eval"), *settings(tmp_path, root))
    assert cell.parser == own.parser and cell.protocol == own.protocol == "release_subtitles"
    assert {key: cell.setting.get(key) for key in own.setting} == own.setting


def test_our_lmms_eval_file_is_the_one_that_lmms_eval_writes(tmp_path, root):
    """Two derivations: our writer, and lmms-eval's evaluator and tracker with the same answers."""
    from harness.lmms.task import build_task

    own_cell(tmp_path, root, "mlvu", HOSTILE)
    samples = ask_lmms(build_task(compose_config(["task=mlvu"]).task, root), HOSTILE)
    theirs = write_lmms(tmp_path / "logs", "adaretake_mlvu", samples)
    ours = export(tmp_path, root, "lmms_eval")
    pairs = zip(theirs.read_text().split("\n"), ours.read_text().split("\n"), strict=True)
    for a, b in pairs:
        assert not a and not b or json.loads(a) == json.loads(b)
    assert read_file(ours).rows[0].correct is not None
