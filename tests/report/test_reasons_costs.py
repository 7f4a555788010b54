"""python -m pytest tests/report/test_reasons_costs.py"""

import json
import re

import pytest
from cell_folders import questions, rewrite, write_cell
from tiny_models import Sample, decoder, tiny_model

from harness.compress.generate import generate
from harness.compress.method import build_method
from harness.evidence.loading import load_cells
from harness.report.costs import SEVEN, Shape, answer_flops, cost, find_shape
from harness.report.pages import reasons
from harness.store import Answer
from harness.verdicts.expected import load_tables

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
    from harness.report.pages import TEXTS

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
    answer = Answer(
        "q", "v", "ok", n_prompt=110, prefilled=110, attended=110 * 111 / 2, cache_length=[110, 110], n_new=3
    )
    # one causal pass over 110 tokens, then two of the three new ones
    linear = 2 * TINY.weights_per_token * 112 + 2 * 8 * 10 * 3
    attention = 4 * 2 * 2 * 4 * 112 * 113 / 2
    assert answer_flops(TINY, answer) == pytest.approx(linear + attention)
    assert answer_flops(TINY, Answer("q", "v", "ok", n_prompt=110)) is None


def test_what_passed_is_counted_where_it_passes():
    """By the driver: chunks behind 5 tokens of text, the question of 7 behind each where something is to be evicted."""
    sample = Sample(4, grids=8)
    for name, context in (("none", None), ("adaretake", 12 + 8)):
        method = build_method(name, chunk_frames=4).for_family("qwen2_5_vl")
        options = {"max_new_tokens": 1, "record": True}
        trace = generate(
            decoder(tiny_model()), method, sample.prompt("float", context), (sample.features,), **options
        ).trace
        cached = [0, 5, *(sum(after) / 3 for after in trace.cache_after_chunk)]
        guide = 7 if trace.compressed else 0
        passed = [5, *(length + guide for length in trace.chunk_lengths), 7]
        assert trace.prefilled == sum(passed)
        pairs = [n * before + n * (n + 1) / 2 for n, before in zip(passed, cached, strict=True)]
        assert trace.attended == pytest.approx(sum(pairs))


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
