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

import torch

from harness.compress.allocation import allocate
from harness.compress.attention import Heads, KeysCached
from harness.compress.causal import causal_weights, together
from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.prune import Pruner, highest_of_all
from harness.errors import UserError
from harness.setting import setting

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
    """The prompt with some grids [g] only, as neighbours: ids count anew.

    Raises:
        UserError: there is text between the grids.
    """
    if prompt.video_stop - prompt.video_start != prompt.n_video:
        raise UserError("method flexselect does not know prompts with text between the grids: set another method")
    n, start = prompt.grid_lengths[0], prompt.video_start
    stop = start + len(group) * n
    video, behind = prompt.video[: stop - start], slice(prompt.video_stop, prompt.n_prompt)
    ids = torch.cat((prompt.positions[:, :stop], prompt.positions[:, behind]), dim=1).clone()
    if len(ids) == 1:
        ids = torch.arange(ids.shape[1])[None]
    else:
        ids[1:, start:stop] = ids[1:, start : start + n].repeat(1, len(group))
        ids[0, start:stop] = ids[0, start] + time_step * torch.arange(len(group)).repeat_interleave(n)
        ids[:, stop:] += int(ids[:, :stop].max()) + 1 - int(ids[0, stop])
    return dataclasses.replace(
        prompt,
        input_ids=torch.cat((prompt.input_ids[:stop], prompt.input_ids[behind])),
        positions=ids,
        video=video,
        grid_lengths=(n,) * len(group),
        context=None,
    )


METHOD = FlexSelect
