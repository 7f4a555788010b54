"""FlexSelect: what a middle layer attends to, by another derivation; groups, budgets, and what passing twice costs."""

from __future__ import annotations

import pytest
import torch
from tiny_models import Sample, decoder, tiny_model

from harness.compress.generate import generate
from harness.compress.method import Method, build_method
from harness.compress.methods.flexselect import alone, strided
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt
from harness.errors import UserError


def test_groups_span_the_video() -> None:
    groups = strided(10, 4)
    assert [g.tolist() for g in groups] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert [g.tolist() for g in strided(4, 64)] == [[0, 1, 2, 3]]


def test_a_group_alone_is_the_prompt_of_a_shorter_video() -> None:
    long, short = Sample(grids=10), Sample(grids=4)
    group = torch.tensor([1, 4, 7, 9])
    found = alone(long.prompt(), group, 2)
    assert torch.equal(found.positions, short.positions(second_per_grid=1.0)) and found.grid_lengths == (6,) * 4
    assert found.input_ids[:29].tolist() == long.input_ids[:29].tolist() and found.n_text == 12
    assert found.input_ids[29:].tolist() == long.input_ids[-7:].tolist()


@pytest.mark.parametrize("group_grids", [3, 64])
def test_ranked_by_the_largest_weight_of_the_text(group_grids: int) -> None:
    """Against transformers' own attention weights of every group, and the tokens by plain sorting."""
    model, sample = tiny_model(layers=4), Sample()
    method = build_method("flexselect", layer=2, group_grids=group_grids).for_family("qwen2_5_vl")
    prompt = sample.prompt("float", 12 + 20)
    answer = generate(decoder(model), method, prompt, (sample.features,), max_new_tokens=1, record=True)
    assert answer.trace.recording is not None
    run = Prefill(decoder(model), Method(), prompt, (sample.features,), max_new_tokens=0, record=False)
    for group in strided(10, group_grids):
        shown = alone(prompt, group, 2)
        embeds = model.get_input_embeddings()(shown.input_ids).detach().clone()
        embeds[shown.video] = sample.features.view(10, 6, -1)[group].flatten(0, 1)
        model.set_attn_implementation("eager")
        with torch.inference_mode():
            states = model.model.language_model(
                inputs_embeds=embeds[None], position_ids=shown.positions[:, None], output_attentions=True
            )
        model.set_attn_implementation("sdpa")
        expected = states.attentions[2][0, :, -7:][..., shown.video].amax((0, 1))
        assert torch.allclose(method.rank(run, group), expected, atol=1e-5)
    passed = sum(12 + 6 * len(group) for group in strided(10, group_grids))
    assert answer.trace.prefilled == pytest.approx(passed * 2 / 4 + 32)
    assert answer.trace.cache_length == [32] * 4


def test_every_group_keeps_its_share(run) -> None:
    exact = run(Sample(), 12 + 20, name="flexselect", group_grids=3, new=1).trace
    assert exact.n_video == 20 and exact.cache_length == [32] * 3
    rounded = run(
        Sample(), 12 + 23, name="flexselect", group_grids=3, quirks={"shares_rounded_down": True}, new=1
    ).trace
    assert rounded.n_video == 4 * (23 // 4)
    assert run(Sample(), None, name="flexselect", budget=9, new=1).trace.n_video == 9


def test_other_questions_keep_other_tokens(run) -> None:
    one, other = Sample(), Sample()
    other.input_ids = torch.cat((one.input_ids[:-7], one.input_ids[-7:].flip(0)))
    kept = [run(sample, 40, name="flexselect", new=1).trace.kept_digest for sample in (one, other)]
    assert kept[0] != kept[1]


def test_what_it_cannot_do_is_said(run) -> None:
    with pytest.raises(UserError, match="method.layer=3 does not exist: this model has layers up to 2"):
        run(Sample(), 40, name="flexselect", layer=3)
    sample = Sample()
    prompt = sample.prompt()
    video = torch.cat((prompt.video[:6], prompt.video[6:] + 1))
    ids = torch.cat((prompt.input_ids[:11], prompt.input_ids[:1], prompt.input_ids[11:]))
    positions = torch.arange(len(ids)).expand(3, -1)
    torn = Prompt(input_ids=ids, positions=positions, video=video, grid_lengths=prompt.grid_lengths)
    with pytest.raises(UserError, match="text between the grids"):
        alone(torn, torch.arange(2), 2)
