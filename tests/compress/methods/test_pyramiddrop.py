"""PyramidDrop: fewer tokens from stage to stage, nested; natively their states stop passing and are numbered anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from dense import Chunk, best, dense, even_budgets, evicted
from tiny_models import Sample, tiny_model

from harness.compress.allocation import allocate
from harness.compress.generate import generate
from harness.compress.method import build_method
from harness.compress.methods.pyramiddrop import stage_of_layers
from harness.compress.prompt import Prompt
from harness.errors import QuestionError
from harness.models.language import Decoder

CONTEXT, LAYERS = 40, 4


@pytest.fixture(scope="module")
def four_layers() -> Any:
    return tiny_model(1, LAYERS)


def logits(answer) -> torch.Tensor:
    return answer.trace.recording.logits[0]


def test_quarters() -> None:
    assert stage_of_layers(4, 28) == [0] * 7 + [1] * 7 + [2] * 7 + [3] * 7
    assert (stage_of_layers(4, 2), stage_of_layers(4, 1)) == ([0, 2], [0])
    method = build_method("pyramiddrop")
    assert method.judges(28) == [7] * 14 + [14] * 7 + [21] * 7
    assert allocate(method.weights(28), 28 * 60, [2304] * 28) == [128] * 7 + [64] * 7 + [32] * 7 + [16] * 7


@pytest.mark.parametrize("first", [True, False])
def test_it_is_what_a_dense_pass_behind_masks_gives(four_layers, run, first: bool) -> None:
    sample = Sample()
    budgets = even_budgets(sample, CONTEXT, 2)

    def rule(chunk: Chunk):
        total = 4 * budgets[chunk.number]
        if first:
            counts = allocate([8, 4, 2, 1], total, [12] * 4)
        else:
            counts = [12, *allocate([4, 2, 1], total - 12, [12] * 3)]
        kept, alive = [], torch.arange(12)
        for layer, judge in enumerate((1, 1, 2, 3)):
            scores = chunk.layers[judge].weights.mean(0)[chunk.guide[-1], chunk.video]
            alive = alive[best(scores[alive], counts[layer])]
            kept.append(alive)
        return kept

    expected, last = evicted(four_layers, sample, 2, rule)
    got = run(sample, CONTEXT, on=four_layers, name="pyramiddrop", first_stage_drops=first)
    assert sum(got.trace.cache_length) == 4 * CONTEXT
    for of_chunk, theirs in zip(got.trace.recording.kept_indices, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(of_chunk, theirs, strict=True))
        sets = [set(i.tolist()) for i in of_chunk]
        assert all(later <= earlier for earlier, later in zip(sets, sets[1:], strict=False))
    assert torch.allclose(logits(got), last, atol=1e-4)


def test_without_drops_in_the_first_stage_the_least_context_is_named(four_layers, run) -> None:
    sample = Sample()  # 12 of text, 60 of video
    options = {"on": four_layers, "name": "pyramiddrop", "first_stage_drops": False}
    with pytest.raises(QuestionError, match="1 of 4 layers.*context=26: use a context of at least 27"):
        run(sample, 26, **options)
    trace = run(sample, 27, **options).trace
    assert sum(trace.cache_length) == 4 * 27 and trace.cache_length[0] == sample.n_prompt


def native(**options):
    return build_method("pyramiddrop", form="native", **options).for_family("qwen2_5_vl")


def expected_native(model, embeds, ids, video: slice, *, renumbered: bool, decoded: int = 0):
    """Stage by stage: rank by the weights of the layer behind the drop, while it still sees what will be dropped."""
    n, prompt_length = len(embeds), len(embeds) - decoded
    visible = torch.ones(n, n, dtype=torch.bool).tril().repeat(LAYERS, 4, 1, 1)
    ids_of, alive, kept_of = [ids] * LAYERS, torch.arange(video.stop - video.start), []
    total = len(alive)
    kept_of.append(alive)
    for layer in range(1, LAYERS):
        layers, _ = dense(model, embeds, ids_of, visible)
        scores = layers[layer].weights.mean(0)[prompt_length - 1, video]
        alive = alive[best(scores[alive], int(total * 0.5**layer))]
        kept_of.append(alive)
        gone = torch.zeros(n, dtype=torch.bool)
        gone[video] = True
        gone[video.start + alive] = False
        visible[layer:, :, :, gone] = False
        visible[layer:] |= torch.eye(n, dtype=torch.bool)
        if renumbered:
            fresh = ids.clone()
            fresh[:, ~gone] = torch.arange(int((~gone).sum()))
            ids_of = [*ids_of[:layer], *[fresh] * (LAYERS - layer)]
    return kept_of, dense(model, embeds, ids_of, visible)[1]


def test_natively_it_is_the_dense_pass_with_ids_kept(four_layers, run) -> None:
    sample = Sample()
    got = run(sample, None, on=four_layers, method=native())
    embeds = four_layers.get_input_embeddings()(sample.input_ids).detach().clone()
    embeds[sample.video] = sample.features
    kept, last = expected_native(four_layers, embeds, sample.positions(), sample.video, renumbered=False)
    assert got.trace.cache_length == [12 + 60, 12 + 30, 12 + 15, 12 + 7]
    assert all(torch.equal(a, b) for a, b in zip(got.trace.recording.kept_indices[0], kept, strict=True))
    assert torch.allclose(logits(got), last[-1], atol=1e-4)
    with pytest.raises(QuestionError, match="keeps 40.0 slots.*at least 40"):
        run(sample, 39, on=four_layers, method=native())


def one_dimensional() -> Any:
    """A random Qwen2, whose tokens have one id."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=160, hidden_size=32, intermediate_size=48, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(3)
    model = Qwen2ForCausalLM._from_config(config, attn_implementation="sdpa", dtype=torch.float32).eval()
    return SimpleNamespace(model=SimpleNamespace(language_model=model.model), lm_head=model.lm_head)


@pytest.mark.parametrize("reindex", [None, False])
def test_natively_what_is_left_of_one_id_is_numbered_anew(reindex: bool | None) -> None:
    sample, model = Sample(grids=6), one_dimensional()
    language = Decoder(model.model.language_model, model.lm_head, backend="sdpa", rows=1)
    ids = torch.arange(sample.n_prompt)[None]
    prompt = Prompt(sample.input_ids, ids, torch.arange(*sample.video.indices(99)[:2]), (6,) * 6, frames_per_grid=1)
    method = native(reindex=reindex)
    got = generate(language, method, prompt, (sample.features,), max_new_tokens=3, record=True)
    table = model.model.language_model.get_input_embeddings()
    embeds = table(sample.input_ids).detach().clone()
    embeds[sample.video] = sample.features
    embeds = torch.cat((embeds, table(torch.tensor(got.tokens[:2])).detach()))
    ids = torch.arange(len(embeds))[None]
    _, expected = expected_native(model, embeds, ids, sample.video, renumbered=reindex is None, decoded=2)
    assert torch.allclose(got.trace.recording.logits, expected[-3:], atol=1e-4)
