"""InfiniPot-V (arXiv 2506.15745, code 81a4dbe): the cache never holds more than its budget.

Whenever a block of grids is full, all that is held is compressed, old and new: every layer and key head keeps, of its
own choice, the newest and least redundant keys and the largest values. Question-free.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.evict import margin, video_budget
from harness.compress.method import WithQuirks
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.whole_context import per_chunk
from harness.late import F, torch
from harness.settings.rules import setting

QUIRKS = {
    # Text behind the video starts as many ids late as it has tokens.
    "text_late": False,
}

POOLING = ((3, 7), (2, 5), (1, 3), (0, 1))  # of a quarter of the layers each: dimensions and width of the mean


@dataclass(frozen=True)
class InfiniPotV(WithQuirks):
    """Slots held are compared by their number within a grid, though after the first compression they come from other
    places: as in the code. `Prefill.state` holds the token numbers [L][kv, held] of what is behind the first text.

    A block is as many grids as the context holds; under two of them it is two, and the last compression goes below one.

    Attributes:
        keep: share of a full block that a compression leaves (24 of 32 grids).
        tar: share of these that is chosen by age and redundancy, the newest included; the rest by length of the value.
        newest: share of the grids held that counts as newest.
        pooling: average the lengths of values over neighbours, in space and time in early layers (off as shipped).
    """

    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS

    keep: float = setting(0.75, above=0, below=1)
    tar: float = setting(0.5, least=0, most=1)
    newest: float = setting(0.25, above=0, below=1)
    pooling: bool = False

    def compresses(self, prompt: Prompt) -> bool:
        return prompt.over_context

    def cut(self, prompt: Prompt) -> list[int]:
        if not self.compresses(prompt):
            return super().cut(prompt)
        n, size = prompt.grid_lengths[0], max(1, self.chunk_frames // prompt.frames_per_grid)
        return [
            n * min(size, new - start) for new, _ in self.blocks(prompt) for start in range(0, new, size)
        ]  # what comes between two compressions may pass in pieces

    def blocks(self, prompt: Prompt) -> list[tuple[int, int]]:
        """Grids that come in, and video tokens that are left behind them, until the video ends."""
        n, budget = prompt.grid_lengths[0], video_budget(prompt)
        return blocks(prompt.n_grids, n, budget, self.keep)

    def begin(self, run: Prefill) -> None:
        if not run.compress:
            return
        run.state = [None] * run.language.num_layers
        if self.has("text_late"):
            positions = run.prompt.positions.clone()
            positions[:, run.prompt.video_stop :] += run.prompt.n_prompt - run.prompt.video_stop
            run.prompt = dataclasses.replace(run.prompt, positions=positions)

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        hidden = super().feed(run, segment)
        if run.compress and segment.chunk is not None:
            left, passed = None, 0
            for new, kept in self.blocks(run.prompt):
                passed += new * run.prompt.grid_lengths[0]
                left = kept if passed == segment.video.stop else left
            self.compress(run, segment, left)
        return hidden

    def compress(self, run: Prefill, segment: Segment, left: int | None) -> None:
        """Note what came in, and leave so many video tokens where a block ends with it."""
        is_video = torch.zeros(run.prompt.n_prompt, dtype=torch.bool)
        is_video[run.prompt.video] = True
        counts, choices = [], []
        for layer in range(run.language.num_layers):
            keys, values = run.cache.keys(layer), run.cache.values(layer)
            came = torch.arange(segment.tokens.start, segment.tokens.stop).expand(len(keys), -1)
            held = came if run.state[layer] is None else torch.cat((run.state[layer], came), dim=1)
            of_video = is_video[held]
            n_video = int(of_video[0].sum())
            if left is not None and left < n_video:
                places = of_video.nonzero()[:, 1].view(len(keys), n_video).to(keys.device)
                places_in_cache = (places + run.prompt.video_start)[..., None]
                chosen, gap = keep_of(
                    keys.take_along_dim(places_in_cache, 1),
                    values.take_along_dim(places_in_cache, 1),
                    run.prompt.grid_lengths[0],
                    left,
                    tar=self.tar,
                    newest=self.newest,
                    pooling=self._pooling(run, layer),
                )
                run.note_margin(gap)
                stays = (~of_video).to(keys.device).scatter(1, places.take_along_dim(chosen, 1), True)
                kept = stays.nonzero()[:, 1].view(len(keys), -1)
                run.cache.keep_of_last(layer, held.shape[1], list(kept))
                choices += list(chosen)
                held = held.take_along_dim(kept.cpu(), 1)
            run.state[layer] = held
            counts.append(int(((held >= segment.tokens.start) & is_video[held]).sum()) // len(keys))
        if choices:
            run.note_choice(choices)
        run.trace.kept.append(counts)

    def before_question(self, run: Prefill) -> None:
        if run.compress:
            number = torch.full((run.prompt.n_prompt,), -1)
            number[run.prompt.video] = torch.arange(run.prompt.n_video)
            heads = [number[of_head] for of_layer in run.state for of_head in of_layer]
            chunks = [segment for segment in run.segments if segment.chunk is not None]
            heads = [of_head[of_head >= 0] for of_head in heads]
            run.record_kept(heads)
            run.trace.chunk_budget = per_chunk(heads, chunks)

    def _pooling(self, run: Prefill, layer: int) -> tuple[int, int, int]:
        """Dimensions, width, and rows of a grid for `pooled`."""
        if not self.pooling:
            return (0, 1, 1)
        prompt = run.prompt
        first = prompt.positions[:, prompt.video[: prompt.grid_lengths[0]]]
        rows = len(first[1].unique()) if len(first) > 1 else math.isqrt(first.shape[1])
        return (*pooling_of(layer, run.language.num_layers), rows)


def blocks(n_grids: int, n: int, budget: int, keep: float) -> list[tuple[int, int]]:
    """Per block the grids that come in and the video tokens that are left; in the end exactly `budget`.

    A block is full with budget // n grids; a compression leaves the share `keep` of them, or more where all that is
    still to come then fits.
    """
    full = min(max(2, budget // n), n_grids)
    leave = min(max(1, round(keep * full)), max(1, full - 1))
    found, rest, new, held = [], n_grids, full, 0
    while rest:
        rest -= new
        held += new * n
        held = min(held, max(leave * n, budget - rest * n) if rest else budget)
        found.append((new, held))
        new = min(full - leave, rest)
    return found


def keep_of(
    keys: torch.Tensor,
    values: torch.Tensor,
    n: int,
    total: int,
    *,
    tar: float = 0.5,
    newest: float = 0.25,
    pooling: tuple[int, int, int] = (0, 1, 1),
) -> tuple[torch.Tensor, torch.Tensor]:
    """What one layer keeps of its video slots, m of them, whole grids of n.

    Args:
        keys: rotated [kv, m, d].
        values: [kv, m, d].
        n: tokens per grid.
        total: how many stay.
        tar: share of them by age and redundancy.
        newest: share of the grids held that stays as far as that share goes, and with which the others are compared.
        pooling: dimensions, width and rows of a grid for the lengths of values.

    Returns:
        Indices [kv, total] ascending, and how near the choice was (see `evict.margin`).
    """
    m = keys.shape[1]
    scores = pooled(values.float().norm(dim=-1), n, *pooling)
    n_tar = total - round((1 - tar) * total)
    recent = min(max(1, int(newest * (m // n))) * n, m)
    if n_tar:
        first = max(scores.max().item(), 0.0) + 1
        certain = min(recent, n_tar)
        scores[:, m - certain :] = first
        if n_tar > recent and m > recent:
            redundant = redundancy(keys[:, : m - recent], keys[:, m - recent :], n)
            least = redundant.topk(min(n_tar, m) - recent, dim=-1, largest=False).indices
            scores.scatter_(1, least, first)
    kept = scores.topk(total, dim=-1).indices.sort(dim=-1).values
    return kept, margin(scores, torch.zeros_like(scores, dtype=torch.bool).scatter(1, kept, True))


def redundancy(older: torch.Tensor, recent: torch.Tensor, n: int) -> torch.Tensor:
    """Mean cosine of each older key [kv, o, d] with the recent ones [kv, r, d] of its number within a grid [kv, o]."""
    (heads, _, d), like = older.shape, F.normalize(recent.float(), dim=-1, eps=1e-9)
    mean = like.view(heads, -1, n, d).mean(1, keepdim=True)
    normal = F.normalize(older.float(), dim=-1, eps=1e-9).view(heads, -1, n, d)
    return (normal * mean).sum(-1).view(heads, -1)


def pooling_of(layer: int, layers: int) -> tuple[int, int]:
    """Dimensions over which a layer's lengths of values are averaged, and how widely."""
    return POOLING[min(layer // max(1, layers // len(POOLING)), len(POOLING) - 1)]


def pooled(scores: torch.Tensor, n: int, dimensions: int, width: int, rows: int) -> torch.Tensor:
    """Means of scores [kv, m] over neighbours: along the slots, in a grid, or in grid and time; zeros beyond the edges.

    The width shrinks to the largest odd number that the grid and the time have; a copy where nothing is averaged.
    """
    heads = len(scores)
    if dimensions == 1:
        return F.avg_pool1d(scores, width, stride=1, padding=width // 2)
    if dimensions == 0:
        return scores.clone()
    volume = scores.view(heads, -1, rows, n // rows)
    width = min(width, *volume.shape[1:])
    width -= 1 - width % 2
    if width < 2:
        return scores.clone()
    pool = F.avg_pool2d if dimensions == 2 else F.avg_pool3d
    return pool(volume, width, stride=1, padding=width // 2).reshape(heads, -1)


METHOD = InfiniPotV
