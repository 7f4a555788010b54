"""python -m pytest tests/report/test_reasons_costs.py"""

import json
import re

import pytest
from cell_folders import questions, rewrite, write_cell

from harness.report.costs import SEVEN, Shape, answer_flops, cost, find_shape
from harness.report.expected import load_tables
from harness.report.loading import load_cells
from harness.report.reasons import reasons
from harness.store import Answer

B = next(table for table in load_tables("results/expected") if table.id == "B")


def told(tmp_path, change=None, right=True, **changes):
    asked = questions(changes.get("task", "lvbench"), 10)
    folder = write_cell(tmp_path, asked, [right] * 30, digest="x", **changes)
    if change:
        rewrite(folder, change)
    (cell,) = load_cells(tmp_path)
    found = {}
    for reason in reasons(cell, B.numbers["full", "lvbench"]):
        found.setdefault(reason.topic, []).append(reason.text)
    return {topic: " ".join(texts) for topic, texts in found.items()}


def test_truncated_ids_are_counted_by_video(tmp_path):
    rates = {0: 4.0, 1: 4.0, 2: 4.0, 3: 1.5}
    found = told(tmp_path, lambda i, line: line | {"sampling_fps": rates.get(i // 3, 2.0)})
    assert "in 3 of 10 videos, sampled above 2 fps" in found["positions"] and "in 1 more" in found["positions"]
    assert "Accuracy is 100.0 on the former" in found["positions"]


def test_the_float_rule_is_no_reason(tmp_path):
    assert "positions" not in told(tmp_path, method__positions="float")


@pytest.mark.parametrize(
    ("changes", "named", "unnamed"),
    [
        ({"variant": "full"}, ["stale_first_chunk", "guide_by_text_index", "half_video_ratios"], ["heavy_hitter"]),
        ({"variant": "no_temporal"}, ["stale_first_chunk", "guide_by_text_index"], ["half_video_ratios"]),
        ({"method__semantics": "release_2025"}, ["stale_first_chunk", "heavy_hitter_adaptation"], ["text_index"]),
        ({"method__semantics": "paper"}, ["paper's equations"], ["quirk"]),
        ({"method__quirks": {"half_video_ratios": False}}, ["Quirks were switched: {'half_video_ratios': False}"], []),
    ],
)
def test_semantics_name_the_quirks_that_apply(tmp_path, changes, named, unnamed):
    text = told(tmp_path, **changes)["semantics"]
    assert all(word in text for word in named) and not any(word in text for word in unnamed)


def test_named_quirks_exist(tmp_path):
    from harness.compress.methods.adaretake import release_2025, release_2026
    from harness.report.reasons import TEXTS

    known = {**release_2025.QUIRKS, **release_2026.QUIRKS}
    words = re.findall(r"quirk (\w+)", " ".join(TEXTS.values()))
    assert len(words) == 4 and all(word in known for word in words)


def test_slots_over_the_budget_are_measured(tmp_path):
    found = told(tmp_path, lambda i, line: line | {"cache_length": [17000 + i], "n_prompt": 20000})
    assert "In 30 of 30 answers" in found["budget"] and "by 1014 slots" in found["budget"]
    assert "largest 1029" in found["budget"]


def test_prompts_that_fit_are_said_to(tmp_path):
    assert "30 of 30 prompts fit" in told(tmp_path)["budget"]


def test_parsers_are_compared_on_the_stored_texts(tmp_path):
    found = told(tmp_path, lambda i, line: line | {"text": f"Answer: {line['text']}"})
    # The release's parser takes the A of "Answer" wherever that is not the right letter.
    assert "`anchored` changes 22 of 30 verdicts (score 100.0 instead of 26.7)" in found["parser"]
    assert "`lmms_eval` changes 22 of 30" in found["parser"]


def test_failed_unparsed_and_the_size_are_said(tmp_path):
    found = told(tmp_path, failed={0}, unparsed={1, 2})
    assert "1 failed answers" in found["failed"] and "1 RuntimeError" in found["failed"]
    assert "2 of 30 answers hold no letter (6.7 %)" in found["unparsed"]
    assert "30 questions, the whole benchmark has 1549" in found["questions"]


def test_the_mix_of_a_subset_is_compared_with_the_whole(tmp_path):
    found = told(tmp_path, task="videomme")
    assert "duration short 40 % instead of 33 %" in found["questions"]


def test_a_base_row_says_whether_it_ran_with_yarn(tmp_path):
    assert "with YaRN factor 4" in told(tmp_path, variant="none")["YaRN"]
    assert "YaRN" not in told(tmp_path / "b")


TINY = Shape(layers=2, hidden=8, intermediate=16, heads=2, kv_heads=1, head_dim=4, vocabulary=10)


def test_work_is_two_operations_per_weight_and_token():
    # q and o: 8 x 8, k and v: 8 x 4, gate, up and down: 8 x 16
    assert TINY.weights_per_token == 2 * (2 * 64 + 2 * 32 + 3 * 128)
    answer = Answer("q", "v", "ok", n_prompt=110, n_video=100, chunk_budget=[50, 50], n_new=0)
    # 100 video tokens in two chunks, 10 of text, nothing evicted: one causal pass over 110 tokens
    linear = 2 * TINY.weights_per_token * 110 + 2 * 8 * 10
    attention = 4 * 2 * 2 * 4 * 110 * 110 / 2
    assert answer_flops(TINY, answer) == pytest.approx(linear + attention)


def test_keeping_less_costs_less_although_the_guide_runs_again():
    whole = Answer("q", "v", "ok", n_prompt=100_040, n_video=100_000, chunk_budget=[2500] * 40, n_new=1)
    part = Answer("q", "v", "ok", n_prompt=100_040, n_video=100_000, chunk_budget=[250] * 40, n_new=1)
    full, kept = answer_flops(SEVEN, whole), answer_flops(SEVEN, part)
    assert 0.4 < kept / full < 0.8  # attention to the old cache shrinks, the linear layers do not
    linear = 2 * SEVEN.weights_per_token * 100_000
    assert kept > linear and SEVEN.weights_per_token == pytest.approx(6.5e9, rel=0.02)


def test_shapes_come_from_the_name_or_the_config(tmp_path):
    assert find_shape("qwen2_5_vl_7b", "nowhere") is SEVEN
    assert find_shape("other", "nowhere") is None
    config = {"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 16, "num_attention_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 1, "vocab_size": 10}))
    assert find_shape("mine", str(tmp_path)) == TINY


def test_cost_is_the_mean_of_the_answers(tmp_path):
    folder = write_cell(tmp_path, questions("lvbench", 2), [True] * 6, failed={0})
    (cell,) = load_cells(tmp_path)
    spent = cost(cell)
    assert (spent.tokens, spent.kept, spent.total) == (2100, 264, pytest.approx(0.9))
    assert spent.seconds["prefill"] == 0.5 and spent.peak_memory is None and spent.flops > 0
    peaks = dict(zip(cell.answers, (3, 9, 5), strict=False))
    rewrite(folder, lambda i, record: record | {"peak_memory": peaks.get(record["question_id"])})
    assert cost(*load_cells(tmp_path)).peak_memory == 9
