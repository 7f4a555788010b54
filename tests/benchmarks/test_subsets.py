"""Subsets: the rule's shares, its independence of order and machine, and the committed files."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from harness.benchmarks import questions as subsets
from harness.benchmarks.benchmark import Item, benchmark, benchmark_names
from harness.benchmarks.files import TASKS
from harness.benchmarks.questions import SIZES, largest_remainders, load_questions, load_rows, select, subset_ids
from harness.errors import UserError

LVBENCH = benchmark("lvbench")


def items_of(n: int) -> list[Item]:
    kinds = ["entity recognition"] * 6 + ["reasoning"] * 3 + ["summarization"]
    rows = [
        {"uid": str(i), "question": f"q{i}?\n(A) a\n(B) b", "answer": "A", "type": ("tv", "sport")[i % 2]}
        | {"question_type": [kinds[i % 10]], "key": f"v{i // 15}"}
        for i in range(n)
    ]
    return [LVBENCH.item(row) for row in rows]


def stratum(item: Item) -> tuple[str, str]:
    return item.tags["video_type"], item.tags["question_type"][0]


@pytest.mark.parametrize("subset", SIZES)
def test_every_stratum_has_its_share(subset):
    items = items_of(1500)
    chosen = set(subset_ids(items, LVBENCH, SIZES[subset]))
    assert len(chosen) == SIZES[subset]
    whole = Counter(map(stratum, items))
    found = Counter(stratum(item) for item in items if item.question_id in chosen)
    for key, n in whole.items():
        assert abs(found[key] - n * SIZES[subset] / 1500) < 1


def test_the_rule_depends_on_ids_only(task):
    items = items_of(400)
    shuffled = items[:]
    random.Random(0).shuffle(shuffled)
    assert subset_ids(items, LVBENCH, 30) == subset_ids(shuffled, LVBENCH, 30)
    setting = task("lvbench", subset="mini")
    assert select(items, setting, LVBENCH) == select(shuffled, setting, LVBENCH)


def test_a_subset_is_never_the_whole():
    assert len(subset_ids(items_of(108), LVBENCH, SIZES["ci"])) == 54


def test_the_rule_is_the_same_on_every_machine():
    """Pinned: a change of the rule would silently change what CI measures."""
    assert subset_ids(items_of(60), LVBENCH, 6) == PINNED


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


def test_tries_of_one_vnbench_sample_stay_together(root, task):
    items = [item for _, item in load_rows(task("vnbench", "official"), root)]
    ids = set(subset_ids(items, benchmark("vnbench"), 12))
    samples = Counter(item.tags["sample"] for item in items if item.question_id in ids)
    assert len(ids) == 12 and set(samples.values()) == {4}


def test_a_subset_is_the_same_under_every_protocol(root, task):
    found = [
        {q.question_id for q in load_questions(task("mlvu", protocol, split="dev", subset="mini"), root)}
        for protocol in benchmark("mlvu").protocols
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
    setting = task("lvbench", subset="mini")
    items = [item for _, item in load_rows(task("lvbench"), root)]
    known = {item.question_id for item in items}
    monkeypatch.setattr(subsets, "TASKS", tmp_path)
    assert subsets.pinned_ids(setting, known) is None
    (tmp_path / "lvbench").mkdir()
    assert [path.name for path in subsets.write("tiny", setting, root)] == ["tiny_test_ci.txt", "tiny_test_mini.txt"]
    assert len(subsets.pinned_ids(setting, known)) == 3
    path = tmp_path / "lvbench" / "subsets" / "tiny_test_mini.txt"
    path.write_text("\n".join([path.read_text().splitlines()[0], "1", "2"]) + "\n")
    assert [item.question_id for _, item in load_rows(setting, root)] == ["1", "2"]
    # The ids of a small annotation are ids of a larger one as well: Video-MME's and LVBench's are numbers.
    assert subsets.pinned_ids(setting, known | {"7"}) is None


def test_every_benchmark_has_strata_that_its_questions_have(root, task):
    for name in benchmark_names():
        asked = benchmark(name)
        setting = task(name, next(iter(asked.protocols)), split=next(iter(asked.counts)))
        for _, item in load_rows(setting, root):
            assert set(asked.strata) <= set(item.tags) and (asked.together is None or asked.together in item.tags)
