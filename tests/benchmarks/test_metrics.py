"""Metrics by hand, on subsets, and against lmms-eval's own aggregations."""

import math
import random

import pytest

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.metrics import Metric, grouped


def metrics(name, items):
    return benchmark(name).metrics.scores(items)


def item(score, **tags):
    return {"score": float(score), "letter": "A", "tags": tags}


def test_mlvu_macro_and_micro():
    items = [item(s, question_type="plotQA") for s in (1, 1, 1, 0)] + [item(0, question_type="ego")]
    found = metrics("mlvu", items)
    assert found == {"m_avg": 37.5, "m_avg_sample": 60.0, "type_plotqa": 75.0, "type_ego": 0.0}
    assert benchmark("mlvu").metrics.main == "m_avg"


def test_videomme_by_duration_uses_each_group_once():
    items = [item(1, duration="short", task_type="OCR Problems")] * 3 + [item(0, duration="long", domain="Knowledge")]
    found = metrics("videomme", items)
    assert found["overall"] == 75.0 and found["overall_by_duration"] == 50.0
    assert found["task_type_ocr_problems"] == 100.0
    assert "duration_medium" not in found  # absent, not zero


def test_lvbench_question_counts_in_each_of_its_types_and_once_overall():
    items = [item(1, question_type=["reasoning", "entity recognition"]), item(0, question_type=["reasoning"])]
    found = metrics("lvbench", items)
    assert found == {"overall": 50.0, "type_reasoning": 50.0, "type_entity_recognition": 100.0}


def test_vnbench_sample_needs_all_its_tries():
    def tries(kind, sample, scores):
        return [item(s, type=kind, task=kind.split("_")[0], sample=sample) for s in scores]

    items = tries("ret_edit1", "v1", [1, 1, 1, 1]) + tries("ret_edit1", "v2", [1, 1, 1, 0])
    items += tries("ord_edit1", "v1b", [1, 0, 1, 1])
    found = metrics("vnbench", items)
    assert found["overall"] == 25.0  # mean of 50 and 0
    assert found["type_ret_edit1"] == 50.0 and found["task_ord"] == 0.0
    assert found["single_try"] == pytest.approx(100 * 10 / 12)


def group(kind, structure, scores, video="001"):
    return [
        item(score, group=video, group_type=kind, group_structure=structure, place=str(place), group_level="3")
        for place, score in enumerate(scores, 1)
    ]


@pytest.mark.parametrize(
    ("kind", "structure", "scores", "worth"),
    [
        ("relevance", "none", (0, 0, 1, 0), 100 / 16),
        ("relevance", "none", (1, 0, 1, 1), 900 / 16),
        ("logic", "[1, 2, 3, 4]", (1, 1, 0, 1), 400 / 16),
        ("logic", "[1, 2, 3, 4]", (0, 1, 1, 1), 0),
        ("logic", "[1, [2, 3], 4]", (1, 0, 1, 1), 400 / 12),
        ("logic", "[1, [2, 3], 4]", (0, 0, 1, 0), 0),
        ("logic", "[[1, 2], 3, 4]", (0, 1, 1, 1), 10),
        ("logic", "[[1, 2], 3, 4]", (1, 1, 1, 0), 50),
        ("logic", "[[1, 2], 3, 4]", (1, 1, 1, 1), 100),
    ],
)
def test_videomme_v2_group_is_worth_its_chain(kind, structure, scores, worth):
    found = metrics("videomme_v2", group(kind, structure, scores))
    assert found["overall"] == found["level_3"] == found[f"group_type_{kind}"] == pytest.approx(worth)
    assert found["accuracy"] == 25 * sum(scores)


def test_videomme_v2_question_without_an_answer_is_no_link():
    assert metrics("videomme_v2", group("logic", "[1, 2, 3, 4]", (1, 1, 1, 1))[1:])["overall"] == 0
    assert metrics("videomme_v2", group("relevance", "none", (1, 1, 1, 1))[1:])["overall"] == 900 / 16


def test_videomme_v2_is_scored_as_by_lmms_eval(root, task):
    """Every pattern of right and wrong answers, group by group, and rows whose order is mixed."""
    import itertools

    utils = pytest.importorskip("lmms_eval.tasks.videomme_v2.utils")
    from harness.benchmarks.questions import load_asked, score_choice

    asked = benchmark("videomme_v2")
    rows = load_asked(task("videomme_v2", "lmms_eval"), root)
    for pattern in itertools.product((True, False), repeat=4):
        ours, theirs = [], []
        for row, question in rows:
            right = pattern[int(row["question_id"][-1]) - 1]
            text = row["answer"] if right else "ABCDEFGH"["BCDEFGHA".index(row["answer"])]
            ours.append(score_choice(text, question, asked.parser("lmms_eval")))
            doc = {key: value for key, value in row.items() if not key.startswith("group_l")}
            theirs.append(utils.videomme_v2_process_results(doc, [text])["videomme_v2_overall_score"])
        expected, found = utils._compute_all_subscores(theirs), asked.metrics.scores(ours)
        names = {"overall": "overall_score", "accuracy": "overall_acc", "group_type_logic": "logic_score"}
        names |= {"group_type_relevance": "relevance_score", "level_1": "level_1_score", "level_3": "level_3_score"}
        assert {name: found[name] for name in names} == pytest.approx(
            {name: expected[of] for name, of in names.items()}
        )


def test_no_questions_no_metrics():
    assert metrics("lvbench", []) == {}
    assert math.isnan(Metric()([]))


def test_names_of_one_question_are_those_that_aggregate():
    tags = {"duration_group": "15", "question_category": "T3O"}
    assert benchmark("longvideobench").metrics.names(tags) == ["overall", "duration_15", "category_t3o"]
    assert list(benchmark("longvideobench").metrics.present([tags])) == ["overall", "category_t3o", "duration_15"]


def test_groups_are_in_a_fixed_order():
    assert list(grouped([item(1, t="b"), item(1, t="a")], "t")) == ["a", "b"]


@pytest.fixture(scope="module")
def answers():
    rng = random.Random(1)
    return [(rng.choice("ABCD"), rng.choice("ABCD"), rng.random()) for _ in range(900)]


def test_videomme_equals_lmms_eval(answers):
    from lmms_eval.tasks.videomme import utils

    docs = [
        {"duration": utils.VIDEO_TYPE[i % 3], "domain": utils.CATEGORIES[i % 6], "sub_category": "Law"}
        | {"task_type": utils.TASK_CATEGORIES[i % 12], "question_id": str(i), "videoID": str(i // 3), "answer": gold}
        for i, (gold, _, _) in enumerate(answers)
    ]
    theirs = utils.videomme_aggregate_results(
        [
            utils.videomme_process_results(doc, [said])["videomme_perception_score"]
            for doc, (_, said, _) in zip(docs, answers, strict=True)
        ]
    )
    items = [item(gold == said, **doc) for doc, (gold, said, _) in zip(docs, answers, strict=True)]
    assert metrics("videomme", items)["overall"] == theirs


def test_mlvu_equals_lmms_eval(answers):
    from lmms_eval.tasks.mlvu import utils

    kinds = ["anomaly_reco", "count", "ego", "needle", "order", "plotQA", "topic_reasoning"]
    docs = [{"question": str(i), "task_type": kinds[int(7 * x**2)], "answer": a} for i, (a, _, x) in enumerate(answers)]
    theirs = utils.mlvu_aggregate_results_dev(
        [
            utils.mlvu_process_results(doc, [said])["mlvu_percetion_score"]
            for doc, (_, said, _) in zip(docs, answers, strict=True)
        ]
    )
    items = [item(a == said, question_type=doc["task_type"]) for doc, (a, said, _) in zip(docs, answers, strict=True)]
    # Their sum runs over a set, in an order that changes between processes.
    assert metrics("mlvu", items)["m_avg"] == pytest.approx(theirs, abs=1e-12)


def test_longvideobench_equals_lmms_eval(answers):
    from lmms_eval.tasks.longvideobench import utils

    groups = [15, 60, 600, 3600]
    docs = [
        {"id": str(i), "duration_group": groups[int(4 * x**2)], "question_category": f"T{i % 17}"}
        | {"correct_choice": "ABCD".index(a), **{f"option{k}": "x" if k < 4 else "N/A" for k in range(5)}}
        for i, (a, _, x) in enumerate(answers)
    ]
    theirs = utils.longvideobench_aggregate_results(
        [
            utils.longvideobench_process_results(doc, [said])["lvb_acc"]
            for doc, (_, said, _) in zip(docs, answers, strict=True)
        ]
    )
    items = [
        item(a == said, duration_group=str(doc["duration_group"]))
        for doc, (a, said, _) in zip(docs, answers, strict=True)
    ]
    assert round(metrics("longvideobench", items)["overall"] / 100, 5) == theirs


def test_stock_prompts_equal_lmms_eval(folder):
    from lmms_eval.tasks.longvideobench import utils as lvb
    from lmms_eval.tasks.lvbench import utils as lvbench
    from lmms_eval.tasks.videomme import utils as videomme

    def rows(name, split="test"):
        for row in benchmark(name).load(folder(name), split):
            yield row, benchmark(name).prompt(row, "lmms_eval", folder(name))

    closing = "Answer with the option's letter from the given choices directly."
    for row, prompt in rows("videomme"):
        expected = videomme.videomme_doc_to_text(row, {"pre_prompt": "", "post_prompt": f"\n{closing}"})
        assert prompt == expected
    for row, prompt in rows("lvbench"):
        expected = lvbench.lvbench_doc_to_text(
            row, {"pre_prompt": "", "post_prompt": "\nAnswer the question with the option letter"}
        )
        assert prompt == expected
    for row, prompt in rows("longvideobench", "val"):
        listed = [*row["candidates"], "N/A"][:5]
        columns = {f"option{i}": text for i, text in enumerate(listed)} | {"question": row["question"]}
        expected = lvb.longvideobench_doc_to_text(columns, {"pre_prompt": "", "post_prompt": f"{closing}\n"})
        assert prompt == expected
