"""What holds for every method, on tiny random checkpoints of each family. The list is `tests/support/method_cases.py`.

A new method is in it as soon as it has its yaml.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from method_cases import CASES, CHANGES_VALUES, MOVES_IDS, Case
from tiny_checkpoints import save_tiny
from tiny_llava import checkpoint as save_tiny_llava
from tiny_models import Sample, decoder, tiny_model

from harness.compress.cache import CompressedCache
from harness.compress.generate import generate
from harness.compress.method import Method, build_method
from harness.compress.trace import Generation, Trace
from harness.errors import QuestionError
from harness.models.adapter import Adapter
from harness.models.families import open_model
from harness.models.features import VideoFeatures

FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "llava_onevision")
FRAMES = 24
QUESTION = "What colour is the ring?\nOptions:\nA. blue.\nB. pink."
OTHER = "What colour is the star?\nOptions:\nA. pink.\nB. blue."  # of as many tokens
VIDEO_BUDGET = 18  # a quarter of the video

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def sharpened(adapter: Adapter) -> Adapter:
    """Random weights attend almost evenly; larger ones make what is evicted matter."""
    with torch.no_grad():
        for name, weight in adapter.model.named_parameters():
            if "language_model" in name and weight.dim() == 2:
                weight.mul_(12 if "q_proj" in name or "k_proj" in name else 6)
            elif "merger" in name and weight.dim() == 2:
                weight.mul_(6)
    return adapter


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapter]:
    folder = tmp_path_factory.mktemp("models")
    paths = {family: str(save_tiny(family, folder / family, layers=4)) for family in FAMILIES[:3]}
    paths[FAMILIES[3]] = save_tiny_llava(folder / FAMILIES[3], side=6, layers=4, seed=0)
    return {family: sharpened(open_model(path, device="cpu", attention="sdpa")) for family, path in paths.items()}


def encoded(adapter: Adapter) -> VideoFeatures:
    """Noise in front of scenes that drift: every token is another."""
    generator = np.random.default_rng(3)
    scenes = generator.integers(0, 200, (FRAMES // 4, 1, 1, 1, 3)).repeat(4, axis=1)
    noise = generator.integers(0, 56, (FRAMES // 4, 4, 56, 84, 3))
    return adapter.encode(
        (scenes + noise).astype(np.uint8).reshape(FRAMES, 56, 84, 3), keep_frames=True, keep_attention=True
    )


@pytest.fixture(scope="module")
def videos(models: dict[str, Adapter]) -> dict[str, VideoFeatures]:
    return {family: encoded(adapter) for family, adapter in models.items()}


@pytest.fixture(scope="module")
def model(models: dict[str, Adapter]) -> Adapter:
    return models["qwen2_5_vl"]


@pytest.fixture(scope="module")
def video(videos: dict[str, VideoFeatures]) -> VideoFeatures:
    return videos["qwen2_5_vl"]


@pytest.fixture
def backend(model: Adapter) -> Iterator[Any]:
    """Switches the backend of the decoder, and back behind the test."""

    def switch(name: str) -> None:
        model.language.backend = name

    before = model.language.backend
    yield switch
    model.language.backend = before


def forgetful(video: VideoFeatures) -> VideoFeatures:
    """The same video with nothing remembered."""
    return dataclasses.replace(video, memo={})


def n_text(adapter: Adapter, video: VideoFeatures) -> int:
    return adapter.prompt(QUESTION, video).n_text


def ask(
    adapter: Adapter,
    video: VideoFeatures,
    method: Method,
    budget: int | None = VIDEO_BUDGET,
    *,
    question: str = QUESTION,
    new: int = 1,
) -> Generation:
    """An answer under a context of the text and `budget` tokens of the video; of one token, nothing is decoded.

    A method that cannot do with so little has to name the least with which it can: that is taken then.
    """
    context = None if budget is None else n_text(adapter, video) + budget
    try:
        return adapter.answer(forgetful(video), question, method, context, max_new_tokens=new, record=True)
    except QuestionError as error:
        assert f"context={context}" in str(error)
        (least,) = re.findall(r"context of at least (\d+)", str(error))
        return adapter.answer(forgetful(video), question, method, int(least), max_new_tokens=new, record=True)


def cache_of(trace: Trace) -> CompressedCache:
    assert trace.recording is not None
    return trace.recording.cache


def first_logits(answer: Generation) -> torch.Tensor:
    assert answer.trace.recording is not None
    return answer.trace.recording.logits[0]


def measured(cache: CompressedCache, heads: int) -> list[list[int]]:
    """Slots of every layer and key-value head, counted in the tensors themselves [L][kv]."""
    return [[len(cache.head_keys(layer, head)) for head in range(heads)] for layer in range(cache.num_layers)]


def head_values(cache: CompressedCache, layer: int, head: int) -> torch.Tensor:
    states = cache._layers[layer].states(1)
    return states[0, head] if isinstance(states, torch.Tensor) else states[head][0, 0]


@pytest.fixture(scope="module")
def uncompressed(models: dict[str, Adapter], videos: dict[str, VideoFeatures]) -> Callable[..., torch.Tensor]:
    """(family, method) -> the first token's logits without compression, with the positions of the method."""

    @functools.cache
    def by_rule(family: str, rule: str) -> torch.Tensor:
        return first_logits(ask(models[family], videos[family], build_method("none", positions=rule), None))

    return lambda family, method: by_rule(family, method.position_rule)


def check_slots(case: Case, answer: Generation, heads: int) -> None:
    trace = answer.trace
    slots = measured(cache_of(trace), heads)
    assert [sum(of_layer) / heads for of_layer in slots] == trace.cache_length, "reported is not what is there"
    if trace.head_lengths is None:
        assert all(len(set(of_layer)) == 1 for of_layer in slots)
    if case.own_budget is None:
        total, context = sum(map(sum, slots)), trace.context
        assert total == heads * len(slots) * context, f"{total / heads / len(slots)} slots for a context of {context}"


@every_case
@pytest.mark.parametrize(("family", "budget"), [(FAMILIES[0], 35), *((family, VIDEO_BUDGET) for family in FAMILIES)])
def test_the_budget_is_exact_and_reported_as_measured(models, videos, case: Case, family: str, budget: int) -> None:
    if not case.exists_for(family):
        pytest.skip(f"does not exist for {family}")
    adapter, video = models[family], videos[family]
    answer = ask(adapter, video, case.build(), budget)
    heads = adapter.model.config.get_text_config().num_key_value_heads
    check_slots(case, answer, heads)


@every_case
def test_answering_leaves_no_tensor_to_the_garbage_collector(model, video, case: Case) -> None:
    """A cycle would keep the accelerator's memory until the next look for one, which comes seldom."""
    if not case.exists_for(FAMILIES[0]):
        pytest.skip("does not exist for the family")
    method = case.build()
    ask(model, video, method)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        ask(model, video, method)
        gc.collect()
        held = [each.shape for each in gc.garbage if isinstance(each, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not held, f"tensors in reference cycles: {held}"


def test_each_own_budget_is_one(model, video) -> None:
    """A case that fills the context exactly does not belong into the table of those that do not."""
    budgets = (VIDEO_BUDGET, 35, len(video.features) - 1)
    heads = model.model.config.get_text_config().num_key_value_heads
    for case in CASES:
        if case.own_budget is not None:
            traces = [ask(model, video, case.build(), budget).trace for budget in budgets]
            slots = [sum(map(sum, measured(cache_of(trace), heads))) for trace in traces]
            wanted = [heads * len(trace.cache_length) * trace.context for trace in traces]
            assert slots != wanted, f"{case.name}: {case.own_budget}?"


@every_case
def test_tokens_stay_in_order_and_no_guide_among_them(model, video, case: Case) -> None:
    """In layer 0 a value is that of its token alone: what is cached is a subsequence of what none caches there."""
    if case.name in CHANGES_VALUES:
        pytest.skip(CHANGES_VALUES[case.name])
    method = case.build()
    answer = ask(model, video, method)
    shown, _ = model._chosen(forgetful(video), QUESTION, method.for_family(model.family), answer.trace.context)
    plain = build_method("none", positions=method.position_rule)
    whole = cache_of(ask(model, shown, plain, None).trace)
    behind = model.prompt(QUESTION, shown).n_prompt - model.prompt(QUESTION, shown).video_stop
    for head in range(model.model.config.get_text_config().num_key_value_heads):
        reference, found = head_values(whole, 0, head), head_values(cache_of(answer.trace), 0, head)
        place = -1
        for value in found:
            same = (reference[place + 1 :] - value).abs().amax(-1) < 1e-4
            assert same.any(), f"slot behind token {place} of head {head} holds no later token of the prompt"
            place += 1 + int(same.int().argmax())
        assert torch.allclose(found[-behind:], reference[-behind:], atol=1e-4)  # all of the text behind the video
    for layer in range(whole.num_layers):
        cache = cache_of(answer.trace)
        if len(cache.head_lengths(layer)) == 1:
            time = cache.positions(layer)[0]
            assert (time[1:] >= time[:-1]).all() or case.own_budget  # the releases shuffle ids: that is their fault


def test_a_guide_left_behind_or_a_swap_would_be_seen(model, video) -> None:
    """The test above fails where it should."""
    from harness.compress.evict import ChunkEvictor

    @dataclasses.dataclass(frozen=True)
    class Leaves(ChunkEvictor):
        def feed(self, run, segment):
            if segment.chunk != 1:
                return super().feed(run, segment)
            guide = self.guide(run.prompt)
            return run.forward(segment, guide=guide, guide_ids=self.guide_ids(run.prompt, segment))

    @dataclasses.dataclass(frozen=True)
    class Swaps(ChunkEvictor):
        def choose(self, run, segment, scores, counts):
            return [kept.flip(0) for kept in super().choose(run, segment, scores, counts)]

    for wrong in (Leaves, Swaps):
        case = Case("adaretake", "adaretake", {})
        object.__setattr__(case, "build", lambda wrong=wrong: wrong(chunk_frames=4))
        with pytest.raises(AssertionError):
            test_tokens_stay_in_order_and_no_guide_among_them(model, video, case)


keeps_ids = pytest.mark.parametrize("case", [c for c in CASES if c.name not in MOVES_IDS], ids=lambda case: case.name)


@keeps_ids
def test_without_a_limit_chunks_do_not_show(model, video, case: Case) -> None:
    several, one = (ask(model, video, case.build(chunk_frames=f), None) for f in (4, 400))
    if several.trace.compressed:
        pytest.skip("compresses by a share of its own, limit or not")
    assert torch.allclose(first_logits(several), first_logits(one), atol=1e-4)


@keeps_ids
def test_a_context_that_holds_the_prompt_is_the_identity(model, video, uncompressed, case: Case) -> None:
    method = case.build()
    answer = ask(model, video, method, len(video.features))
    if answer.trace.compressed:
        pytest.skip("compresses by a share of its own, limit or not")
    assert answer.trace.cache_length == [answer.trace.n_prompt] * len(answer.trace.cache_length)
    assert torch.allclose(first_logits(answer), uncompressed(model.family, method), atol=1e-4)


@every_case
def test_every_backend_gives_the_same(model, video, backend, case: Case) -> None:
    answers = []
    for name in ("eager", "sdpa"):
        backend(name)
        answers.append(ask(model, video, case.build(), new=3))
    eager, sdpa = answers
    assert eager.tokens == sdpa.tokens and eager.trace.kept_digest == sdpa.trace.kept_digest
    assert eager.trace.cache_length == sdpa.trace.cache_length
    assert torch.allclose(first_logits(eager), first_logits(sdpa), atol=1e-3)


@pytest.fixture(scope="module")
def alone(model: Adapter, video: VideoFeatures) -> dict[str, tuple[int | None, torch.Tensor]]:
    """Context and logits of every case, each on a video that nobody else has seen."""
    answers = {case.name: ask(model, video, case.build()) for case in CASES}
    return {name: (answer.trace.context, first_logits(answer)) for name, answer in answers.items()}


@every_case
def test_repeated_it_is_the_same_to_the_bit(model, video, alone, case: Case) -> None:
    assert torch.equal(first_logits(ask(model, video, case.build())), alone[case.name][1])


def test_siblings_on_one_video_do_not_show(model, video, alone) -> None:
    """All methods on one video whose memory they share; then again in the other order, with the other question."""
    shared = forgetful(video)
    for case in CASES:
        model.answer(shared, OTHER, case.build(), alone[case.name][0], max_new_tokens=1)
    for case in CASES[::-1]:
        context, logits = alone[case.name]
        together = model.answer(shared, QUESTION, case.build(), context, max_new_tokens=1, record=True)
        assert torch.equal(first_logits(together), logits), case.name


@every_case
@pytest.mark.parametrize("family", FAMILIES)
def test_at_one_token_per_layer_the_first_token_changes(models, videos, uncompressed, case: Case, family: str) -> None:
    """A method that evicts only once the question is cached changes none of the first token's logits."""
    adapter, video = models[family], videos[family]
    if not case.exists_for(family) or case.method == "none":
        pytest.skip("no such method here, or none")
    answer = ask(adapter, video, case.build(), 1)
    assert not torch.allclose(first_logits(answer), uncompressed(family, case.build()), atol=1e-3)


def of_video(model: Adapter, video: VideoFeatures, method: Method, question: str) -> list[torch.Tensor]:
    """All that is cached in front of the text behind the video: of each layer and head keys and values [n, 2 d]."""
    prompt = model.prompt(question, video)
    behind = prompt.n_prompt - prompt.video_stop
    cache = cache_of(ask(model, video, method, question=question).trace)
    heads = range(model.model.config.get_text_config().num_key_value_heads)
    places = [(layer, head) for layer in range(cache.num_layers) for head in heads]
    return [torch.cat((cache.head_keys(*at), head_values(cache, *at)), dim=-1)[:-behind] for at in places]


@every_case
def test_it_says_truly_whether_the_question_takes_part(model, video, case: Case) -> None:
    """With another question of the same length another cache, or the same to the bit."""
    assert model.prompt(QUESTION, video).n_text == model.prompt(OTHER, video).n_text
    one, other = (of_video(model, video, case.build(), question) for question in (QUESTION, OTHER))
    same = all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert same != case.build().for_family(model.family).sees_question


ODD = [
    Sample(1, grids=1),
    Sample(2, grids=3, h=6, w=6),
    Sample(3, grids=9, h=2, w=2),
    Sample(4, grids=11, pre=1, post=1),
    Sample(5, grids=8, h=4, w=10),
]


@pytest.mark.parametrize("case", [case for case in CASES if case.own_budget is None], ids=lambda case: case.name)
def test_the_budget_is_exact_whatever_the_shape(case: Case) -> None:
    """One grid, one token per grid, no whole number of chunks, hardly any text, wide frames."""
    language, method = decoder(tiny_model(0, 4)), case.build().for_family("qwen2_5_vl")
    if type(method).select_frames is not Method.select_frames:
        pytest.skip("chooses frames, which is not the decoder's")
    for sample in ODD:
        text = sample.n_prompt - sample.n_video
        for context in sorted({text + 1, text + sample.n_video // 3 + 1, sample.n_prompt - 1}):
            prompt = sample.prompt(method.position_rule, context)
            prompt = dataclasses.replace(prompt, attention=sample.features.norm(dim=-1))
            try:
                trace = generate(language, method, prompt, (sample.features,), max_new_tokens=1).trace
            except QuestionError as error:
                assert f"context={context}" in str(error)
                continue
            assert sum(trace.cache_length) == pytest.approx(4 * context) and sum(trace.chunk_budget) == context - text
