"""Which cells are replicates: alike but for what is random in a reproduction."""

from __future__ import annotations

from cell_folders import cell_record, questions, write_cell

from harness.evidence.loading import load_cells, published_letters, replicates

ASKED = questions("lvbench", 4)
RIGHT = [True, False, True] * 4


def write(results, digest, **changes):
    write_cell(results, ASKED, RIGHT, record=cell_record("lvbench", **changes), digest=digest)


def test_sets_of_every_kind(tmp_path):
    write(tmp_path, "00000000")
    write(tmp_path, "00000001", task__replicate=1)
    write(tmp_path, "00000002", task__replicate=2, method__seed=2)
    write(tmp_path, "00000003", model__dtype="float32")
    write(tmp_path, "00000008", model__numerics="eager")
    write(tmp_path, "00000004", task__name="lvbench_stock", task__protocol="lmms_eval")
    write(tmp_path, "00000005", context=40000)
    write(tmp_path, "00000006", variant="no_both")
    write(tmp_path, "00000007", variant="no_both", task__replicate=1)
    found = replicates(load_cells(tmp_path))
    by_kind = {}
    for each in found:
        by_kind.setdefault(each.kind, []).append({cell.id.rsplit("-", 1)[1] for cell in each.cells})
    assert sorted(map(sorted, by_kind["replicate"])) == [["00000000", "00000001", "00000002"], ["00000006", "00000007"]]
    assert by_kind["numerics"] == [{"00000000", "00000003", "00000008"}]
    assert by_kind["prompt"] == [{"00000000", "00000004"}]


def test_letters_of_replicates_mean_the_same_text(tmp_path):
    write(tmp_path, "00000000")
    write(tmp_path, "00000001", task__replicate=1)
    plain, other = sorted(load_cells(tmp_path), key=lambda cell: cell.setting["replicate"])
    assert published_letters(plain) == plain.letters()
    assert published_letters(other) != other.letters()
