"""Video-X2L (arXiv 2506.21184) without training: two levels of compression, chosen between when the question is known.

The video is prefilled twice, without the question: once keeping much of every chunk (low compression), once keeping
little (high compression). Both wait in host memory. For a question the chunks that matter to it are loaded as they
were kept at low compression, all others at high compression, in the order of time and alike in all layers. Published
for a model with trained summary tokens; which of the training-free compressors stands in for them is an option.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from harness.compress.attention import Heads
from harness.compress.evict import ChunkEvictor, margin, video_budget
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.reload import HostStore, Reloading, load, store_video, video_key
from harness.compress.scorers import LayerView, attention_received, no_number
from harness.errors import QuestionError, UserError
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class Level(ChunkEvictor):
    """A prefill in which each chunk keeps the slots [K] given for its video tokens, and all of its text.

    As it stands here the tokens kept are those that get most attention from their own chunk (as ReTaKe's PivotKV).
    """

    uses_guide: ClassVar[bool] = False
    sees_question: ClassVar[bool] = False
    reusable: ClassVar[bool] = True

    slots: tuple[int, ...] = ()

    @property
    def tracks_positions(self) -> bool:
        return True

    def compresses(self, prompt: Prompt) -> bool:
        return True

    def budgets(self, run: Prefill, lengths: Sequence[int]) -> list[int]:
        return list(self.slots)

    def score(self, view: LayerView) -> torch.Tensor:
        return attention_received(view.chunk_queries.float(), view.chunk_keys.float(), view.scale)


@dataclass(frozen=True)
class PooledLevel(Level):
    """Averages runs of tokens: keys from before rotation, which are then rotated by the mean of their ids, and values.

    So does Video-XL-2 (arXiv 2506.19225) with runs of four.
    """

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        if segment.chunk is None:
            return super().feed(run, segment)
        run.forward(segment)
        count = self.slots[segment.chunk]
        if count < segment.n_video:
            self._pool(run, segment, shares(run, segment, count))
        return None

    def _pool(self, run: Prefill, segment: Segment, weights: torch.Tensor) -> None:
        cache, n = run.cache, segment.length
        old = run.prompt.positions[:, segment.tokens]
        new = old.float() @ weights.T
        for layer in range(cache.num_layers):
            keys, values = cache.keys(layer)[:, -n:], cache.values(layer)[:, -n:]
            of_layer = weights.to(keys.device)
            content = of_layer @ run.language.unrotate(keys.float(), old)
            keys[:, : len(weights)] = run.language.rotate(content, new).to(keys.dtype)
            values[:, : len(weights)] = (of_layer @ values.float()).to(values.dtype)
            cache.keep_of_last(layer, n, torch.arange(len(weights)))
            cache.change_positions(layer, new)


def shares(run: Prefill, segment: Segment, count: int) -> torch.Tensor:
    """What each token of a segment contributes to each of its slots [s, n] when its video tokens are averaged.

    The video tokens make `count` runs, as equal as can be; a token of text is a slot of its own.
    """
    places = run.places(segment)
    groups = torch.arange(len(places)) * count // len(places)
    first = torch.arange(segment.length)  # of each token, the first token of its slot
    first[places] = places[torch.searchsorted(groups, groups)]
    slot = torch.unique(first, return_inverse=True)[1]
    member = torch.nn.functional.one_hot(slot).T.float()
    return member / member.sum(dim=1, keepdim=True)


COMPRESSORS: Mapping[str, type[Level]] = {"pooled": PooledLevel, "self_attention": Level}


RELEVANCE = ("attention", "random", "given")


@dataclass(frozen=True)
class Levels:
    """What waits in host memory of a video."""

    low: HostStore
    high: HostStore

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.low.nbytes + self.high.nbytes


@dataclass
class _State:
    """Of one question.

    Attributes:
        levels: of the video.
        low, high: slots per chunk [K] at either level.
        reloads: chunks that come at low compression.
        shifts: [L] by how much ids behind the video move; empty where they do not.
    """

    levels: Levels
    low: list[int]
    high: list[int]
    reloads: int
    shifts: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class VideoX2L(Reloading):
    """See the module.

    Attributes:
        compressor: `pooled` or `self_attention`, see `levels`.
        low, high: tokens per slot at either level; 2 and 32 as published.
        relevance: of a chunk to the question: `attention` from the question to the chunk's slots at high compression,
            mean over these and over layers; `given`: nearness to where the benchmark says that the answer is, and
            `random`: by lot, as bounds.
        reloads: chunks that come at low compression; `None` = as many as the context has room for.
        ends_in_detail: the first and the last chunk are always kept at low compression, in both prefills, as in the
            published code.
        max_guide_length: so many of the last tokens are asked for their attention; `None` = all behind the video.
        seed: of `random`.
    """

    compressor: str = setting("pooled", words=tuple(COMPRESSORS))
    low: int = setting(2, least=1)
    high: int = setting(32, least=2)
    relevance: str = setting("attention", words=RELEVANCE)
    reloads: int | None = setting(None, least=0)
    ends_in_detail: bool = False
    max_guide_length: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.low < self.high:
            raise UserError(f"method.low={self.low} method.high={self.high}: use 1 <= low < high, such as 2 and 32")

    @property
    def sees_question(self) -> bool:  # type: ignore[override]
        """Whether it decides what is loaded."""
        return self.relevance != "random"

    def begin(self, run: Prefill) -> None:
        if not run.compress:
            return
        lengths = run.trace.chunk_lengths
        low, high = ([-(-n // tokens) for n in lengths] for tokens in (self.low, self.high))
        if self.ends_in_detail:
            high = [a if i in (0, len(low) - 1) else b for i, (a, b) in enumerate(zip(low, high, strict=True))]
        reloads = self._reloads(run, low, high)
        prefills = [COMPRESSORS[self.compressor](chunk_frames=self.chunk_frames, slots=tuple(n)) for n in (low, high)]
        levels = run.of_video(
            (video_key(run), *prefills), lambda: Levels(*(store_video(run, prefill) for prefill in prefills))
        )
        run.trace.host_bytes = levels.nbytes
        run.state = _State(levels, low, high, reloads)

    def _reloads(self, run: Prefill, low: Sequence[int], high: Sequence[int]) -> int:
        """How many chunks come at low compression, whichever they are.

        Raises:
            QuestionError: the context has no room for them.
        """
        budget = video_budget(run.prompt)
        gains = sorted((a - b for a, b in zip(low, high, strict=True) if a > b), reverse=True)
        needed = [sum(high) + sum(gains[:k]) for k in range(len(gains) + 1)]
        wanted = min(1 if self.reloads is None else self.reloads, len(gains))
        if needed[wanted] > budget:
            raise QuestionError(
                f"context={run.prompt.context} leaves {budget} slots for a video that takes {needed[wanted]} with "
                f"{wanted} of {len(low)} chunks at {self.low} tokens per slot and the others at {self.high}; use a "
                f"context of at least {needed[wanted] + run.prompt.n_text}, or a larger method.low and method.high"
            )
        return max(k for k, slots in enumerate(needed) if slots <= budget) if self.reloads is None else wanted

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        if not run.compress or segment.tokens.stop == run.prompt.n_prompt:
            return super().feed(run, segment)
        high = run.state.levels.high
        high.append(run, high.prefix if segment.chunk is None else high.blocks[segment.chunk])
        return None

    def before_question(self, run: Prefill) -> None:
        if not run.compress:
            return
        state: _State = run.state
        chosen = self._choose(run, [a > b for a, b in zip(state.low, state.high, strict=True)])
        sizes = [block[0].keys.shape[1] for block in state.levels.high.blocks]
        ends = list(itertools.accumulate(sizes, initial=run.prompt.video_start))
        for chunk in reversed(chosen):
            for layer in range(run.cache.num_layers):
                load(run, layer, slice(ends[chunk], ends[chunk + 1]), state.levels.low.blocks[chunk][layer])
        slots = [state.low[c] if c in chosen else state.high[c] for c in range(len(sizes))]
        run.note_choice([torch.tensor(chosen)])
        run.trace.chunk_budget = slots
        run.trace.chunk_ratio = [n / c for n, c in zip(slots, run.trace.chunk_lengths, strict=True)]
        run.trace.kept = [[n] * run.cache.num_layers for n in slots]
        if self.memory_ids == "squeezed":
            state.shifts = self.squeeze_memory(run)

    def _choose(self, run: Prefill, gain: Sequence[bool]) -> list[int]:
        """The chunks that come at low compression, ascending: of those that gain by it, the ones of most relevance."""
        count, able = run.state.reloads, torch.tensor(gain)
        if count == 0 or count == sum(gain):
            return able.nonzero().flatten().tolist() if count else []
        relevance = {"attention": self._attention, "random": self._by_lot, "given": self._given}[self.relevance](run)
        best = relevance.masked_fill(~able, -torch.inf).sort(descending=True, stable=True).indices[:count]
        chosen = torch.zeros_like(able).index_fill(0, best, True)
        run.note_margin(margin(relevance[able], chosen[able]))
        return chosen.nonzero().flatten().tolist()

    def _attention(self, run: Prefill) -> torch.Tensor:
        """Attention [K] from the question to the slots of each chunk, mean over these and over layers.

        The softmax is over the slots of the video alone; summed over the question's tokens, mean over heads.
        """
        question = run.segments[-1]
        asking = question.length if self.max_guide_length is None else min(self.max_guide_length, question.length)
        sizes = [block[0].keys.shape[1] for block in run.state.levels.high.blocks]
        of_layers: list[torch.Tensor] = []

        def observe(layer: int, query: torch.Tensor, key: Heads, scale: float) -> None:
            assert isinstance(key, torch.Tensor)
            memory = key[0, :, run.prompt.video_start : key.shape[2] - question.length]
            mass = attention_received(query[:, -asking:].float(), memory.float(), scale)
            of_layers.append(torch.stack([part.mean() for part in mass.split(sizes)]))

        run.forward(question, observer=observe)
        run.cache.drop_last(question.length)
        relevance = torch.stack([of_layer.cpu() for of_layer in of_layers]).mean(0)
        if relevance.isnan().any():
            raise no_number("relevances of the chunks")
        return relevance

    def _by_lot(self, run: Prefill) -> torch.Tensor:
        return torch.rand(len(run.state.low), generator=torch.Generator().manual_seed(self.seed))

    def _given(self, run: Prefill) -> torch.Tensor:
        """Grids of each chunk [K] that show the answer; of a chunk that has none, minus how many chunks away one is."""
        if not run.prompt.evidence:
            raise QuestionError(
                "method.relevance=given needs to know when the answer is to be seen, which the benchmark does not say "
                "of this question; set method.relevance=attention"
            )
        tokens = torch.tensor(run.prompt.grid_lengths).cumsum(0)[list(run.prompt.evidence)]  # behind each such grid
        chunks = torch.searchsorted(torch.tensor(run.trace.chunk_lengths).cumsum(0), tokens)
        away = (torch.arange(len(run.state.low))[:, None] - chunks).abs()
        return torch.where(away.amin(1) > 0, -away.amin(1), (away == 0).sum(1)).float()


METHOD = VideoX2L
