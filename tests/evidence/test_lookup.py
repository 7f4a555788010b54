"""One rule for finding a stored cell: the same reference means the same cell in every verb."""

import pytest
from cell_folders import questions
from twin_cells import one_cell, write_twin
from verbs import composed

from harness.cli import main
from harness.errors import UserError
from harness.evidence.loading import cell_names, find_name, references_of
from harness.settings.compose import compose_config
from harness.settings.matrix import ids_under

WORDS = ["matrix=ablation", "matrix.task=[lvbench]", "matrix.variant=[full]"]
A, B = one_cell("matrix.task=[lvbench]"), one_cell("matrix.task=[lvbench]", "matrix.context=[33]")
BRACKET = "[task=lvbench,frames=64,context=65]"
REFERENCES = {
    "id": A.id,
    "digest": A.digest,
    "beginning of the digest": A.digest[:5],
    "beginning": A.id.rpartition("-")[0],
    "pattern": "*-c65-*",
    "setting": BRACKET,
}


@pytest.fixture
def results(tmp_path):
    for cell in (A, B):
        write_twin(tmp_path / "results", cell, questions("lvbench", 4, 2), "++++++--")
    return tmp_path / "results"


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES)
def test_a_reference_means_one_cell(results, reference):
    assert cell_names(results, [reference], ids_under(WORDS)) == [A.id]
    assert find_name(reference, [A.id, B.id], "runs", ids_under(WORDS)) == A.id


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES)
def test_every_verb_finds_it(results, reference, tmp_path, capsys):
    place, quoted = [f"results={results}", f"data.root={tmp_path}/none"], f"'{reference}'"
    told = {}
    main(["report", *WORDS, *place, f"report.cells=[{quoted}]", "report.html=false"])
    told["report"] = capsys.readouterr()
    main(["check", *WORDS, *place, f"report.cells=[{quoted}]", "--update-baseline", f"baseline={tmp_path}/b.json"])
    told["check"] = capsys.readouterr()
    main(["export", "lmms_eval", *place, f"cell={quoted}", f"output={tmp_path}/out"])
    told["export"] = capsys.readouterr()
    main(["show", "nothing", *WORDS, *place, f"cell={quoted}"])
    told["show"] = capsys.readouterr()
    main(["bridge", reference, B.id, "--plan", *WORDS, *place])
    told["bridge"] = capsys.readouterr()
    main(["compare", str(results), str(results), f"results={tmp_path}/c", f"report.cells=[{A.digest}]"])
    told["compare"] = capsys.readouterr()
    for verb, said in told.items():
        assert "matches no cell" not in said.err and "does not read" not in said.err, (verb, said.err)
    assert ": 1 cells, 8 answers" in told["check"].out
    assert A.id in told["export"].out and B.id not in told["export"].out
    assert "context: 65 -> 33" in told["bridge"].out
    assert "has a question 'nothing'" in told["show"].err


@pytest.mark.parametrize("reference", ["nothing", "ffffffff", "*-c66-*", "[task=mlvu,frames=64]"])
def test_one_that_means_none_is_named_with_what_is_allowed(results, reference):
    with pytest.raises(UserError, match="matches no cell of .*allowed are an id, a digest") as error:
        cell_names(results, [reference], ids_under(WORDS))
    assert repr(reference) in str(error.value) and "lvbench-toy" in str(error.value)


def test_a_few_letters_are_no_digest(results):
    with pytest.raises(UserError, match="matches no cell"):
        cell_names(results, [A.digest[:3]])


@pytest.mark.parametrize("digest", ["01234567", "1234e567", "12345678"])
def test_a_digest_that_looks_like_a_number_stays_one(digest):
    assert compose_config([f"report.cells=[{digest},'x']"]).report.cells == [digest, "x"]
    assert composed("show", f"show.cell={digest}")[1].cell == digest


def test_commas_part_references_but_not_settings():
    assert references_of(f"a*, {BRACKET} ,b") == ["a*", BRACKET, "b"]
    assert references_of(None) == [] and references_of(["a", 12345678]) == ["a", "12345678"]
