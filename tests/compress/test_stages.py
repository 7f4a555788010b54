"""What a method may do: each stage carried by a small method that runs on the embedded toy.

The methods are real in what they do to the model and small in how they choose; published ones are built on the same
stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from harness.compress.attention import attend, last_keys, sdpa_attention
from harness.compress.cache import Stored
from harness.compress.evict import ChunkEvictor, highest, video_budget
from harness.compress.method import Method, Pruned, build_method
from harness.compress.prompt import Segment
from harness.compress.trace import Generation
from harness.errors import UserError
from harness.models.adapter import Adapter, VideoFeatures
from harness.models.families import open_model
from harness.toy import CHECKPOINT, render
from harness.toy.world import compose

FRAMES = 64
QUESTION = "What colour is the ring?\nOptions:\nA. blue.\nB. pink.\nC. green.\nD. red."
CONTEXT = 100
FULL = Method(chunk_frames=16)


@pytest.fixture(scope="module")
def toy() -> Adapter:
    return open_model(str(CHECKPOINT), device="cpu")


@pytest.fixture(scope="module")
def video(toy: Adapter) -> VideoFeatures:
    frames = render.draw(compose(np.random.default_rng(5), FRAMES))
    return toy.encode(frames, second_per_grid=1.0, keep_frames=True)


def ask(toy: Adapter, video: VideoFeatures, method: Method, context: int | None = CONTEXT) -> Generation:
    return toy.answer(video, QUESTION, method, context, max_new_tokens=3, record=True)


def first_logits(answer: Generation) -> torch.Tensor:
    assert answer.trace.recording is not None
    return answer.trace.recording.logits[0]


@dataclass(frozen=True)
class HeadBudgets(ChunkEvictor):
    """Every key-value head keeps its own tokens, and as many of them as it has among the layer's best."""

    def score(self, view):
        groups = view.guide_queries.unflatten(0, (view.chunk_keys.shape[0], -1))  # [kv, h / kv, g, d]
        logits = groups.flatten(1, 2) @ view.chunk_keys.transpose(1, 2) * view.scale
        return logits.softmax(-1).sum(1)

    def layer_counts(self, run, segment, scores):
        budget = run.trace.chunk_budget[segment.chunk]
        counts = []
        for layer in scores:
            heads, length = layer.shape
            hits = layer.flatten().topk(heads * budget).indices // length
            counts.append(torch.bincount(hits, minlength=heads).tolist())
        return counts


def test_heads_may_differ_in_length(toy, video) -> None:
    answer = ask(toy, video, HeadBudgets(chunk_frames=16))
    trace = answer.trace
    assert trace.head_lengths is not None and any(len(set(heads)) > 1 for heads in trace.head_lengths)
    assert trace.cache_length == [CONTEXT] * 4  # exact on average over the heads of every layer
    assert [sum(heads) / len(heads) for heads in trace.head_lengths] == trace.cache_length
    even = ask(toy, video, ChunkEvictor(chunk_frames=16))
    assert even.trace.head_lengths is None and not torch.equal(first_logits(answer), first_logits(even))


def test_heads_of_their_own_length_attend_as_behind_a_mask() -> None:
    """Two derivations: a cache held head by head, and dense attention in which evicted tokens are masked."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, h, n, 8, generator=generator) for h, n in ((4, 3), (2, 9), (2, 9)))
    kept = [torch.tensor([0, 2, 3, 6, 7, 8]), torch.tensor([1, 6, 7, 8])]
    keys, values = ([state[:, h : h + 1, kept[h]] for h in range(2)] for state in (key, value))
    got = attend(sdpa_attention, query, keys, values, 0.3)
    for h in range(4):
        mask = torch.full((3, 9), -torch.inf)
        for i in range(3):
            mask[i, [j for j in kept[h // 2].tolist() if j <= 6 + i]] = 0
        weights = (query[0, h] @ key[0, h // 2].T * 0.3 + mask).softmax(-1)
        assert torch.allclose(got[0, h], weights @ value[0, h // 2], atol=1e-6)


@dataclass(frozen=True)
class DropsStates(Method):
    """FastV in its own form: behind two layers half of the video's tokens stop passing through the model."""

    keep: float = 0.5
    layer: int = 2

    def compresses(self, prompt):
        return True

    def segments(self, prompt):
        return [Segment(slice(0, prompt.n_prompt), slice(0, prompt.n_video), chunk=0)]

    def feed(self, run, segment):
        seen: dict[int, torch.Tensor] = {}

        def observe(layer, query, key, scale):
            if layer == self.layer - 1:
                keys = last_keys(key, segment.length).repeat_interleave(query.shape[0] // key.shape[1], dim=0)
                seen[layer] = (query[:, -1:] @ keys.transpose(1, 2) * scale).softmax(-1).mean((0, 1))

        def drop(layer, hidden, alive):
            if layer != self.layer:
                return None
            scores = seen[layer - 1][run.places(segment)]
            best = scores.topk(round(self.keep * segment.n_video)).indices.sort().values
            kept = run.kept_places(segment, best)
            return hidden[kept], alive[kept]

        return run.forward(segment, observer=observe, between=drop)


def test_states_may_be_dropped_between_layers(toy, video) -> None:
    answer = ask(toy, video, DropsStates(), None)
    n, text = answer.trace.n_prompt, answer.trace.n_prompt - answer.trace.n_video
    assert answer.trace.cache_length == [n, n, text + answer.trace.n_video // 2, text + answer.trace.n_video // 2]
    assert answer.trace.prefilled == sum(answer.trace.cache_length) / 4 == answer.trace.cache_peak
    ids = [answer.trace.recording.cache.positions(layer) for layer in range(4)]
    assert [i.shape[1] for i in ids] == answer.trace.recording.cache.lengths  # those that were dropped left their ids
    all_of_them = ask(toy, video, DropsStates(keep=1.0), None)
    assert torch.allclose(first_logits(all_of_them), first_logits(ask(toy, video, FULL, None)), atol=1e-4)
    assert not torch.allclose(first_logits(answer), first_logits(all_of_them), atol=1e-4)


@dataclass(frozen=True)
class TwoLevels(Method):
    """Video-X2L: every chunk is kept highly compressed; for some, a finer version waits on the host and comes back."""

    fine: int = 2
    coarse: int = 8
    reload: int = 1

    @property
    def tracks_positions(self):
        return True

    def compresses(self, prompt):
        return True

    def begin(self, run):
        run.state = []  # per chunk, per layer: what waits on the host

    def feed(self, run, segment):
        hidden = super().feed(run, segment)
        if segment.chunk is None:
            return hidden
        stored = []
        for layer in range(run.cache.num_layers):
            end = run.cache.get_seq_length(layer)
            whole = run.cache.store(layer, slice(end - segment.length, end))
            stored.append(Stored(*(x[:, :: self.fine] for x in (whole.keys, whole.values, whole.positions))))
            run.cache.keep_of_last(layer, segment.length, torch.arange(0, segment.length, self.coarse))
        run.state.append(stored)
        return None

    def before_question(self, run):
        for layer in range(run.cache.num_layers):
            ends = [run.prompt.video_start, *(after[layer] for after in run.trace.cache_after_chunk)]
            for chunk in range(self.reload):
                run.cache.replace(layer, slice(ends[chunk], ends[chunk + 1]), run.state[chunk][layer])


def test_chunks_may_be_loaded_again_before_the_question(toy, video) -> None:
    answer, none = ask(toy, video, TwoLevels(chunk_frames=16)), ask(toy, video, TwoLevels(chunk_frames=16, reload=0))
    lengths = answer.trace.chunk_lengths
    text = answer.trace.n_prompt - answer.trace.n_video
    coarse = [-(-length // 8) for length in lengths]
    assert none.trace.cache_length == [text + sum(coarse)] * 4
    assert answer.trace.cache_length == [text + sum(coarse) + -(-lengths[0] // 2) - coarse[0]] * 4
    time = answer.trace.recording.cache.positions(0)[0]
    assert (time[1:] >= time[:-1]).all()  # what came back stands in its place in time
    everything = TwoLevels(chunk_frames=16, fine=1, coarse=1, reload=len(lengths))
    assert torch.allclose(
        first_logits(ask(toy, video, everything)), first_logits(ask(toy, video, FULL, None)), atol=1e-4
    )


@dataclass(frozen=True)
class Merges(ChunkEvictor):
    """LOOK-M: an evicted token is averaged into the kept one whose key is nearest."""

    def evict(self, run, segment, kept):
        for layer, indices in enumerate(kept):
            for state in (run.cache.keys(layer), run.cache.values(layer)):
                chunk = state[:, -segment.length :]
                gone = torch.ones(segment.length, dtype=torch.bool)
                gone[indices] = False
                near = (chunk[0, gone] @ chunk[0, indices].T).argmax(-1)
                weight = torch.bincount(near, minlength=len(indices)) + 1
                merged = chunk[:, indices].index_add(1, near, chunk[:, gone]) / weight[:, None]
                chunk[:, indices] = merged
        super().evict(run, segment, kept)


def test_evicted_tokens_may_be_merged(toy, video) -> None:
    merged, dropped = ask(toy, video, Merges(chunk_frames=16)), ask(toy, video, ChunkEvictor(chunk_frames=16))
    assert merged.trace.cache_length == dropped.trace.cache_length == [CONTEXT] * 4
    assert not torch.allclose(first_logits(merged), first_logits(dropped), atol=1e-3)


@dataclass(frozen=True)
class SelectsFrames(Method):
    """The frames whose mean feature is nearest to the question's words."""

    count: int = 16

    def select_frames(self, candidates):
        words = candidates.embed(candidates.question).mean(0)[None]
        grids = torch.nn.functional.cosine_similarity(candidates.features.mean(1), words, dim=-1)
        best = grids.topk(self.count // 2).indices.sort().values
        return torch.stack((2 * best, 2 * best + 1), dim=1).flatten()


def chosen_grids(toy, video) -> torch.Tensor:
    grids = torch.nn.functional.cosine_similarity(
        video.features.view(FRAMES // 2, video.tokens_per_grid, -1).mean(1),
        toy.language.embed(toy.tokenizer(QUESTION, return_tensors="pt")["input_ids"][0]).mean(0)[None],
        dim=-1,
    )
    return grids.topk(8).indices.sort().values


def test_grids_may_be_chosen_and_are_not_encoded_again(toy, video) -> None:
    without = VideoFeatures(video.features, video.grid, video.tokens_per_grid, video.second_per_grid)
    answer = ask(toy, without, SelectsFrames(), None)
    assert answer.trace.n_encoded == len(video.features) and answer.trace.n_video == 8 * video.tokens_per_grid
    best = chosen_grids(toy, video).numpy()
    chosen = video.frames.reshape(FRAMES // 2, 2, *video.frames.shape[1:])[best].reshape(-1, *video.frames.shape[1:])
    alone = toy.encode(chosen, second_per_grid=4.0)
    assert torch.allclose(first_logits(ask(toy, alone, FULL, None)), first_logits(answer), atol=1e-4)
    assert not torch.allclose(first_logits(ask(toy, video, FULL, None)), first_logits(answer), atol=1e-2)


@dataclass(frozen=True)
class SelectsSingleFrames(SelectsFrames):
    """The first frame of every other grid: no whole grids, so what is shown is encoded anew."""

    @property
    def needs_frames(self):
        return True

    def select_frames(self, candidates):
        assert candidates.room == 10 and candidates.question == QUESTION
        return torch.arange(0, len(candidates.frames), 2 * candidates.frames_per_grid)


def test_single_frames_may_be_chosen_and_are_encoded_anew(toy, video) -> None:
    n = video.tokens_per_grid
    context = toy.prompt(QUESTION, video).n_text + 10 * n
    answer = ask(toy, video, SelectsSingleFrames(), context)
    assert answer.trace.n_encoded == answer.trace.n_video == FRAMES // 8 * n
    alone = toy.encode(video.frames[::4], second_per_grid=4.0)
    assert torch.equal(first_logits(ask(toy, alone, FULL, context)), first_logits(answer))
    without = VideoFeatures(video.features, video.grid, n, video.second_per_grid)
    with pytest.raises(UserError, match="keep_frames=True"):
        ask(toy, without, SelectsSingleFrames(), context)


@dataclass(frozen=True)
class Prunes(Method):
    """VidCom2 in spirit: of every grid the tokens least like the video's mean enter the language model."""

    keep: int = 3

    def compresses(self, prompt):
        return True

    def prune(self, run):
        features = run.features[0]
        alike = torch.nn.functional.cosine_similarity(features, features.mean(0)[None], dim=-1)
        n = run.prompt.grid_lengths[0]
        best = (-alike.view(-1, n)).topk(self.keep).indices.sort().values
        return Pruned((best + n * torch.arange(run.prompt.n_grids)[:, None]).flatten())


def test_tokens_may_be_chosen_before_the_language_model(toy, video) -> None:
    answer = ask(toy, video, Prunes(chunk_frames=16), None)
    n = video.tokens_per_grid
    assert (answer.trace.n_encoded, answer.trace.n_video) == (FRAMES // 2 * n, FRAMES // 2 * 3)
    assert answer.trace.chunk_lengths == [8 * 3] * 4  # chunks are still so many frames
    whole = ask(toy, video, Prunes(chunk_frames=16, keep=n), None)
    assert torch.equal(first_logits(whole), first_logits(ask(toy, video, FULL, None)))
    kept = answer.trace.recording.cache.positions(0)[:, : answer.trace.n_prompt]
    original = toy.prompt(QUESTION, video).positions
    assert set(map(tuple, kept.T.tolist())) <= set(map(tuple, original.T.tolist()))  # kept tokens keep their ids


@dataclass(frozen=True)
class EvictsAtTheEnd(Method):
    """KVzip in spirit: all chunks first, then the best by how much a second look at the video attends to them."""

    window: int | None = None

    def compresses(self, prompt):
        return prompt.over_context

    def before_question(self, run):
        if not run.compress:
            return
        start, n = run.prompt.video_start, run.prompt.n_video
        scores: list[torch.Tensor] = [torch.empty(0)] * run.cache.num_layers

        def observe(layer, query, key, scale):
            keys = key[0, :, start : start + n].repeat_interleave(query.shape[0] // key.shape[1], dim=0)
            scores[layer] = (query @ keys.transpose(1, 2) * scale).softmax(-1).amax((0, 1))

        first = next(segment for segment in run.segments if segment.chunk is not None)
        run.forward(first, observer=observe)
        run.cache.drop_last(first.length)
        kept = highest(run, scores, [video_budget(run.prompt)] * len(scores))
        for layer, indices in enumerate(kept):
            run.cache.keep_of_last(layer, n, indices)

    def after_token(self, run):
        if self.window is not None:
            for layer in range(run.cache.num_layers):
                length = run.cache.get_seq_length(layer)
                run.cache.keep_of_last(layer, length, torch.arange(max(0, length - self.window), length))


def test_eviction_may_wait_until_before_the_question(toy, video) -> None:
    answer = ask(toy, video, EvictsAtTheEnd(chunk_frames=16))
    assert answer.trace.cache_length == [CONTEXT] * 4
    prompt = toy.prompt(QUESTION, video)
    assert answer.trace.cache_after_chunk[-1] == [prompt.video_stop] * 4  # nothing was evicted before
    full = ask(toy, video, FULL, None)
    assert not torch.allclose(first_logits(answer), first_logits(full), atol=1e-3)  # the first token can change


def test_eviction_may_go_on_while_decoding(toy, video) -> None:
    answer = ask(toy, video, EvictsAtTheEnd(chunk_frames=16, window=40))
    assert answer.trace.recording.cache.lengths == [40] * 4 and answer.trace.cache_length == [CONTEXT] * 4


@dataclass(frozen=True)
class Watches(Method):
    """Heavy hitters: attention from the question to every token of the uncompressed video, block by block of keys."""

    def feed(self, run, segment):
        if segment.chunk is not None or segment.tokens.start == 0:
            return super().feed(run, segment)
        start, n = run.prompt.video_start, run.prompt.n_video
        run.state = [torch.zeros(n) for _ in range(run.cache.num_layers)]

        def observe(layer, query, key, scale):
            groups = query.shape[0] // key.shape[1]
            total = torch.full(query.shape[:2], -torch.inf)
            blocks = [slice(at, min(at + 37, key.shape[2])) for at in range(0, key.shape[2], 37)]
            for pass_ in range(2):
                for block in blocks:
                    logits = query @ key[0, :, block].repeat_interleave(groups, dim=0).transpose(1, 2) * scale
                    places = torch.arange(block.start, block.stop)
                    last = key.shape[2] - query.shape[1] + torch.arange(query.shape[1])
                    logits = logits.masked_fill(places > last[:, None], -torch.inf)
                    if pass_ == 0:
                        total = torch.logaddexp(total, logits.logsumexp(-1))
                        continue
                    mass = (logits - total[..., None]).exp().sum(1).mean(0)
                    of_video = (places >= start) & (places < start + n)
                    run.state[layer][places[of_video] - start] += mass[of_video]

        return run.forward(segment, observer=observe)


def test_attention_may_be_watched_without_compressing(toy, video) -> None:
    seen: list[Any] = []

    @dataclass(frozen=True)
    class Tells(Watches):
        def feed(self, run, segment):
            hidden = super().feed(run, segment)
            if run.state:
                seen.append(run.state)
            return hidden

    answer = ask(toy, video, Tells(chunk_frames=16), None)
    assert torch.equal(first_logits(answer), first_logits(ask(toy, video, FULL, None)))  # watching changes nothing
    prompt = toy.prompt(QUESTION, video)
    embeds = toy.language.embed(prompt.input_ids).clone()
    embeds[prompt.video] = video.features
    model = toy.model.model.language_model
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            states = model(inputs_embeds=embeds[None], position_ids=prompt.positions[:, None], output_attentions=True)
    finally:
        model.set_attn_implementation("sdpa")
    for layer, weights in enumerate(states.attentions):
        rows = weights[0, :, prompt.video_stop :][:, :, prompt.video].sum(1).mean(0)
        assert torch.allclose(seen[0][layer], rows, atol=1e-4)


def test_every_small_method_is_exact_when_repeated(toy, video) -> None:
    in_chunks = (HeadBudgets, TwoLevels, Merges, Prunes, EvictsAtTheEnd, Watches, type(build_method("adaretake")))
    methods: list[Method] = [DropsStates(), SelectsFrames(), *(cls(chunk_frames=16) for cls in in_chunks)]
    once = [first_logits(ask(toy, video, method)) for method in methods]
    again = [first_logits(ask(toy, video, method)) for method in reversed(methods)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
