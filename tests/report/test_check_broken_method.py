"""python -m pytest tests/report/test_check_broken_method.py

A tiny random model answers through the real prefill, once as it should and once with a broken method: the gate has to
tell them apart.
"""

from dataclasses import dataclass

import pytest
import tiny_models
import torch
from cell_folders import LETTERS, cell_record, write_cell
from verbs import composed

from harness.compress.generate import generate
from harness.compress.methods.adaretake import Paper
from harness.gate.check import main
from harness.store import Answer, QuestionRecord

N = 10


@pytest.fixture(scope="module")
def tiny():
    return tiny_models, tiny_models.decoder(tiny_models.tiny_model())


@dataclass(frozen=True)
class SwappedLayers(Paper):
    def layer_counts(self, run, segment, scores):
        return super().layer_counts(run, segment, [-score for score in scores])


@dataclass(frozen=True)
class SwappedTemporal(Paper):
    def budgets(self, run, lengths):
        return super().budgets(run, lengths)[::-1]


@dataclass(frozen=True)
class Lowest(Paper):
    def choose(self, run, segment, scores, counts):
        return [row.argsort()[:count].sort().values for row, count in zip(scores, counts, strict=True)]


@dataclass(frozen=True)
class OneToken(Paper):
    """Drops one token of each layer and chunk for the worst of those that were dropped."""

    def choose(self, run, segment, scores, counts):
        kept = super().choose(run, segment, scores, counts)
        return [
            torch.cat([one[one != one[0]], _dropped(row, one)]).sort().values
            for row, one in zip(scores, kept, strict=True)
        ]


def _dropped(scores, kept):
    rest = scores.clone()
    rest[kept] = torch.inf
    return rest.argmin()[None]


def answer_all(results, tiny, method):
    """Answer N prompts with a method, and store them as one cell."""
    module, decoder = tiny
    record = cell_record("lvbench", method__positions=method.position_rule, method__semantics="paper", context=30)
    record["model"] |= {"name": "toy", "dtype": "float32"}
    asked = [QuestionRecord(f"q{i}", f"v{i}", dict.fromkeys(LETTERS, "x"), "A", {}) for i in range(N)]
    folder = write_cell(results, asked, [None] * N, record=record, digest="00000000")
    lines = []
    for i in range(N):
        sample = module.Sample(seed=i)
        prompt = sample.prompt(method.position_rule, 30)
        found = generate(decoder, method, prompt, (sample.features,), max_new_tokens=3)
        lengths = list(found.trace.cache_length)
        text = f"{LETTERS[found.tokens[0] % 4]}. {' '.join(map(str, found.tokens))}"
        budget = [int(kept) for kept in found.trace.chunk_budget]
        kept = {"kept_digest": found.trace.kept_digest, "kept_margin": found.trace.kept_margin}
        answer = Answer(f"q{i}", f"v{i}", "ok", text, cache_length=lengths, chunk_budget=budget, **kept)
        lines.append(answer.to_line(folder.name))
    (folder / "answers.jsonl").write_bytes(b"".join(lines))


def check(tmp_path, results, *overrides):
    return main(
        *composed(
            "check", f"results={results}", "report.cells=['*']", f"check.baseline={tmp_path / 'b.json'}", *overrides
        )
    )


@pytest.fixture(scope="module")
def baseline(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("gate")
    answer_all(folder / "good", tiny, Paper(chunk_frames=4))
    assert check(folder, folder / "good", "check.update_baseline=true") == 0
    return folder


def test_the_method_again_passes(baseline, tiny):
    answer_all(baseline / "again", tiny, Paper(chunk_frames=4))
    assert check(baseline, baseline / "again") == 0


@pytest.mark.parametrize(
    "broken",
    [
        SwappedLayers(chunk_frames=4),
        SwappedTemporal(chunk_frames=4),
        Lowest(chunk_frames=4),
        OneToken(chunk_frames=4),
        Paper(chunk_frames=4, positions="v5"),
    ],
    ids=["layers with swapped sign", "temporal reversed", "keeps the lowest", "one token", "positions rule"],
)
def test_a_broken_method_fails(baseline, tiny, broken, request, capsys):
    results = baseline / request.node.callspec.id.replace(" ", "_")
    answer_all(results, tiny, broken)
    assert check(baseline, results) == 1
    printed = capsys.readouterr().out
    assert "verdict: regression (exit 1)" in printed
    if broken.positions:
        assert "method.positions: float -> v5" in printed
