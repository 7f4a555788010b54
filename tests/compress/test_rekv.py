"""ReKV: what is stored and what each layer retrieves are derived a second time with the stock model."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from tiny_models import Sample, decoder, stock_logits, tiny_model

from harness.compress.generate import generate
from harness.compress.method import Method, build_method
from harness.compress.methods.rekv import Window, stored_grids
from harness.compress.prefill import Prefill
from harness.compress.trace import Generation
from harness.errors import QuestionError, UserError

SAMPLE = Sample()  # 5 text, 10 grids of 6 tokens, 7 text
TEXT, GRIDS, N = 12, 10, 6
language = functools.cache(decoder)


def ask(
    model: Any, context: int | None, *, sample: Sample = SAMPLE, memo: dict[Any, Any] | None = None, **options: Any
) -> Generation:
    method = build_method("rekv", **{"chunk_frames": 4, **options})
    prompt = sample.prompt(method.position_rule, context)
    return generate(language(model), method, prompt, (sample.features,), max_new_tokens=3, record=True, memo=memo)


def same(a: Generation, b: Generation) -> bool:
    return a.tokens == b.tokens and torch.equal(a.trace.recording.logits, b.trace.recording.logits)


def stored(model: Any, window: int = 1000) -> Any:
    prompt = SAMPLE.prompt("float", SAMPLE.n_prompt - 1)
    run = Prefill(language(model), Method(chunk_frames=4), prompt, (SAMPLE.features,), max_new_tokens=0, record=False)
    with torch.inference_mode():
        return stored_grids(run, Window(chunk_frames=4, window=window))


def retrieved(trace: Any) -> list[list[int]]:
    """The grids of each layer, read from the ids in the cache."""
    grid_at = {int(t): g for g, t in enumerate(SAMPLE.positions()[0, 5:65:N])}
    cache = trace.recording.cache
    found = []
    for layer in range(cache.num_layers):
        time = cache.positions(layer)[0, 5 : -7 - 2].tolist()
        assert time == sorted(time)
        found.append([grid_at[t] for t in time[::N]])
        assert time == [t for t in time[::N] for _ in range(N)]
    return found


class Raw:
    """Hooks that keep what the projections of all layers give, [heads, n, 8], before rotation."""

    def __init__(self, model: Any, name: str, heads: int) -> None:
        self.of: dict[int, torch.Tensor] = {}
        self._handles = [
            getattr(layer.self_attn, name).register_forward_hook(
                lambda _m, _i, out, i=index: self.of.__setitem__(i, out[0].view(-1, heads, 8).transpose(0, 1))
            )
            for index, layer in enumerate(model.model.language_model.layers)
        ]

    def __enter__(self) -> dict[int, torch.Tensor]:
        return self.of

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


@pytest.mark.parametrize("yarn", [1.0, 4.0])
def test_stored_are_the_keys_and_values_of_a_full_pass(yarn: float) -> None:
    model = tiny_model(yarn=yarn)
    store = stored(model)
    plain = generate(
        language(model), Method(chunk_frames=100), SAMPLE.prompt(), (SAMPLE.features,), max_new_tokens=1, record=True
    ).trace.recording.cache
    with Raw(model, "k_proj", 2) as keys:
        stock_logits(model, SAMPLE)
    for layer in range(3):
        for name, whole in (("keys", plain.keys(layer)), ("values", plain.values(layer))):
            parts = [getattr(block[layer], name) for block in (store.prefix, *store.blocks)]
            assert [part.shape[1] for part in parts] == [5] + [N] * GRIDS
            assert torch.allclose(torch.cat(parts, dim=1), whole[:, :65], atol=1e-4)
        raw = keys[layer][:, 5:65].view(2, GRIDS, N, 8).mean(2)
        assert torch.allclose(store.summaries[layer], raw.transpose(0, 1), atol=1e-4)
    assert store.nbytes == 3 * 65 * 2 * 2 * 8 * 4


@pytest.mark.parametrize("count", [1, 4, 9])
@torch.inference_mode()
def test_each_layer_retrieves_the_grids_nearest_to_its_query(model, count: int) -> None:
    """The stock model asks the question behind what each layer retrieved; its own queries choose the same grids."""
    from transformers import DynamicCache

    answer = ask(model, TEXT + count * N)
    assert answer.trace.cache_length == [TEXT + count * N] * 3
    found, store = retrieved(answer.trace), stored(model)
    assert all(len(grids) == count for grids in found) and (count == 9 or len({tuple(g) for g in found}) > 1)
    cache = DynamicCache()
    for layer, grids in enumerate(found):
        blocks = [store.prefix[layer], *(store.blocks[grid][layer] for grid in grids)]
        cache.update(*(torch.cat([getattr(b, n) for b in blocks], dim=1)[None] for n in ("keys", "values")), layer)
    with Raw(model, "q_proj", 4) as queries:
        embeds = model.get_input_embeddings()(SAMPLE.input_ids[-7:])[None]
        hidden = model.model.language_model(
            inputs_embeds=embeds, position_ids=SAMPLE.positions()[:, None, -7:], past_key_values=cache
        ).last_hidden_state
    assert torch.allclose(answer.trace.recording.logits[0], model.lm_head(hidden[0, -1]), atol=1e-4)
    for layer, grids in enumerate(found):
        query = queries[layer].mean(1)  # [4, 8], all heads one after the other
        keys = store.summaries[layer].repeat_interleave(2, dim=1)  # [G, 4, 8], keys repeated to the query heads
        nearest = (keys.flatten(1) @ query.flatten()).topk(count).indices.sort().values
        assert nearest.tolist() == grids


@torch.inference_mode()
def test_the_window_slides(model) -> None:
    """Two grids pass at a time: with a window of 12 tokens a chunk sees the one before it and the text in front."""
    from transformers import DynamicCache

    narrow, wide = stored(model, window=12), stored(model)
    for grid in range(GRIDS):
        pairs = zip(narrow.blocks[grid], wide.blocks[grid], strict=True)
        assert all(torch.equal(a.values, b.values) for a, b in pairs) == (grid < 4)
    for chunk in (2, 4):
        cache = DynamicCache()
        for layer in range(3):
            seen = [block[layer] for block in (narrow.prefix, *narrow.blocks[2 * chunk - 2 : 2 * chunk])]
            cache.update(*(torch.cat([getattr(b, n) for b in seen], dim=1)[None] for n in ("keys", "values")), layer)
        video = slice(2 * chunk * N, 2 * (chunk + 1) * N)
        tokens = slice(5 + video.start, 5 + video.stop)
        model.model.language_model(
            inputs_embeds=SAMPLE.features[video][None],
            position_ids=SAMPLE.positions()[:, None, tokens],
            past_key_values=cache,
        )
        for layer, states in enumerate(cache.layers):
            parts = [block[layer].values for block in narrow.blocks[2 * chunk : 2 * chunk + 2]]
            assert torch.allclose(states.values[0, :, -2 * N :], torch.cat(parts, dim=1), atol=1e-4)


def test_the_window_bounds_what_is_cached(model) -> None:
    trace = ask(model, TEXT + 2 * N, window=18).trace
    assert trace.cache_peak == 5 + 18 + 12  # text in front, window, chunk
    assert ask(model, TEXT + 2 * N).trace.cache_peak == 65
    assert trace.host_bytes == 3 * 65 * 2 * 2 * 8 * 4
    assert trace.moved_bytes == 3 * (5 + 2 * N) * 2 * 2 * 8 * 4
    assert trace.prefilled == 65 + 2 * 7
    assert [sum(layer) for layer in zip(*trace.kept, strict=True)] == [2 * N] * 3


def test_a_context_without_room_for_a_grid_names_the_least(model) -> None:
    with pytest.raises(QuestionError, match=f"at least {TEXT + N}"):
        ask(model, TEXT + N - 1)
    assert ask(model, TEXT + N).trace.cache_length == [TEXT + N] * 3
    assert ask(model, TEXT + 2 * N - 1).trace.cache_length == [TEXT + N] * 3


def test_a_context_that_fits_is_the_identity(model) -> None:
    fits = ask(model, SAMPLE.n_prompt)
    assert not fits.trace.compressed and fits.trace.host_bytes == 0
    assert torch.allclose(fits.trace.recording.logits[0], stock_logits(model, SAMPLE), atol=1e-4)


@pytest.mark.parametrize("memory_ids", ["kept", "squeezed"])
def test_a_second_question_does_not_prefill_the_video(model, memory_ids) -> None:
    other = Sample()
    other.input_ids = torch.cat((SAMPLE.input_ids[:-7], torch.arange(20, 29)))
    memo: dict[Any, Any] = {}
    passed: list[int] = []
    ask(model, 36, memo=memo, memory_ids=memory_ids)
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _module, _args, inputs: passed.append(inputs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    second = ask(model, 36, sample=other, memo=memo, memory_ids=memory_ids)
    hook.remove()
    assert passed == [9, 9, 1, 1] and second.trace.prefilled == 18
    fresh = ask(model, 36, sample=other, memory_ids=memory_ids)
    assert same(second, fresh) and second.trace.kept_digest == fresh.trace.kept_digest
    assert fresh.trace.prefilled == 65 + 18
    # other contexts share it, another window does not
    assert ask(model, 50, memo=memo).trace.prefilled == 14
    assert ask(model, 50, memo=memo, window=12).trace.prefilled == 65 + 14


def test_squeezed_ids_count_the_retrieved_grids_of_each_layer(model) -> None:
    trace = ask(model, TEXT + 3 * N, memory_ids="squeezed").trace
    kept = ask(model, TEXT + 3 * N).trace
    assert kept.kept_digest == trace.kept_digest  # retrieval comes before
    for layer in range(3):
        ids = trace.recording.cache.positions(layer)
        assert ids[0].tolist() == [0, 1, 2, 3, 4] + [5] * N + [6] * N + [7] * N + list(range(8, 8 + 7 + 2))
        assert torch.equal(ids[1:, 5 : 5 + 3 * N], kept.recording.cache.positions(layer)[1:, 5 : 5 + 3 * N])
    old, new = (t.recording.cache.positions(1)[:, 5 : 5 + 3 * N] for t in (kept, trace))
    raw = language(model).unrotate(kept.recording.cache.keys(1)[:, 5 : 5 + 3 * N], old)
    assert torch.allclose(trace.recording.cache.keys(1)[:, 5 : 5 + 3 * N], language(model).rotate(raw, new), atol=1e-5)


def test_wrong_options_are_named() -> None:
    for key, value in (("window", 0), ("memory_ids", "fresh")):
        with pytest.raises(UserError, match=f"method.{key}={value}"):
            build_method("rekv", **{key: value})
