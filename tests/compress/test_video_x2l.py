"""Video-X2L: what each level keeps is derived a second time, densely; mixes at the extremes are runs of their own."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import Sample, decoder, tiny_model

from harness.compress import prefill as memos
from harness.compress.generate import generate
from harness.compress.method import Method, build_method
from harness.compress.methods.video_x2l import COMPRESSORS, Level, shares
from harness.compress.prefill import Prefill, reused
from harness.compress.prompt import Prompt
from harness.compress.reload import store_video, without_gaps
from harness.compress.trace import Generation
from harness.errors import QuestionError, UserError

SAMPLE = Sample()  # 5 text, 5 chunks of 12, 7 text
TEXT, CHUNKS, LENGTH = 12, 5, 12
LOW, HIGH = 2, 6  # 6 and 2 slots per chunk


language = functools.cache(decoder)  # one per model: what was stored under one is of no use to another


def ask(
    model: Any, context: int | None, *, sample: Sample = SAMPLE, memo: dict[Any, Any] | None = None, **options: Any
) -> Generation:
    method = options.pop("method", None) or build_method(
        "video_x2l", **{"chunk_frames": 4, "low": LOW, "high": HIGH, **options}
    )
    prompt = sample.prompt(method.position_rule, context)
    return generate(language(model), method, prompt, (sample.features,), max_new_tokens=3, record=True, memo=memo)


def same(a: Generation, b: Generation) -> bool:
    return a.tokens == b.tokens and torch.equal(a.trace.recording.logits, b.trace.recording.logits)


def level(compressor: str, slots: int) -> Level:
    return COMPRESSORS[compressor](chunk_frames=4, slots=(slots,) * CHUNKS)


def started(model: Any, method: Method) -> Prefill:
    prompt = SAMPLE.prompt("float", SAMPLE.n_prompt - 1)
    return Prefill(language(model), method, prompt, (SAMPLE.features,), max_new_tokens=0, record=False)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_all_or_no_chunks_at_low_compression_are_plain_runs_of_one_level(model, compressor) -> None:
    for reloads, tokens in ((CHUNKS, LOW), (0, HIGH)):
        mixed = ask(model, 60, compressor=compressor, reloads=reloads)
        assert same(mixed, ask(model, 60, method=level(compressor, LENGTH // tokens)))
        assert mixed.trace.cache_length == [TEXT + CHUNKS * LENGTH // tokens] * 3
    assert not same(mixed, ask(model, 60, compressor=compressor, reloads=CHUNKS))


@pytest.mark.parametrize("compressor", COMPRESSORS)
@torch.inference_mode()
def test_one_token_per_slot_compresses_nothing(model, compressor) -> None:
    plain = ask(model, None, method=Method(chunk_frames=4))
    whole = started(model, level(compressor, LENGTH))
    for segment in whole.segments:
        whole.method.feed(whole, segment)
    for layer in range(3):
        assert torch.equal(whole.cache.keys(layer), plain.trace.recording.cache.keys(layer)[:, : SAMPLE.n_prompt])
    fits = ask(model, SAMPLE.n_prompt, compressor=compressor)
    assert same(fits, plain) and not fits.trace.compressed and fits.trace.host_bytes == 0


def turned(states: torch.Tensor, ids: torch.Tensor, sections=(1, 1, 2), theta: float = 1e4) -> torch.Tensor:
    """States [h, n, 8] rotated as complex numbers, frequency pair by pair, each by its own row of ids."""
    half = states.shape[-1] // 2
    row = [r for r, count in enumerate(sections) for _ in range(count)]
    numbers = torch.complex(states[..., :half].double(), states[..., half:].double())
    for pair in range(half):
        angle = ids[row[pair]].double() * theta ** (-pair / half)
        numbers[..., pair] *= torch.polar(torch.ones_like(angle), angle)
    return torch.cat((numbers.real, numbers.imag), dim=-1).float()


@torch.inference_mode()
def test_pooled_keys_are_the_dense_means_rotated_at_the_mean_ids(model) -> None:
    """The second derivation: the stock model over the text in front and one chunk, its projections averaged by hand."""
    from transformers import DynamicCache

    text_model = model.model.language_model
    raw: dict[tuple[int, str], torch.Tensor] = {}
    handles = [
        getattr(layer.self_attn, f"{name}_proj").register_forward_hook(
            lambda _m, _i, out, key=(index, name): raw.__setitem__(key, out[0].view(-1, 2, 8).transpose(0, 1))
        )
        for index, layer in enumerate(text_model.layers)
        for name in ("k", "v")
    ]
    cache = DynamicCache()
    positions, stored = SAMPLE.positions(), store_video(started(model, Method(chunk_frames=4)), level("pooled", 5))
    runs = [[0, 1, 2], [3, 4], [5, 6, 7], [8, 9], [10, 11]]  # twelve tokens in five runs
    try:
        for chunk, tokens in enumerate([slice(0, 5), slice(5, 17), slice(17, 29)]):
            embeds = model.get_input_embeddings()(SAMPLE.input_ids[tokens]).clone()
            if chunk:
                embeds[:] = SAMPLE.features[tokens.start - 5 : tokens.stop - 5]
            text_model(inputs_embeds=embeds[None], position_ids=positions[:, None, tokens], past_key_values=cache)
            if not chunk:
                continue
            ids = torch.stack([positions[:, tokens][:, run].float().mean(1) for run in runs], dim=1)
            for index, layer in enumerate(cache.layers):
                keys, values = (torch.stack([raw[index, n][:, run].mean(1) for run in runs], dim=1) for n in "kv")
                block = stored.blocks[chunk - 1][index]
                assert torch.allclose(block.positions, ids)
                assert torch.allclose(block.values, values, atol=1e-4)
                assert torch.allclose(block.keys, turned(keys, ids), atol=1e-4)
                behind = layer.keys.shape[2] - LENGTH  # the next chunk attends to what is stored
                layer.keys = torch.cat((layer.keys[:, :, :behind], block.keys[None]), dim=2)
                layer.values = torch.cat((layer.values[:, :, :behind], block.values[None]), dim=2)
    finally:
        for handle in handles:
            handle.remove()


def test_runs_are_as_equal_as_can_be_and_text_stays_alone() -> None:
    ids = torch.arange(11)
    video = torch.tensor([2, 3, 4, 6, 7, 8])  # text at 0, 1, 5, 9, 10
    prompt = Prompt(ids, ids[None], video, (3, 3))
    run = SimpleNamespace(prompt=prompt, places=lambda segment: video[segment.video] - segment.tokens.start)
    (segment,) = (s for s in prompt.segments([6]) if s.chunk == 0)
    weights = shares(run, segment, 2)  # of the tokens 2 to 8
    third = 1 / 3
    expected = torch.tensor([[third] * 3 + [0] * 4, [0] * 3 + [1] + [0] * 3, [0] * 4 + [third] * 3])
    assert torch.allclose(weights, expected)
    assert [int((row > 0).sum()) for row in shares(run, segment, 4)] == [2, 1, 1, 2, 1]


@torch.inference_mode()
def test_the_question_chooses_the_chunks_it_attends_to_most(model) -> None:
    """The second derivation: eager attention of the stock model behind the slots at high compression."""
    from transformers import DynamicCache

    stored = store_video(started(model, Method(chunk_frames=4)), level("pooled", LENGTH // HIGH))
    cache = DynamicCache()
    for index in range(3):
        parts = [stored.prefix[index], *(block[index] for block in stored.blocks)]
        keys, values = (torch.cat([getattr(p, n) for p in parts], dim=1)[None] for n in ("keys", "values"))
        cache.update(keys, values, index)
    text_model = model.model.language_model
    text_model.set_attn_implementation("eager")
    try:
        weights = text_model(
            inputs_embeds=model.get_input_embeddings()(SAMPLE.input_ids[-7:])[None],
            position_ids=SAMPLE.positions()[:, None, -7:],
            past_key_values=cache,
            output_attentions=True,
        ).attentions
    finally:
        text_model.set_attn_implementation("sdpa")
    relevance = torch.zeros(CHUNKS)
    for layer in weights:
        memory = layer[0, :, :, 5 : 5 + 2 * CHUNKS]
        memory = memory / memory.sum(-1, keepdim=True)
        relevance += memory.sum(1).mean(0).view(CHUNKS, 2).mean(1) / 3
    for reloads in range(1, CHUNKS):
        got = ask(model, 60, reloads=reloads).trace.chunk_budget
        best = relevance.topk(reloads).indices.tolist()
        assert got == [6 if chunk in best else 2 for chunk in range(CHUNKS)]


def test_reloads_are_solved_from_the_context() -> None:
    def solved(context: int, low: int, high: int, **options: Any) -> int:
        prompt = SimpleNamespace(prompt=SimpleNamespace(context=context, n_text=0))
        slots = ([2304 // low] * 32, [2304 // high] * 32)
        if options.get("ends_in_detail"):
            slots[1][0] = slots[1][-1] = 2304 // low
        return build_method("video_x2l", low=low, high=high, **options)._reloads(prompt, *slots)

    assert solved(16_000, 2, 32) == 12  # (16000 - 32 * 72) / (1152 - 72) = 12.7
    assert solved(16_000, 2, 32, ends_in_detail=True) == 10  # the two ends are of the twelve
    assert solved(1000, 8, 128) == 1
    assert solved(10**6, 2, 32) == 32
    with pytest.raises(QuestionError, match="context of at least 3384"):  # 32 * 72 + 1080
        solved(1000, 2, 32)
    assert solved(3384, 2, 32) == 1
    with pytest.raises(QuestionError, match="at least 3384"):
        solved(3383, 2, 32)
    assert solved(2304, 2, 32, reloads=0) == 0
    with pytest.raises(QuestionError, match="at least 5544"):
        solved(5000, 2, 32, reloads=3)


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("context", [26, 31, 34, 41])
def test_the_context_is_never_exceeded_nor_is_room_for_a_chunk_left(model, compressor, context) -> None:
    trace = ask(model, context, compressor=compressor).trace
    assert len(set(trace.cache_length)) == 1
    assert context - (LENGTH // LOW - LENGTH // HIGH) < trace.cache_length[0] <= context
    assert trace.cache_length[0] == TEXT + sum(trace.chunk_budget)
    time = trace.recording.cache.positions(0)[0]
    assert (time[1:] >= time[:-1]).all()
    host = 3 * (2 * 5 + CHUNKS * (6 + 2)) * 2 * 2 * 8 * 4  # layers, tokens, keys and values, heads, dim, bytes
    assert trace.host_bytes == host
    slots = 5 + CHUNKS * 2 + 6 * trace.chunk_budget.count(6)
    assert trace.moved_bytes == 3 * slots * 2 * 2 * 8 * 4
    assert trace.prefilled == 2 * (SAMPLE.n_prompt - 7) + 2 * 7  # both levels, the question before and after the choice


def test_both_ends_stay_at_low_compression(model) -> None:
    for relevance in ("attention", "random"):
        got = ask(model, 60, ends_in_detail=True, relevance=relevance, reloads=1).trace.chunk_budget
        assert got[0] == got[-1] == 6 and sorted(got[1:-1]) == [2, 2, 6]
    ends = ask(model, 60, ends_in_detail=True, reloads=0)
    other = COMPRESSORS["pooled"](chunk_frames=4, slots=(6, 2, 2, 2, 6))
    assert same(ends, ask(model, 60, method=other))  # also while the later chunks are prefilled at high compression


def test_bounds_choose_by_lot_or_where_the_answer_is(model) -> None:
    lots = [ask(model, 60, relevance="random", reloads=2, seed=seed).trace for seed in range(8)]
    assert len({tuple(trace.chunk_budget) for trace in lots}) > 2
    assert all(trace.chunk_budget.count(6) == 2 for trace in lots)
    again = ask(model, 60, relevance="random", reloads=2, seed=3).trace
    assert again.kept_digest == lots[3].kept_digest
    with pytest.raises(QuestionError, match="relevance=attention"):
        ask(model, 60, relevance="given", reloads=2)

    class Told(Sample):
        grids = (5, 7)  # in the chunks 2 and 3

        def prompt(self, rule: str = "float", context: int | None = None) -> Prompt:
            told = super().prompt(rule, context)
            return Prompt(**{**vars(told), "evidence": self.grids})

    told = Told()
    assert ask(model, 60, sample=told, relevance="given", reloads=2).trace.chunk_budget == [2, 2, 6, 6, 2]
    told.grids = (9,)
    assert ask(model, 60, sample=told, relevance="given", reloads=2).trace.chunk_budget == [2, 2, 2, 6, 6]


@pytest.mark.parametrize("yarn", [1.0, 4.0])
def test_squeezed_ids_have_no_gaps(yarn) -> None:
    """Keys of the first layer depend on embeddings and ids only: ids half as far apart can be prefilled directly."""
    model, sample = tiny_model(layers=1, yarn=yarn), Sample()
    assert sample.positions()[0, 5:65:6].diff().tolist() == [2] * 9
    got = ask(model, SAMPLE.n_prompt - 1, reloads=0, low=1, high=2, memory_ids="squeezed", compressor="self_attention")
    cache = got.trace.recording.cache
    kept = cache.positions(0)
    near = Sample()
    near.positions = lambda rule="float": Sample.positions(near, rule, second_per_grid=0.5)
    direct = ask(model, None, sample=near, method=Method(chunk_frames=4)).trace.recording.cache
    every = {tuple(ids): i for i, ids in enumerate(direct.positions(0).T.tolist())}
    places = [every[tuple(ids)] for ids in kept.T.tolist()]
    assert len(places) == 5 + 30 + 7 + 2
    text = len(places) - 2  # the new tokens may be others
    assert torch.allclose(cache.keys(0)[:, :text], direct.keys(0)[:, places[:text]], atol=1e-4)
    plain = ask(model, SAMPLE.n_prompt - 1, reloads=0, low=1, high=2, compressor="self_attention").trace.recording.cache
    assert not torch.allclose(cache.keys(0)[:, :text], plain.keys(0)[:, :text], atol=1e-2)
    assert without_gaps(torch.tensor([[3.0, 3.5, 9.0, 9.0]]), 2).tolist() == [[2.0, 3.0, 4.0, 4.0]]


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("memory_ids", ["kept", "squeezed"])
def test_a_second_question_finds_both_levels_and_gets_the_same_answer(model, compressor, memory_ids) -> None:
    options = {"compressor": compressor, "memory_ids": memory_ids}
    other = Sample()
    other.input_ids = torch.cat((SAMPLE.input_ids[:-7], torch.arange(20, 29)))  # a longer question
    memo, passed = {}, []
    first = ask(model, 34, memo=memo, **options)
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _module, _args, inputs: passed.append(inputs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    second = ask(model, 34, sample=other, memo=memo, **options)
    hook.remove()
    assert passed == [9, 9, 1, 1]  # the question before and after the choice, and new tokens
    fresh = ask(model, 34, sample=other, **options)
    assert same(second, fresh) and second.trace.kept_digest == fresh.trace.kept_digest
    assert fresh.trace.prefilled == 2 * 65 + 2 * 9 and second.trace.prefilled == 2 * 9
    assert first.trace.prefilled == 2 * 65 + 2 * 7
    assert second.trace.host_bytes == fresh.trace.host_bytes == sum(value.nbytes for value in memo.values())
    assert second.trace.moved_bytes == fresh.trace.moved_bytes
    # other contexts and other ways to choose share them too
    assert ask(model, 41, memo=memo, **options, relevance="random").trace.prefilled == 7


def test_what_would_change_the_levels_is_not_shared(model) -> None:
    memo: dict[Any, Any] = {}
    ask(model, 34, memo=memo)
    front = Sample()
    front.input_ids = SAMPLE.input_ids.clone()
    front.input_ids[0] += 1
    changes: list[dict[str, Any]] = [
        {"sample": front},
        {"positions": "v5"},  # the same ids of the video: shared
        {"positions": "truncated", "sample": Sample(h=6, w=4)},
        {"compressor": "self_attention"},
        {"low": 3},
        {"chunk_frames": 6},
        {"ends_in_detail": True},
    ]
    for change in changes:
        got = ask(model, 41, memo=memo, **change)
        assert same(got, ask(model, 41, **change)), change
        assert (got.trace.prefilled < 20) == ("v5" in change.values()), change
    assert ask(model, 41, memo=memo, **changes[0]).trace.prefilled == 14
    assert ask(tiny_model(seed=1), 34, memo=memo).trace.prefilled > 100


def test_host_memory_is_bounded(model, monkeypatch) -> None:
    def held(memo: dict[Any, Any]) -> int:
        return sum(value.nbytes for value in memo.values())

    size = ask(model, 34).trace.host_bytes
    monkeypatch.setattr(memos, "LIMIT_BYTES", size)
    memo: dict[Any, Any] = {}
    for _ in range(2):
        for compressor in COMPRESSORS:
            assert ask(model, 34, memo=memo, compressor=compressor).trace.prefilled > 100
            assert held(memo) == size
        assert ask(model, 34, memo=memo, compressor="self_attention").trace.prefilled == 14
    monkeypatch.setattr(memos, "LIMIT_BYTES", size - 1)
    small: dict[Any, Any] = {}
    assert same(ask(model, 34, memo=small), ask(model, 34, memo=small)) and not small


def test_what_was_not_used_for_longest_makes_room() -> None:
    memo: dict[Any, Any] = {}
    tensors = [torch.zeros(1), torch.ones(1), torch.zeros(1)]  # four bytes each
    for i, value in enumerate(tensors[:2]):
        assert reused(memo, i, lambda value=value: value, 10) is value
    assert reused(memo, 0, lambda: tensors[2], 10) is tensors[0]  # now 1 is the one not used for longest
    reused(memo, 2, lambda: tensors[2], 10)
    assert reused(memo, "small", lambda: [1.0], 10) == [1.0] == reused(memo, "small", lambda: [], 10)
    assert set(memo) == {0, 2, "small"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("compressor", "best"), ("relevance", "all"), ("low", 32), ("low", 0), ("reloads", -1), ("memory_ids", "x")],
)
def test_wrong_options_are_named(key, value) -> None:
    with pytest.raises(UserError, match=f"method.{key}={value}"):
        build_method("video_x2l", **{key: value})


def test_the_given_time_of_an_answer_is_that_of_its_chunk() -> None:
    """On the toy: seconds of a benchmark become grids, and these the chunk that comes at low compression."""
    from harness.models.families import open_model
    from harness.toy import CHECKPOINT

    toy = open_model(str(CHECKPOINT), device="cpu")
    video = toy.encode(torch.randint(0, 255, (64, 112, 112, 3), dtype=torch.uint8).numpy(), second_per_grid=1.0)
    method = build_method("video_x2l", relevance="given", reloads=1, high=16, chunk_frames=16)
    assert video.grids_at([(3.5, 4.0), (30.2, 30.2), (40.0, 50.0)]) == (3, 4, 30)
    text = toy.prompt("When?", video).n_text
    for seconds, chunk in ((3.5, 0), (9.0, 1), (17.0, 2), (31.9, 3)):
        trace = toy.answer(video, "When?", method, text + 400, max_new_tokens=1, evidence=[(seconds, seconds)]).trace
        slots = [n // 16 for n in trace.chunk_lengths]
        slots[chunk] = trace.chunk_lengths[chunk] // 2
        assert trace.chunk_budget == slots
    with pytest.raises(QuestionError, match="relevance=attention"):
        toy.answer(video, "When?", method, text + 400, max_new_tokens=1)
