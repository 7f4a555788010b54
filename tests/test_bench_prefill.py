"""The speed benchmark, on a video of a few tokens per frame."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from toy_training.checkpoint import build_model
from toy_training.tokens import build_tokenizer

from harness.models.language import Decoder

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_prefill.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("bench_prefill_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def language() -> Decoder:
    model = build_model(0, build_tokenizer()).eval()
    return Decoder(model.model.language_model, model.lm_head, backend="sdpa", rows=3)


@pytest.fixture
def small(script, language, monkeypatch) -> None:
    """Two by two tokens per grid and chunks of four frames."""
    own = script.setting
    sizes = {"height": 4, "width": 4, "chunk_frames": 4, "repeats": 1}
    monkeypatch.setattr(script, "setting", lambda args: dataclasses.replace(own(args), **sizes))
    monkeypatch.setattr(script, "toy_language", lambda attention: (language, "test"))


def test_last_line_is_the_summary(script, small, capsys):
    assert script.main(["--quick", "--frames", "48", "16", "--context", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    rows = {(row["frames"], row["variant"]): row for row in found["rows"]}
    assert len(lines) == len(rows) + 3
    assert rows[16, "full"]["overhead"] is None and found["overhead"] == rows[48, "full"]["overhead"]
    variants = ("uncompressed", "sliced", "full", "no_temporal", "no_layer", "no_both")
    assert set(rows) == {(16, v) for v in variants if v != "sliced"} | {(48, v) for v in variants}
    tokens = 24 * 4 + 23
    assert rows[48, "full"]["tokens"] == tokens
    assert rows[48, "uncompressed"]["cache_length"] == [tokens] * 4
    assert rows[16, "full"]["cache_length"] == [8 * 4 + 23] * 4  # the prompt fits: nothing is compressed
    assert sum(rows[48, "full"]["cache_length"]) == 4 * 60
    assert rows[48, "no_layer"]["cache_length"] == [60] * 4
    assert rows[48, "sliced"]["cache_length"] == rows[48, "full"]["cache_length"]
    assert found["overhead"] == pytest.approx(rows[48, "full"]["seconds"] / rows[48, "sliced"]["seconds"] - 1, abs=1e-3)
    assert found["memory_growth"] is None and found["context"] == 60


def test_long_videos_leave_rows_out(script, small, capsys):
    assert script.main(["--quick", "--frames", "514", "--context", "100"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["variant"] for row in found["rows"]] == ["full"] and found["overhead"] is None


def test_baseline_attends_over_the_same_cache_lengths(script, language):
    how = dataclasses.replace(
        script.setting(script.parse(["--quick"])), height=4, width=4, chunk_frames=4, context=60, text=(9, 14)
    )
    bench = script.Bench(language, how, "cpu")
    seen: dict[str, list] = {"full": [], "sliced": []}
    forward = language.forward

    def watched(name):
        def run(embeds, positions, cache, *args, **kwargs):
            seen[name].append((len(embeds), cache.lengths))
            return forward(embeds, positions, cache, *args, **kwargs)

        return run

    with torch.inference_mode():
        prompt = bench.prompt(48)
        try:
            language.forward = watched("full")
            state = bench.compressed(prompt)
            language.forward = watched("sliced")
            bench.sliced(prompt, state.trace.chunk_lengths, state.trace.cache_after_chunk)
        finally:
            del language.forward
    guide = how.text[1]
    middle = [(n - guide, lengths) for n, lengths in seen["full"][1:-1]]
    assert seen["sliced"] == [seen["full"][0], *middle, seen["full"][-1]]
    assert len(middle) == 12


def test_growth_compares_4096_with_512_frames(script):
    def row(frames, variant, memory, overhead=None):
        return script.Row(frames, variant, 1, 9.0, memory, 0, [1], overhead)

    rows = [row(512, "full", 1000, 0.1), row(512, "sliced", 900), row(4096, "full", 1050)]
    assert script.summary(rows) == {"overhead": 0.1, "memory_growth": 1.05, "overhead_by_frames": {512: 0.1}}


def test_accelerators_run_the_shape_of_seven_billion(script):
    language, name = script.seven_billion_language("meta", "eager")
    parts = [*language.text_model.parameters(), *language.head.parameters()]
    assert sum(p.numel() for p in parts) == 7_615_616_512  # Qwen2.5-7B
    assert {p.dtype for p in parts} == {torch.bfloat16} and language.num_layers == 28 and "7B" in name


def test_an_accelerator_that_is_not_there_is_an_error(script, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert script.main(["--device", "cuda"]) == 2
    assert capsys.readouterr().err.startswith("error: --device cuda cannot be used here")


@pytest.mark.parametrize("words", [["--frames", "0"], ["--context", "0"], ["--repeats", "-1"]])
def test_numbers_out_of_range_are_refused(script, words):
    with pytest.raises(SystemExit):
        script.parse(words)
