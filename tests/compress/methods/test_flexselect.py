"""FlexSelect: what a middle layer attends to, by another derivation; groups, budgets, and what passing twice costs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny_checkpoints import save_tiny
from tiny_models import Sample, decoder, tiny_model

from harness.compress.generate import generate
from harness.compress.method import Method, build_method
from harness.compress.methods.flexselect import alone, strided
from harness.compress.prefill import Prefill
from harness.errors import UserError
from harness.models.adapter import Adapter
from harness.models.families import open_model


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


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return open_model(str(save_tiny("qwen3_vl", tmp_path_factory.mktemp("model"), layers=4)), device="cpu")


def test_a_group_alone_between_texts_is_the_prompt_of_its_grids_at_their_times(qwen3: Adapter) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (14, 56, 84, 3), dtype=np.uint8)
    video = qwen3.encode(frames, second_per_grid=2.0)
    whole = qwen3.prompt("which colour ?", video)
    assert whole.text_of_video[0] > 1 and whole.text_of_video[1] == 1
    for group in (torch.tensor([0, 3, 6]), torch.tensor([1, 4]), torch.arange(7), torch.tensor([5])):
        seconds = tuple(video.grid_seconds(2)[grid] for grid in group)
        shown = dataclasses.replace(video.of_grids(group, 2.0), seconds=seconds)
        expected, found = qwen3.prompt("which colour ?", shown), alone(whole, group, 1)
        assert torch.equal(found.input_ids, expected.input_ids)
        assert torch.equal(found.positions, expected.positions)
        assert torch.equal(found.video, expected.video) and found.grid_lengths == expected.grid_lengths


@pytest.mark.parametrize("group_grids", [3, 64])
def test_between_texts_it_ranks_by_what_the_stock_model_attends_to(qwen3: Adapter, group_grids: int) -> None:
    """With features of deepstack, group by group, by transformers' own attention weights."""
    frames = np.random.default_rng(0).integers(0, 255, (14, 56, 84, 3), dtype=np.uint8)
    video = qwen3.encode(frames, second_per_grid=2.0)
    prompt, features = qwen3.prompt("which colour ?", video), (video.features, *video.deepstack)
    method = build_method("flexselect", layer=3, group_grids=group_grids).for_family("qwen3_vl")
    run = Prefill(qwen3.language, Method(), prompt, features, max_new_tokens=0, record=False)
    text = qwen3.model.model.language_model
    for group in strided(7, group_grids):
        shown = alone(prompt, group, 1)
        tokens = (group[:, None] * 6 + torch.arange(6)).flatten()
        is_video = torch.zeros(shown.n_prompt, dtype=torch.bool).index_fill(0, shown.video, value=True)
        embeds = text.get_input_embeddings()(shown.input_ids).detach().clone()
        embeds[shown.video] = video.features[tokens]
        text.set_attn_implementation("eager")
        with torch.inference_mode():
            states = text(
                inputs_embeds=embeds[None],
                position_ids=shown.positions[:, None],
                visual_pos_masks=is_video[None],
                deepstack_visual_embeds=[feature[tokens] for feature in video.deepstack],
                output_attentions=True,
            )
        text.set_attn_implementation("sdpa")
        weights = states.attentions[3][0]
        behind = shown.n_prompt - shown.video_stop
        assert torch.allclose(method.rank(run, group), weights[:, -behind:][..., shown.video].amax((0, 1)), atol=1e-5)
