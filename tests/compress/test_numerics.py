"""Numbers that are not, formats that are coarse, and layers that lie on several devices."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from tiny_models import Sample, decoder, tiny_model

from harness.compress import scorers
from harness.compress.cache import CompressedCache
from harness.compress.methods.adaretake import Paper
from harness.errors import QuestionError


@pytest.mark.parametrize("layers", [False, True])
def test_a_score_that_is_not_a_number_fails_its_answer(run, layers: bool) -> None:
    @dataclass(frozen=True)
    class Overflows(Paper):
        def score(self, view):
            scores = super().score(view)
            return scores.masked_fill(torch.arange(len(scores)) == 3, torch.nan) if view.layer == 1 else scores

    with pytest.raises(QuestionError, match="scores of .*chunk.* are not all numbers.*model.dtype=float32"):
        run(Sample(), 40, method=Overflows(chunk_frames=4, layers=layers))


@pytest.mark.parametrize("bias", [0.0, 200.0, 800.0])
def test_scores_of_bfloat16_states_are_those_of_float32(bias: float) -> None:
    """A bias on the keys moves every logit alike; in bfloat16 logits of that size are whole units apart."""
    generator = torch.Generator().manual_seed(0)
    queries = (1 + 0.3 * torch.randn(4, 20, 16, generator=generator)).bfloat16()
    keys = (0.3 * torch.randn(2, 60, 16, generator=generator) + bias / 16).bfloat16()
    padding = keys[:, :20]
    both, all_keys = torch.cat((queries[:, :20].repeat(1, 3, 1), queries), dim=1), torch.cat((keys, padding), dim=1)
    view = scorers.LayerView(both, all_keys, 20, None, 1.0, 0, None, None)
    logits = queries.double() @ keys.double().repeat_interleave(2, dim=0).transpose(1, 2)
    exact = logits.softmax(-1).sum(1).mean(0)
    assert torch.allclose(scorers.guide_attention(view).double(), exact, rtol=1e-3, atol=1e-4)
    rounded = scorers.attention_received(queries, keys, 1.0, rounded=True)
    assert rounded.dtype == torch.bfloat16
    if bias:
        assert not torch.allclose(rounded.double(), exact, rtol=1e-2)


@pytest.mark.parametrize("reforge", [False, True])
def test_text_longer_than_the_first_chunk_never_counts_below_zero(run, reforge: bool) -> None:
    trace = run(Sample(pre=20), 40, semantics="release_2025", chunk_frames=2, reforge=reforge).trace
    assert min(min(layers) for layers in trace.kept) >= 0
    for kept, length in zip(trace.kept, trace.chunk_lengths, strict=True):
        assert max(kept) <= length
    assert [len(i) for i in trace.recording.kept_indices[0]] == trace.kept[0]


def test_a_cache_that_outgrows_its_reserve_is_copied_seldom() -> None:
    made = []

    def new_buffer(like: torch.Tensor, capacity: int) -> torch.Tensor:
        made.append(capacity)
        return like.new_empty(*like.shape[:2], capacity, like.shape[3])

    cache = CompressedCache(1, reserve=8, new_buffer=new_buffer)
    for _ in range(50):
        cache.update(torch.zeros(1, 2, 40, 4), torch.zeros(1, 2, 40, 4), 0)
    assert cache.lengths == [2000] and 2 <= len(made) <= 2 * 9


@pytest.mark.parametrize("yarn", [1.0, 4.0])
def test_rotation_happens_where_the_states_are(yarn: float) -> None:
    """Where layers are spread over devices the rotary module answers from its own, here the CPU."""
    language = decoder(tiny_model(yarn=yarn))
    rotary, ids = language.text_model.rotary_emb, torch.arange(5).repeat(3, 1)

    class OnItsOwnDevice(torch.nn.Module):
        attention_scaling = rotary.attention_scaling

        def forward(self, states, positions):
            return rotary(torch.zeros(1, 5, 32), ids[:, None])

    language.text_model.rotary_emb = OnItsOwnDevice()
    try:
        there = torch.empty(2, 5, 8, device="meta")
        assert language.rotate(there, ids).device.type == "meta"
        assert language.unrotate(there, ids).device.type == "meta"
    finally:
        language.text_model.rotary_emb = rotary


def test_an_answer_says_how_near_its_closest_choice_was(run) -> None:
    trace = run(Sample(), 40, layers=False).trace
    gaps = []
    for scores, kept in zip(trace.recording.scores, trace.recording.kept_indices, strict=True):
        for s, i in zip(scores, kept, strict=True):
            left = torch.ones(len(s), dtype=torch.bool)
            left[i] = False
            if left.any() and len(i):
                gaps.append(float((s[i].min() - s[left].max()) / s.max()))
    assert trace.kept_margin == pytest.approx(min(gaps), rel=1e-4, abs=1e-9)
    assert run(Sample(), 40, layers=False).trace.kept_digest == trace.kept_digest
    assert run(Sample(), 39, layers=False).trace.kept_digest != trace.kept_digest
    whole = run(Sample(), None).trace
    assert whole.kept_digest is None and whole.kept_margin is None
