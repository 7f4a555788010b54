"""FlexSelect (arXiv 2506.00993, code a1d1f5a), training-free: a middle layer of the model ranks the video's tokens.

The video is cut into groups that each span all of it; a group passes the lower layers with the question, alone. What
the question attends to is then prefilled anew, in its place in time. The README averages over heads and words; the code
takes the largest weight, as here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from harness.compress.allocation import allocate
from harness.compress.attention import Heads, KeysCached
from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.prune import Pruner, highest_of_all
from harness.compress.scorers import causal_weights, together
from harness.errors import UserError
from harness.late import torch
from harness.settings.rules import setting

QUIRKS = {
    # Every group keeps the same number, rounded down. Off: largest remainder, in proportion to its length.
    "shares_rounded_down": False,
}

LAYER = (20, 28)  # the layer that ranks, and of how many, in Qwen2.5-VL-7B


@dataclass(frozen=True)
class FlexSelect(Pruner):
    """See `Pruner`. All tokens pass the lower layers first: that is counted in `Trace.prefilled`.

    Attributes:
        budget: tokens of the video that stay, whatever the context (7040 for Qwen2.5-VL-7B, 6720 for LLaVA-Video-7B).
        layer: the layer whose attention ranks; `None` = as deep as 20 of 28 (19 in LLaVA-Video-7B).
        group_grids: grids that pass together at most.
    """

    sees_question: ClassVar[bool] = True
    reusable: ClassVar[bool] = False
    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS
    time_step: ClassVar[int] = 1  # temporal ids from one grid of a group to the next

    budget: int | None = setting(None, least=1)
    layer: int | None = setting(None, least=1)
    group_grids: int = setting(64, least=1)

    def for_family(self, family: str) -> Method:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return (FlexSelectOnQwen25VL if family == "qwen2_5_vl" else FlexSelect)(**values)

    def compresses(self, prompt: Prompt) -> bool:
        return super().compresses(prompt) if self.budget is None else prompt.n_video > self.budget

    def target(self, prompt: Prompt) -> int:
        return super().target(prompt) if self.budget is None else self.budget

    def keep(self, run: Prefill, grids: torch.Tensor, total: int) -> torch.Tensor:
        n, groups = grids.shape[1], strided(len(grids), self.group_grids)
        counts = [total // len(groups)] * len(groups)
        if not self.has("shares_rounded_down"):
            lengths = [n * len(group) for group in groups]
            counts = allocate(lengths, total, lengths)
        found = []
        for group, count in zip(groups, counts, strict=True):
            best = highest_of_all(run, self.rank(run, group), count).cpu()
            found.append(group[best // n] * n + best % n)
        return torch.cat(found).sort().values

    def rank(self, run: Prefill, group: torch.Tensor) -> torch.Tensor:
        """The largest attention weight [c] that each token of some grids gets from the text behind them."""
        layers = run.language.num_layers
        at = layers * LAYER[0] // LAYER[1] if self.layer is None else self.layer
        if at >= layers:
            raise UserError(f"method.layer={at} does not exist: this model has layers up to {layers - 1}")
        n, behind = run.prompt.grid_lengths[0], run.prompt.n_prompt - run.prompt.video_stop
        prompt = alone(run.prompt, group, self.time_step)
        tokens = (group[:, None] * n + torch.arange(n)).flatten()
        part = Prefill(
            run.language, Method(), prompt, [f[tokens] for f in run.features], max_new_tokens=0, record=False
        )
        found: list[torch.Tensor] = []

        def observe(layer: int, query: torch.Tensor, key: Heads, scale: float) -> None:
            if layer < at:
                return
            rows = range(prompt.n_prompt - behind, prompt.n_prompt)
            columns = prompt.video.to(query.device)
            best = torch.zeros(len(columns), device=query.device)
            for _, weights in causal_weights(query, together(key), scale, rows):
                best = torch.maximum(best, weights.index_select(-1, columns).amax((0, 1, 2)))
            found.append(best)
            raise KeysCached

        part.forward(Segment(slice(0, prompt.n_prompt), slice(0, prompt.n_video), 0), observer=observe)
        run.trace.prefilled += prompt.n_prompt * at / layers
        run.trace.attended += prompt.n_prompt * (prompt.n_prompt + 1) / 2 * at / layers
        run.trace.cache_peak = max(run.trace.cache_peak, part.trace.cache_peak)
        return found[0]


@dataclass(frozen=True)
class FlexSelectOnQwen25VL(FlexSelect):
    """Grids of a group are taken to be a second apart, which is two ids."""

    time_step: ClassVar[int] = 2


def strided(n_grids: int, size: int) -> list[torch.Tensor]:
    """Groups of at most `size` grids, every one from all over the video."""
    count = -(-n_grids // size)
    return [torch.arange(first, n_grids, count) for first in range(count)]


def alone(prompt: Prompt, group: torch.Tensor, time_step: int) -> Prompt:
    """The prompt with some grids [g] only, ascending, as neighbours: ids count anew.

    Where text stands between the grids, each keeps its own. `time_step` is for temporal ids of grids without it.
    """
    opens, closes = prompt.text_of_video
    runs = prompt.video.view(prompt.n_grids, -1)
    starts, stops = runs[:, 0].tolist(), (runs[:, -1] + 1).tolist()
    text = [torch.arange(stop, start) for stop, start in zip([0, *stops], [*starts, prompt.n_prompt], strict=True)]
    head = len(text[0]) - opens
    pieces = [text[0][:head]]
    for grid in group.tolist():
        if len(pieces) > 1:
            pieces.append(text[grid][:closes])  # what ends the grid in front of it
        pieces += [text[grid][closes if grid else head :], runs[grid]]
    pieces.append(text[-1])
    places = torch.cat(pieces)
    is_video = torch.zeros(prompt.n_prompt, dtype=torch.bool).index_fill(0, prompt.video, value=True)[places]
    return dataclasses.replace(
        prompt,
        input_ids=prompt.input_ids[places],
        positions=counted_ids(prompt.positions[:, places], is_video, len(group), time_step),
        video=is_video.nonzero().flatten(),
        grid_lengths=(runs.shape[1],) * len(group),
        context=None,
        attention=None,
    )


def counted_ids(ids: torch.Tensor, is_video: torch.Tensor, grids: int, time_step: int) -> torch.Tensor:
    """Ids [r, n] of tokens in which some grids are missing, counted anew.

    A grid keeps the ids of its tokens relative to its first one; where no text is between grids, to that of the first.
    """
    if len(ids) == 1:
        return torch.arange(ids.shape[1])[None]
    ids, runs = ids.clone(), is_video.nonzero().flatten().view(grids, -1)
    torn = bool(runs[-1, -1] - runs[0, 0] >= runs.numel())
    if not torn:  # one block: the first grid's places, and times of its own
        ids[1:, runs.flatten()] = ids[1:, runs[0]].repeat(1, grids)
        times = time_step * torch.arange(grids).repeat_interleave(runs.shape[1])
        ids[0, runs.flatten()] = ids[1:, runs[0]].min() + times
        runs = runs.view(1, -1)
    after, place = 0, 0
    for run in runs:
        before = slice(place, int(run[0]))
        ids[:, before] = after + torch.arange(before.stop - before.start)
        ids[:, run] += after + before.stop - before.start - int(ids[0, run[0]])
        after, place = int(ids[:, run].max()) + 1, int(run[-1]) + 1
    ids[:, place:] = after + torch.arange(ids.shape[1] - place)
    return ids


METHOD = FlexSelect
