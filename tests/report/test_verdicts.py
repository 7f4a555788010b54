"""python -m pytest tests/report/test_verdicts.py"""

import numpy as np
import pytest
from cell_folders import VARIANTS, cell_record, questions, rewrite, write_cell

from harness.report.config import ReportConfig
from harness.report.context import Context
from harness.report.expected import Claim, Published, load_tables
from harness.report.loading import load_cells
from harness.report.statistics import Difference, Estimate
from harness.report.verdicts import judge_claims, judge_difference, judge_numbers, judge_score

CONFIG = ReportConfig()
TABLES = load_tables("results/expected")


def published(score, digits=1):
    return Published("A", "full", "lvbench", "t", "s", "overall", score, digits, {"task": "lvbench"}, "release")


def estimate(value, se, n=1500):
    """With that standard error on 499 degrees of freedom, about."""
    p = value / 100
    return Estimate(value, n, 500, 499, p * (1 - p) / (se / 100) ** 2, 1.0)


@pytest.mark.parametrize(
    ("value", "se", "score", "verdict"),
    [
        (50.0, 1.0, 50.4, "reproduced"),
        (50.0, 1.0, 51.2, "reproduced"),
        (50.0, 1.0, 51.5, "cannot tell"),  # 1.65 below + 1.5 + rounding reaches the margin
        (50.0, 1.0, 53.0, "differs"),
        (50.0, 2.5, 50.0, "cannot tell"),
        (50.0, 0.1, 50.5, "reproduced"),  # significant and yet within the margin
        (50.0, 0.1, 53.2, "differs"),
    ],
)
def test_verdict_on_a_number(value, se, score, verdict):
    assert judge_score(estimate(value, se), published(score), CONFIG)[0] == verdict


def test_rounding_of_the_published_number_counts():
    found = estimate(50.0, 1.0)  # 95 % interval up to 51.96
    assert judge_score(found, published(52.0, digits=2), ReportConfig(margin=0.5))[0] == "differs"
    assert judge_score(found, published(52.0, digits=1), ReportConfig(margin=0.5))[0] == "cannot tell"


def test_needed_questions_do_settle_it():
    found = estimate(50.0, 1.5)
    verdict, reason, needed = judge_score(found, published(51.0), CONFIG)
    assert verdict == "cannot tell" and str(needed) in reason
    more = estimate(50.0, 1.5 * np.sqrt(found.n / needed), needed)
    assert judge_score(more, published(51.0), CONFIG)[0] == "reproduced"
    fewer = estimate(50.0, 1.5 * np.sqrt(found.n / (0.9 * needed)), needed)
    assert judge_score(fewer, published(51.0), CONFIG)[0] == "cannot tell"


def claim(direction, published=None):
    return Claim("X", "B", "text", "full", "no_both", ["lvbench"], direction, published)


@pytest.mark.parametrize(
    ("direction", "value", "se", "verdict"),
    [
        ("up", 1.0, 0.4, "holds"),
        ("up", -1.0, 0.4, "contradicted"),
        ("up", 0.5, 0.4, "cannot tell"),
        ("down", -1.0, 0.4, "holds"),
        ("down", 1.0, 0.4, "contradicted"),
        ("none", 0.1, 0.3, "holds"),
        ("none", 0.1, 0.8, "cannot tell"),
        ("none", 2.0, 0.5, "contradicted"),
    ],
)
def test_verdict_on_a_claim(direction, value, se, verdict):
    found = Difference(value, 1500, 500, 499, 1000, 1.5, value, se, 0.5, 3, 1)
    assert judge_difference(claim(direction), found, CONFIG)[0] == verdict


def test_a_tight_interval_below_the_published_size_says_so():
    found = Difference(0.1, 1500, 500, 499, 1000, 1.5, 0.1, 0.1, 0.5, 3, 1)
    verdict, reason = judge_difference(claim("up", 0.78), found, CONFIG)
    assert verdict == "cannot tell" and "excludes the published size +0.78" in reason


def full_lvbench(results, variant, right, digest, **changes):
    asked = questions("lvbench", 103, 15) + questions("lvbench", 105, 2)[206:]
    return write_cell(results, asked[: len(right)], list(right), variant=variant, digest=digest, **changes)


def test_ablation_is_judged_pair_by_pair(tmp_path):
    rng = np.random.default_rng(0)
    base = rng.random(1549) < 0.49
    better = base.copy()
    better[np.flatnonzero(~base)[:60]] = True
    better[np.flatnonzero(base)[:10]] = False
    for i, (variant, right) in enumerate({"no_both": base, "no_layer": better, "no_temporal": base}.items()):
        full_lvbench(tmp_path, variant, right, f"{i}")
    context = Context(load_cells(tmp_path), TABLES)
    claims = {v.claim.id: v for v in judge_claims(context)}
    assert claims["B1"].verdict == "holds"
    assert (claims["B1"].difference.gained, claims["B1"].difference.lost) == (60, 10)
    assert claims["B1"].p_holm >= claims["B1"].difference.p
    assert claims["B5"].verdict == "cannot tell" and claims["B5"].difference.value == 0
    assert claims["B2"].verdict == "not run" and claims["E1"].verdict == "not run"
    numbers = {v.published.id: v for v in judge_numbers(context)}
    assert numbers["B.no_both.lvbench"].verdict in ("reproduced", "cannot tell")
    assert numbers["B.full.lvbench"].verdict == "not comparable"
    assert "variant" in numbers["B.full.lvbench"].reason
    assert numbers["C.qwen2_vl_7b.mlvu"].verdict == "not run"
    assert not any(v.published.quoted for v in numbers.values())


def test_incomplete_and_toy_cells_are_never_compared(tmp_path):
    right = [True] * 1549
    full_lvbench(tmp_path, "full", right[:-1] + [None], "1")
    full_lvbench(tmp_path, "no_both", right, "2", model__name="toy")
    context = Context(load_cells(tmp_path), TABLES)
    numbers = {v.published.id: v for v in judge_numbers(context)}
    assert numbers["B.full.lvbench"].verdict == "not comparable"
    assert numbers["B.full.lvbench"].reason == "incomplete: 1 of 1549 questions are not answered"
    assert not any(v.cell is not None and v.cell.toy for v in numbers.values())
    assert {v.verdict for v in judge_claims(context)} <= {"not run", "not comparable"}


def test_failed_answers_that_decide_leave_the_verdict_open(tmp_path):
    right = np.arange(1549) % 2 == 0
    full_lvbench(tmp_path, "full", right, "1", failed=set(range(1, 400, 2)))
    context = Context(load_cells(tmp_path), TABLES)
    verdict = {v.published.id: v for v in judge_numbers(context)}["B.full.lvbench"]
    assert verdict.verdict == "cannot tell" and "200 failed answers decide" in verdict.reason


def test_mean_over_benchmarks_of_the_ladder(tmp_path):
    changes = {"model__name": "qwen2_vl_7b", "method__semantics": "release_2025", "method__positions": "float"}
    rng = np.random.default_rng(1)
    for task, videos, per in (("videomme", 900, 3), ("mlvu", 725, 3), ("lvbench", 1549, 1)):
        asked = questions(task, videos, per)[:2173] if task == "mlvu" else questions(task, videos, per)
        low = rng.random(len(asked)) < 0.5
        high = low | (rng.random(len(asked)) < 0.1)
        for variant, right in (("no_temporal", low), ("full", high)):
            write_cell(
                tmp_path, asked, list(right), task=task, variant=variant, digest=variant, context=1000, **changes
            )
    context = Context(load_cells(tmp_path), TABLES)
    found = next(v for v in judge_claims(context) if v.claim.id == "E4")
    assert found.verdict == "holds" and len(found.cells) == 3
    assert found.difference.value == pytest.approx(5, abs=1) and found.difference.lost == 0


def test_a_number_is_met_by_the_parser_that_made_it(tmp_path):
    """Every answer says "Answer: X": right by `anchored`, an A by the releases' parser."""
    folder = full_lvbench(tmp_path, "full", [True] * 1549, "1")
    rewrite(folder, lambda i, answer: answer | {"text": f"Answer: {answer['text']}"})
    context = Context(load_cells(tmp_path), TABLES)
    verdict = {v.published.id: v for v in judge_numbers(context)}["B.full.lvbench"]
    assert verdict.published.parser == "release"
    right = sum(question.answer == "A" for question in context.cells[0].questions)
    assert verdict.estimate.value == pytest.approx(100 * right / 1549)
    assert context.estimate(context.cells[0], parser="anchored").value == 100


def test_weights_that_are_not_the_models_come_first(tmp_path):
    record = cell_record("lvbench", context=1000)
    record["architecture"] = {"promised": {"layers": 28}, "found": {"layers": 4}}
    full_lvbench(tmp_path, "full", [True] * 1549, "1", record=record)
    verdict = {v.published.id: v for v in judge_numbers(Context(load_cells(tmp_path), TABLES))}["B.full.lvbench"]
    assert verdict.verdict == "not comparable"
    assert verdict.reason.startswith("the weights are not those of qwen2_5_vl_7b: layers 4 instead of 28; context")


def test_variants_of_the_fixture_are_those_of_the_run():
    from harness.plan.cell import VARIANTS as run_variants

    assert VARIANTS == run_variants
