"""FastV: one early layer ranks, all layers keep the same; natively, half of the video stops passing."""

from __future__ import annotations

import pytest
import torch
from dense import Chunk, best, dense, even_budgets, evicted
from tiny_models import Sample, tiny_model

from harness.compress.method import build_method
from harness.errors import QuestionError, UserError

CONTEXT = 40


def logits(answer) -> torch.Tensor:
    return answer.trace.recording.logits[0]


@pytest.mark.parametrize("rows", ["last", "all"])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_it_is_what_a_dense_pass_behind_masks_gives(model, run, layer: int, rows: str) -> None:
    sample = Sample()
    budgets = even_budgets(sample, CONTEXT, 2)

    def rule(chunk: Chunk):
        weights = chunk.layers[layer - 1].weights.mean(0)
        asking = chunk.guide[-1:] if rows == "last" else torch.cat((chunk.video, chunk.guide))
        kept = best(weights[asking][:, chunk.video].mean(0), budgets[chunk.number])
        return [kept] * 3

    expected, last = evicted(model, sample, 2, rule)
    got = run(sample, CONTEXT, name="fastv", layer=layer, rows=rows)
    assert got.trace.kept == [[b] * 3 for b in budgets]
    for of_chunk, theirs in zip(got.trace.recording.kept_indices, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(of_chunk, theirs, strict=True))
    assert torch.allclose(logits(got), last, atol=1e-4)


def native(**options):
    return build_method("fastv", form="native", **options).for_family("qwen2_5_vl")


@pytest.mark.parametrize(("layer", "keep"), [(1, 0.5), (2, 0.3)])
def test_natively_what_is_dropped_is_missing_from_one_layer_on(model, run, layer: int, keep: float) -> None:
    """Second derivation: the dense pass, in which from layer K on nothing sees the tokens that were dropped."""
    sample = Sample()
    got = run(sample, None, method=native(layer=layer, keep=keep))
    n, text = sample.n_prompt, sample.n_prompt - sample.n_video
    embeds = model.get_input_embeddings()(sample.input_ids).detach().clone()
    embeds[sample.video] = sample.features
    visible = torch.ones(n, n, dtype=torch.bool).tril().repeat(3, 4, 1, 1)
    layers, _ = dense(model, embeds, sample.positions(), visible)
    kept = best(layers[layer - 1].weights.mean(0)[-1, sample.video], int(sample.n_video * keep))
    gone = torch.ones(n, dtype=torch.bool)
    gone[: sample.video.start] = gone[sample.video.stop :] = False
    gone[sample.video.start + kept] = False
    visible[layer:, :, :, gone] = False
    visible |= torch.eye(n, dtype=torch.bool)  # what is gone sees itself, and nobody sees it
    assert torch.allclose(logits(got), dense(model, embeds, sample.positions(), visible)[1][-1], atol=1e-4)
    assert got.trace.cache_length == [n] * layer + [text + len(kept)] * (3 - layer)
    assert [torch.equal(i, kept) for i in got.trace.recording.kept_indices[0]] == [i >= layer for i in range(3)]
    assert got.trace.prefilled == sum(got.trace.cache_length) / 3


def test_natively_a_share_of_one_is_the_identity(run) -> None:
    sample = Sample()
    whole = run(sample, None, name="none")
    assert torch.allclose(logits(run(sample, None, method=native(keep=1.0))), logits(whole), atol=1e-4)


def test_the_native_form_names_the_context_that_it_needs(run) -> None:
    sample = Sample()  # 72 tokens, 60 of them video: 72, 72, 42
    with pytest.raises(QuestionError, match="keeps 62.0 slots.*context=61: use a context of at least 62"):
        run(sample, 61, method=native())
    assert sum(run(sample, 62, method=native()).trace.cache_length) == 3 * 62


def test_native_answers_are_the_same_on_every_backend_and_when_repeated(run) -> None:
    answers = [run(Sample(), None, method=native(), backend=backend) for backend in ("eager", "sdpa", "sdpa")]
    assert answers[0].tokens == answers[1].tokens
    assert torch.allclose(logits(answers[0]), logits(answers[1]), atol=1e-4)
    assert torch.equal(logits(answers[1]), logits(answers[2]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"form": "nativ"}, "method.form=nativ is not known; allowed: kv, native"),
        ({"layer": 0}, "method.layer=0 is not allowed"),
        ({"keep": 0.0}, "method.keep=0.0 is not allowed"),
        ({"layer": 4}, "method.layer=4: this model has 3 layers"),
        ({"layer": 3, "form": "native"}, "before layer 3: this model allows 1 to 2"),
        ({"reindex": True, "form": "native"}, "reindex=true: ids of 3 rows"),
    ],
)
def test_what_cannot_be_is_named(run, options: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        run(Sample(), CONTEXT if options.get("form") != "native" else None, name="fastv", **options)


def test_the_features_of_deepstack_are_not_dropped(model) -> None:
    from tiny_models import decoder

    from harness.compress.generate import generate

    sample = Sample()
    with pytest.raises(UserError, match="before layer 2: this model allows 3 to 2"):
        generate(decoder(tiny_model()), native(), sample.prompt(), (sample.features,) * 3, max_new_tokens=1)
