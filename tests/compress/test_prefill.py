"""Chunked prefill: what must not change the answer, and how much stays in the cache."""

from __future__ import annotations

import pytest
import torch
from tiny_models import Sample, decoder, stock_logits, tiny_model

from harness.compress.generate import generate
from harness.compress.method import Method, build_method
from harness.compress.prompt import Segment
from harness.compress.trace import Generation
from harness.errors import QuestionError

ALLOCATIONS = [(False, False), (True, False), (False, True), (True, True)]
ODD = [
    Sample(1, grids=1),
    Sample(2, grids=3, h=6, w=6),
    Sample(3, grids=9, h=2, w=2),
    Sample(4, grids=11, pre=1, post=1),
    Sample(5, grids=8, h=4, w=10),
]


@pytest.mark.parametrize("rule", ["float", "truncated", "v5"])
@pytest.mark.parametrize("chunk_frames", [2, 6, 400])
def test_without_compression_chunks_do_not_show(model, run, chunk_frames: int, rule: str) -> None:
    sample = Sample()
    got = run(sample, None, name="none", chunk_frames=chunk_frames, positions=rule)
    assert torch.allclose(got.trace.recording.logits[0], stock_logits(model, sample, rule), atol=1e-4)


@pytest.mark.parametrize("semantics", ["paper", "release_2025", "release_2026"])
def test_a_context_that_holds_the_prompt_is_the_identity(model, run, semantics: str) -> None:
    sample = Sample()
    got = run(sample, sample.n_prompt, semantics=semantics)
    rule = "truncated" if semantics == "release_2026" else "float"
    assert not got.trace.compressed
    assert got.trace.cache_length == [sample.n_prompt] * 3
    assert torch.allclose(got.trace.recording.logits[0], stock_logits(model, sample, rule), atol=1e-4)


def test_decoding_continues_the_prompt(model, run) -> None:
    sample = Sample()
    got = run(sample, None, name="none", new=4)
    longer = Sample()
    longer.input_ids = torch.cat((sample.input_ids, torch.tensor(got.tokens[:3])))
    assert torch.allclose(got.trace.recording.logits[3], stock_logits(model, longer), atol=1e-4)


@pytest.mark.parametrize("name", ["adaretake", "random"])
@pytest.mark.parametrize(("temporal", "layers"), ALLOCATIONS)
@pytest.mark.parametrize("sample", ODD, ids=lambda s: "x".join(map(str, s.grid)))
def test_the_paper_fills_the_context_exactly(run, sample: Sample, temporal: bool, layers: bool, name: str) -> None:
    text = sample.n_prompt - sample.n_video
    for context in sorted({text + 1, text + sample.n_video // 3 + 1, sample.n_prompt - 1}):
        trace = run(sample, context, name=name, temporal=temporal, layers=layers, new=1).trace
        assert trace.compressed
        assert sum(trace.cache_length) == 3 * context
        assert sum(trace.chunk_budget) == context - text
        guide = sample.n_prompt - sample.prompt("float", context).video_stop
        assert trace.prefilled == sample.n_prompt + guide * len(trace.chunk_lengths)
        assert context <= trace.cache_peak <= context + max(trace.chunk_lengths) + guide
        for budget, kept, length in zip(trace.chunk_budget, trace.kept, trace.chunk_lengths, strict=True):
            assert sum(kept) == 3 * budget and max(kept) <= length
            assert layers or len(set(kept)) == 1
        for scores, indices, kept in zip(trace.recording.scores, trace.recording.kept_indices, trace.kept, strict=True):
            for s, i, count in zip(scores, indices, kept, strict=True):
                assert i.tolist() == sorted(set(i.tolist())) and len(i) == count
                if name == "adaretake" and 0 < count < len(s):
                    left = torch.ones(len(s), dtype=torch.bool)
                    left[i] = False
                    assert s[i].min() >= s[left].max()


@pytest.mark.parametrize("semantics", ["paper", "release_2025", "release_2026"])
def test_eager_and_sdpa_give_the_same_answer(run, semantics: str) -> None:
    sample = Sample()
    a, b = (run(sample, 40, semantics=semantics, backend=backend) for backend in ("eager", "sdpa"))
    assert a.tokens == b.tokens and a.trace.kept == b.trace.kept
    assert torch.allclose(a.trace.recording.logits, b.trace.recording.logits, atol=1e-4)


def test_the_guide_leaves_nothing_behind(run) -> None:
    """Only the order of two chunks differs in the cache: kept keys of the last chunk are untouched by eviction."""
    sample = Sample()
    trace = run(sample, 40, temporal=False, layers=False).trace
    assert trace.cache_after_chunk[-1] == [40 - 7] * 3
    ids = trace.recording.cache.positions(0)
    kept = torch.cat([i[0] + 6 * 2 * n for n, i in enumerate(trace.recording.kept_indices)])
    assert torch.equal(ids[:, 5 : 5 + len(kept)], sample.positions()[:, 5:][:, kept])
    assert torch.equal(ids[:, 5 + len(kept) :][:, :7], sample.positions()[:, -7:])


def test_what_the_device_holds_does_not_grow_with_the_video(model, run, monkeypatch) -> None:
    from harness.compress.cache import CompressedCache
    from harness.models.language import Decoder

    longest, capacity, forward, update = [], [], Decoder.forward, CompressedCache.update

    def watched_forward(self, embeds, *args, **options):
        longest[-1] = max(longest[-1], len(embeds))
        return forward(self, embeds, *args, **options)

    def watched_update(self, *args):
        result = update(self, *args)
        capacity[-1] = max(
            capacity[-1], max(layer._buffers[0][0].shape[2] for layer in self._layers if layer._buffers[0])
        )
        return result

    monkeypatch.setattr(Decoder, "forward", watched_forward)
    monkeypatch.setattr(CompressedCache, "update", watched_update)
    for grids in (12, 60):
        longest.append(0)
        capacity.append(0)
        run(Sample(grids=grids), 40, layers=False)
    assert longest == [12 + 7] * 2  # a chunk and the guide
    assert capacity[0] == capacity[1]


def test_a_guide_may_be_shortened(run) -> None:
    sample = Sample()
    scores = [run(sample, 40, max_guide_length=g).trace.recording.scores[0][0].sum() for g in (None, 7, 50, 3)]
    assert [round(float(s), 3) for s in scores] == [7, 7, 7, 3]


def test_random_choice_depends_on_seed_chunk_and_layer_only() -> None:
    def choose(scores: torch.Tensor, counts: list[int], chunk: int, seed: int = 3) -> list[torch.Tensor]:
        method = build_method("random", seed=seed).for_family("qwen2_5_vl")
        return method.choose(None, Segment(slice(0, 50), slice(0, 50), chunk), list(scores), counts)

    scores = torch.rand(2, 50)
    first = choose(scores, [20, 20], chunk=1)
    assert torch.equal(first[1], choose(torch.zeros(2, 50), [3, 20], chunk=1)[1])
    others = [first[0], choose(scores, [20, 20], chunk=1, seed=4)[1], choose(scores, [20, 20], chunk=2)[1]]
    assert all(not torch.equal(first[1], other) for other in others)


def test_random_keeps_the_budgets_of_the_method(run) -> None:
    sample = Sample()
    true, control = (run(sample, 40, name=name, temporal=False) for name in ("adaretake", "random"))
    assert true.trace.chunk_budget == control.trace.chunk_budget
    assert true.trace.kept[0] == control.trace.kept[0]  # nothing was evicted before, so the scores agree
    assert true.trace.recording.kept_indices[0][0].tolist() != control.trace.recording.kept_indices[0][0].tolist()


def test_a_context_without_room_for_the_video_names_the_least(run) -> None:
    with pytest.raises(QuestionError, match="context=12.*12 tokens.*at least 13"):
        run(Sample(), 12)


def test_features_of_another_video_are_an_error(run) -> None:
    sample = Sample()
    sample.features = sample.features[:-1]
    with pytest.raises(ValueError, match="59 features for 60"):
        run(sample, 40)


def paper() -> Method:
    return build_method("adaretake", chunk_frames=4).for_family("qwen2_5_vl")


def test_eos_ends_the_answer(model, run) -> None:
    sample = Sample()
    free = run(sample, 40, new=3)
    method, prompt = paper(), sample.prompt(context=40)
    end = {free.tokens[0]}
    stopped = generate(decoder(model), method, prompt, (sample.features,), max_new_tokens=3, eos=end)
    assert stopped.tokens == free.tokens[:1] and stopped.trace.recording is None


def test_repetition_penalty_is_that_of_transformers(model) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    from harness.compress.generate import penalised

    ids, logits = torch.tensor([[3, 5, 5, 8]]), torch.randn(1, 12, generator=torch.Generator().manual_seed(0))
    seen = torch.zeros(12, dtype=torch.bool)
    seen[ids[0]] = True
    assert torch.allclose(penalised(logits[0], seen, 1.05), RepetitionPenaltyLogitsProcessor(1.05)(ids, logits)[0])


def test_repetition_penalty_of_the_checkpoint_is_applied(model, run) -> None:
    sample, language = Sample(), decoder(model)
    language.repetition_penalty = 1e6
    got = generate(language, paper(), sample.prompt(context=40), (sample.features,), max_new_tokens=8)
    assert len(set(got.tokens)) == 8 and not set(got.tokens) & set(sample.input_ids.tolist())


@pytest.mark.parametrize("layers", [1, 5])
def test_any_number_of_layers(run, layers: int) -> None:
    trace = run(Sample(), 40, on=tiny_model(7, layers)).trace
    assert sum(trace.cache_length) == layers * 40


@pytest.mark.parametrize("semantics", ["paper", "release_2026"])
def test_what_methods_share_before_evicting_is_computed_once(model, semantics: str) -> None:
    sample, passes = Sample(4, grids=12), []
    variants = [
        build_method("adaretake", semantics=semantics, chunk_frames=4, temporal=temporal, layers=layers)
        for temporal, layers in ALLOCATIONS
    ]
    variants = [method.for_family("qwen2_5_vl") for method in variants]
    language = decoder(model)
    stock = language.forward
    language.forward = lambda *args, **options: passes.append(args[0].shape[0]) or stock(*args, **options)

    def answers(memo: dict | None, context: int) -> list[Generation]:
        return [
            generate(
                language,
                method,
                sample.prompt(method.position_rule, context),
                (sample.features,),
                max_new_tokens=2,
                record=True,
                memo=memo,
                repeats=memo is not None and method is not variants[-1],
            )
            for method in variants
        ]

    text = sample.n_prompt - sample.n_video
    for context in (text + 5, text + sample.n_video // 2):
        passes.clear()
        alone = answers(None, context)
        n_alone, memo = len(passes), {}
        passes.clear()
        shared = answers(memo, context)
        assert len(passes) == n_alone - 2 * (len(variants) - 1)  # the text in front and the first chunk
        assert "first_passes" not in memo
        for a, b in zip(alone, shared, strict=True):
            assert a.tokens == b.tokens and a.trace.kept_digest == b.trace.kept_digest
            assert a.trace.prefilled == b.trace.prefilled and a.trace.cache_peak == b.trace.cache_peak
            assert torch.equal(a.trace.recording.logits, b.trace.recording.logits)
            for layer in range(3):
                assert torch.equal(a.trace.recording.cache.keys(layer), b.trace.recording.cache.keys(layer))


def test_another_question_shares_no_passes(model) -> None:
    method = build_method("adaretake", chunk_frames=4).for_family("qwen2_5_vl")
    first, second, memo = Sample(4), Sample(4, post=9), {}
    context = first.n_prompt - first.n_video + 8
    options = {"max_new_tokens": 2, "record": True}
    for sample in (first, second):
        prompt = sample.prompt("float", context)
        shared = generate(decoder(model), method, prompt, (first.features,), memo=memo, repeats=True, **options)
        alone = generate(decoder(model), method, prompt, (first.features,), **options)
        assert torch.equal(shared.trace.recording.logits, alone.trace.recording.logits)
