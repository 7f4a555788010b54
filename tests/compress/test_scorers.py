"""Scores: two derivations that must agree, and blocks that must not show."""

from __future__ import annotations

import torch
from tiny_models import Sample, decoder

from harness.compress import scorers
from harness.compress.cache import CompressedCache


def naive(queries: torch.Tensor, keys: torch.Tensor, scale: float) -> torch.Tensor:
    repeated = keys.repeat_interleave(queries.shape[0] // keys.shape[0], dim=0)
    return torch.softmax(queries @ repeated.transpose(1, 2) * scale, dim=-1).sum(dim=1).mean(dim=0)


def test_blocks_of_queries_do_not_show(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(6, 50, 8, generator=generator), torch.randn(2, 30, 8, generator=generator)
    whole = scorers.attention_received(queries, keys, 0.4)
    assert torch.allclose(whole, naive(queries, keys, 0.4), atol=1e-5)
    monkeypatch.setattr(scorers, "_BLOCK_BYTES", 4 * 6 * 30 * 7)  # seven queries at a time
    assert torch.allclose(scorers.attention_received(queries, keys, 0.4), whole, atol=1e-5)
    assert abs(float(whole.sum()) - 50) < 1e-4  # each query gives away one unit of attention


def test_a_long_guide_never_takes_more_than_a_block(monkeypatch) -> None:
    sizes, softmax = [], torch.softmax
    monkeypatch.setattr(scorers, "_BLOCK_BYTES", 2**20)

    def watched(logits: torch.Tensor, **options) -> torch.Tensor:
        sizes.append(4 * logits.numel())
        return softmax(logits, **options)

    monkeypatch.setattr(scorers.torch, "softmax", watched)
    scorers.attention_received(torch.randn(4, 3000, 8), torch.randn(2, 200, 8), 1.0)
    assert max(sizes) <= 2**20 and len(sizes) > 1


def test_observed_scores_equal_those_of_the_stock_modules(model, run) -> None:
    """The first chunk's scores, recomputed from the hidden states that the stock model itself reports."""
    sample = Sample(grids=4)
    got = run(sample, sample.n_prompt - 2, layers=False, temporal=False, chunk_frames=8).trace.recording.scores[0]
    language, text_model = decoder(model), model.model.language_model
    ids = sample.positions()  # one chunk: the guide behind it has its own place in the prompt
    embeds = model.get_input_embeddings()(sample.input_ids).detach().clone()
    embeds[sample.video] = sample.features
    with torch.inference_mode():
        states = text_model(inputs_embeds=embeds[None], position_ids=ids[:, None], output_hidden_states=True)
        for layer, module in enumerate(text_model.layers):
            attention, hidden = module.self_attn, module.input_layernorm(states.hidden_states[layer])[0]
            query = attention.q_proj(hidden).view(sample.n_prompt, 4, -1).transpose(0, 1)
            key = attention.k_proj(hidden).view(sample.n_prompt, 2, -1).transpose(0, 1)
            query, key = language.rotate(query, ids), language.rotate(key, ids)
            expected = naive(query[:, sample.video.stop :], key[:, sample.video], attention.scaling)
            assert torch.allclose(got[layer], expected, atol=1e-5)


def test_an_observer_sees_every_layer_once(model) -> None:
    sample, seen = Sample(), []
    language = decoder(model)
    language.forward(
        language.embed(sample.input_ids[:4]),
        sample.positions()[:, :4],
        CompressedCache(language.num_layers),
        lambda layer, query, key, scale: seen.append((layer, tuple(query.shape), tuple(key.shape), scale)),
    )
    assert seen == [(layer, (4, 4, 8), (1, 2, 4, 8), 8**-0.5) for layer in range(3)]
