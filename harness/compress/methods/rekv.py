"""ReKV (arXiv 2503.00540): all keys and values of a video wait in host memory; each layer retrieves frames of its own.

The video is prefilled without the question under a sliding window. Then the question passes once: each layer compares
its mean query with the mean key of every grid, both from before rotation, loads the nearest grids in the order of time
and attends to them, so that deeper layers ask with what the lower ones found. Behind these the prompt is answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from harness.compress.attention import Heads
from harness.compress.cache import mean
from harness.compress.evict import highest, video_budget
from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.reload import Block, HostStore, Reloading, joined, load, pass_video, video_key
from harness.compress.scorers import no_number
from harness.errors import QuestionError
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class Window(Method):
    """Prefill in which at most so many of the video's last tokens, and the text in front, stay behind each chunk."""

    window: int = 15_000

    @property
    def tracks_positions(self) -> bool:
        return True

    def slide(self, aside: Prefill) -> None:
        """Drop what has left the window."""
        for layer in range(aside.cache.num_layers):
            held = aside.cache.get_seq_length(layer) - aside.prompt.video_start
            if held > self.window:
                aside.cache.keep_of_last(layer, held, torch.arange(held - self.window, held))


@dataclass
class _State:
    """Of one question.

    Attributes:
        store: one block per grid of the video; `summaries` are the mean keys [G, kv, d] of each layer.
        count: grids that every layer retrieves.
        shifts: [L] by how much ids behind the video move; empty where they do not.
    """

    store: HostStore
    count: int
    shifts: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class ReKV(Reloading):
    """See the module. Every layer retrieves as many grids as the context has room for; published are 64 frames.

    Published for families with one row of ids, keys cached before rotation and ids counted anew, which is
    `memory_ids=squeezed`; and with the question alone, without its options, as the query.

    Attributes:
        window: tokens of the video that a chunk can see behind itself.
        max_guide_length: so many of the last tokens are the query; `None` = all behind the video.
    """

    sees_question: ClassVar[bool] = True

    chunk_frames: int = 64
    window: int = setting(15_000, least=1)
    max_guide_length: int | None = None

    def begin(self, run: Prefill) -> None:
        if not run.compress:
            return
        prompt, longest = run.prompt, max(run.prompt.grid_lengths)
        if (count := video_budget(prompt) // longest) < 1:
            raise QuestionError(
                f"context={prompt.context} has no room for one grid of {longest} tokens beside the {prompt.n_text} of "
                f"the text: use a context of at least {prompt.n_text + longest}"
            )
        window = Window(chunk_frames=self.chunk_frames, window=self.window)
        store = run.of_video((video_key(run), window), lambda: stored_grids(run, window))
        run.trace.host_bytes = store.nbytes
        run.state = _State(store, min(count, prompt.n_grids))

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        if not run.compress or segment.tokens.stop == run.prompt.n_prompt:
            return super().feed(run, segment)
        if segment.chunk is None:
            run.state.store.append(run, run.state.store.prefix)
        else:
            run.trace.kept.append([0] * run.cache.num_layers)  # nothing yet
        return None

    def before_question(self, run: Prefill) -> None:
        if not run.compress:
            return
        question, start = run.segments[-1], run.prompt.video_start
        found: list[list[int]] = []

        def retrieve(layer: int, query: torch.Tensor, key: Heads, scale: float) -> tuple[Heads, Heads]:
            grids = self._nearest(run, layer, query)
            found.append(grids)
            load(run, layer, slice(start, start), joined([run.state.store.blocks[grid][layer] for grid in grids]))
            return run.cache.keys(layer)[None], run.cache.values(layer)[None]

        run.forward(question, observer=retrieve)
        run.cache.drop_last(question.length)
        if self.memory_ids == "squeezed":
            run.state.shifts = self.squeeze_memory(run)
        ends = torch.tensor(run.prompt.grid_lengths).cumsum(0)
        chunk_of = torch.searchsorted(torch.tensor(run.trace.chunk_lengths).cumsum(0), ends).tolist()
        for layer, grids in enumerate(found):
            for grid in grids:
                run.trace.kept[chunk_of[grid]][layer] += run.prompt.grid_lengths[grid]
        first = [0, *ends.tolist()]
        run.record_kept([torch.cat([torch.arange(first[g], first[g + 1]) for g in grids]) for grids in found])
        run.trace.chunk_budget = [round(mean(kept)) for kept in run.trace.kept]
        run.trace.chunk_ratio = [mean(k) / n for k, n in zip(run.trace.kept, run.trace.chunk_lengths, strict=True)]

    def _nearest(self, run: Prefill, layer: int, query: torch.Tensor) -> list[int]:
        """The grids, ascending, whose mean key has the largest product with the mean query [h, n, d] of a layer."""
        asking = query.shape[1] if self.max_guide_length is None else min(self.max_guide_length, query.shape[1])
        raw = run.language.unrotate(query.float(), run.ids[layer])[:, -asking:].mean(1)
        keys = run.state.store.summaries[layer].to(raw.device)
        of_groups = raw.view(keys.shape[1], -1, raw.shape[-1]).sum(1)  # query heads of one key head add up
        scores = (keys * of_groups).sum((1, 2))
        if scores.isnan().any():
            raise no_number(f"products of queries and grids of layer {layer}")
        (chosen,) = highest(run, [scores], [run.state.count])
        assert isinstance(chosen, torch.Tensor)
        run.note_choice([chosen])
        grids: list[int] = chosen.tolist()
        return grids


def stored_grids(run: Prefill, method: Window) -> HostStore:
    """Keys and values of all grids of a video, as they were prefilled, and each one's mean key from before rotation."""
    prefix: list[Block] = []
    blocks: list[Block] = []
    means: list[list[torch.Tensor]] = [[] for _ in range(run.cache.num_layers)]
    grids = [s for s in run.prompt.segments(run.prompt.grid_lengths) if s.chunk is not None]

    def store(aside: Prefill, segment: Segment) -> None:
        cache = aside.cache
        layers = range(cache.num_layers)
        if segment.chunk is None:
            prefix.append(tuple(cache.store(layer, slice(0, segment.length)) for layer in layers))
            return
        inside = [s for s in grids if segment.tokens.start <= s.tokens.start < segment.tokens.stop]
        first = [cache.get_seq_length(layer) - segment.tokens.stop for layer in layers]  # cached minus prompt
        for grid in inside:
            places = [slice(grid.tokens.start + move, grid.tokens.stop + move) for move in first]
            blocks.append(tuple(cache.store(layer, places[layer]) for layer in layers))
        ids = run.prompt.positions[:, segment.tokens]
        for layer in layers:
            raw = run.language.unrotate(cache.keys(layer)[:, -segment.length :].float(), ids)
            means[layer] += [part.mean(1) for part in raw.split([grid.length for grid in inside], dim=1)]
        method.slide(aside)

    cache = pass_video(run, method, store).cache
    devices = tuple(cache.keys(layer).device for layer in range(cache.num_layers))
    return HostStore(prefix[0] if prefix else (), tuple(blocks), devices, _stacked(means))


def _stacked(means: Iterable[list[torch.Tensor]]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.stack(of_layer).cpu() for of_layer in means)


METHOD = ReKV
