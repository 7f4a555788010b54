"""Inspect's logs: what we export, its own reader reads; what it writes, we read."""

from __future__ import annotations

import json
import re

import pytest
from imported_files import HOSTILE, own_cell
from verbs import composed, imported

from harness.errors import UserError
from harness.evidence.loading import load_cells
from harness.tools.exchange.exporting import main


def settings(results, root, *words):
    return [f"results={results}", f"data.root={root}", *words]


def export(results, root):
    main(*composed("export", *settings(results, root, "export.formats=[inspect]")))
    (path,) = (results / "export" / "inspect").rglob("[!.]*.json")
    return path


def test_inspect_itself_reads_the_log(tmp_path, root):
    log_module = pytest.importorskip("inspect_ai.log", reason="the extra `inspect` is not installed")
    own_cell(tmp_path, root, "videomme", HOSTILE, failed=2)
    (own,) = load_cells(tmp_path)
    log = log_module.read_eval_log(str(export(tmp_path, root)))
    assert log.status == "success" and log.eval.task == "adaretake_videomme" and len(log.samples) == own.n
    letters, right = own.letters(), own.correct()
    for i, sample in enumerate(log.samples):
        answer = own.answers[sample.id]
        assert (sample.error is not None) == (not answer.ok)
        assert sample.output.completion == answer.text and sample.target == own.questions[i].answer
        score = sample.scores[own.parser]
        assert (score.answer or None) == letters[i] and (score.value == "C") == (right[i] == 1.0)
    mean = {score.name: score.metrics["accuracy"].value for score in log.results.scores}
    assert mean.keys() == {own.parser, *own.other_parsers}
    assert mean[own.parser] == pytest.approx(right.mean())
    (listed,) = log_module.list_eval_logs(str(tmp_path / "export" / "inspect"))
    header = log_module.read_eval_log(listed, header_only=True)  # what `inspect view` lists; it reads the file in order
    assert header.eval.task == log.eval.task and header.results == log.results and header.samples is None
    shown = log_module.read_eval_log_sample(str(export(tmp_path, root)), own.questions[0].question_id)
    assert shown.messages[0].content == shown.input


@pytest.mark.parametrize("suffix", ["json", "eval"])
def test_a_log_that_inspect_wrote_is_read(suffix, tmp_path, root):
    """Written by inspect_ai's own `write_eval_log`, in both of its forms."""
    log_module = pytest.importorskip("inspect_ai.log", reason="the extra `inspect` is not installed")
    own_cell(tmp_path, root, "lvbench", HOSTILE)
    (own,) = load_cells(tmp_path)
    log = log_module.read_eval_log(str(export(tmp_path, root)))
    theirs = tmp_path / f"theirs.{suffix}"
    log_module.write_eval_log(log, str(theirs))
    cell = imported(theirs, *settings(tmp_path, root))
    assert [cell.answers[q.question_id].text for q in cell.questions] == [
        own.answers[q.question_id].text for q in own.questions
    ]
    assert cell.letters() == own.letters() and cell.setting["frames"] == own.setting["frames"]


def test_a_packed_log_without_the_package_says_what_to_do(tmp_path, root):
    try:
        import inspect_ai  # noqa: F401
    except ImportError:
        (tmp_path / "x.eval").write_bytes(b"PK")
        with pytest.raises(UserError, match="inspect_ai is not installed; install it, or write the log as JSON"):
            imported(tmp_path / "x.eval", *settings(tmp_path, root, "imported.of=videomme"))
    else:
        pytest.skip("inspect_ai is installed")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda log: log.pop("samples"), "is no log of Inspect with samples"),
        (lambda log: log.update(samples=[]), "holds no sample"),
        (lambda log: log["samples"].__setitem__(1, "x"), "sample 2: is no sample: it has no id"),
        (lambda log: log["samples"][1].pop("output"), "sample 2: has neither an output nor an error"),
        (lambda log: log["samples"][1]["output"].update(choices=[{}]), "sample 2: cannot be read (KeyError"),
    ],
)
def test_a_bad_log_is_named_with_the_sample(change, message, tmp_path, root):
    own_cell(tmp_path, root, "videomme", HOSTILE)
    path = export(tmp_path, root)
    log = json.loads(path.read_text())
    change(log)
    path.write_text(json.dumps(log))
    with pytest.raises(UserError, match=re.escape(message)):
        imported(path, *settings(tmp_path, root))
