"""Subsets: the rule's shares, its independence of order and machine, and the committed files."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from harness.benchmarks import subsets
from harness.benchmarks.questions import functions, load_questions
from harness.benchmarks.root import TASKS
from harness.benchmarks.subsets import SIZES, STRATA, largest_remainders, select, subset_ids
from harness.errors import UserError


def rows_of(n: int) -> list[dict]:
    kinds = ["entity recognition"] * 6 + ["reasoning"] * 3 + ["summarization"]
    return [
        {"uid": str(i), "question": f"q{i}?\n(A) a\n(B) b", "answer": "A", "type": ("tv", "sport")[i % 2]}
        | {"question_type": [kinds[i % 10]], "key": f"v{i // 15}"}
        for i in range(n)
    ]


@pytest.mark.parametrize("subset", SIZES)
def test_every_stratum_has_its_share(subset):
    rows, module = rows_of(1500), functions("lvbench")
    chosen = set(subset_ids(rows, "lvbench", SIZES[subset], module))
    assert len(chosen) == SIZES[subset]
    whole = Counter((row["type"], row["question_type"][0]) for row in rows)
    found = Counter((row["type"], row["question_type"][0]) for row in rows if row["uid"] in chosen)
    for stratum, n in whole.items():
        assert abs(found[stratum] - n * SIZES[subset] / 1500) < 1


def test_the_rule_depends_on_ids_only(task):
    rows, module = rows_of(400), functions("lvbench")
    shuffled = rows[:]
    random.Random(0).shuffle(shuffled)
    assert subset_ids(rows, "lvbench", 30, module) == subset_ids(shuffled, "lvbench", 30, module)
    setting = task("lvbench", subset="mini")
    assert [row for row in shuffled if row in select(rows, setting, module)] == select(shuffled, setting, module)


def test_the_rule_is_the_same_on_every_machine():
    """Pinned: a change of the rule would silently change what CI measures."""
    assert subset_ids(rows_of(60), "lvbench", 6, functions("lvbench")) == PINNED


PINNED = ["1", "29", "30", "46", "50", "55"]
COMMITTED = sorted(TASKS.glob("*/subsets/*.txt"))


def test_shares_add_up_and_exceed_no_stratum():
    rng = random.Random(3)
    for _ in range(200):
        sizes = {(str(i),): rng.randint(1, 50) for i in range(rng.randint(1, 12))}
        total = rng.randint(1, 200)
        shares = largest_remainders(sizes, total)
        assert sum(shares.values()) == min(total, sum(sizes.values()))
        assert all(0 <= shares[key] <= n for key, n in sizes.items())


def test_tries_of_one_vnbench_sample_stay_together(root):
    module = functions("vnbench")
    rows = module.load(root)
    ids = set(subset_ids(rows, "vnbench", 12, module))
    samples = Counter(module.tags(row)["sample"] for row in rows if module.question_id(row) in ids)
    assert len(ids) == 12 and set(samples.values()) == {4}


def test_a_subset_is_the_same_under_every_protocol(root, task):
    found = [
        {q.question_id for q in load_questions(task("mlvu", protocol, split="dev", subset="mini"), root)}
        for protocol in functions("mlvu").PROTOCOLS
    ]
    assert found[0] == found[1]


def test_unknown_subset(root, task):
    with pytest.raises(UserError, match="task.subset=small is not known; allowed: null, ci, mini"):
        load_questions(task("lvbench", subset="small"), root)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_committed_files_are_of_their_size(path):
    subset = path.stem.rpartition("_")[2]
    head, *ids = path.read_text().splitlines()
    assert head.startswith("# of the annotation with ")
    assert ids == sorted(set(ids)) and 20 <= len(ids) <= SIZES[subset]


def test_a_file_is_used_for_its_own_annotation_only(root, task, tmp_path, monkeypatch):
    setting, module = task("lvbench", subset="mini"), functions("lvbench")
    rows = module.load(root)
    known = {row["uid"] for row in rows}
    monkeypatch.setattr(subsets, "TASKS", tmp_path)
    assert subsets.pinned_ids(setting, known) is None
    (tmp_path / "lvbench").mkdir()
    assert [path.name for path in subsets.write("tiny", setting, root)] == ["tiny_test_ci.txt", "tiny_test_mini.txt"]
    assert subsets.pinned_ids(setting, known) == known
    path = tmp_path / "lvbench" / "subsets" / "tiny_test_mini.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:3]) + "\n")
    assert [row["uid"] for row in select(rows, setting, module)] == ["1", "2"]
    # The ids of a small annotation are ids of a larger one as well: Video-MME's and LVBench's are numbers.
    assert subsets.pinned_ids(setting, known | {"7"}) is None


def test_every_benchmark_has_strata():
    assert set(STRATA) == {path.parent.name for path in TASKS.glob("*/functions.py")}
