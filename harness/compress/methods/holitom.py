"""HoliTom (arXiv 2505.21334, code e9b2972): what stays the same for a while is averaged over it, the rest is ranked.

Windows of grids are chosen by dynamic programming, so that as many tokens as possible are saved by averages. Of what
is left each grid keeps what the tower attends to, and averages are clustered. Deep in the model half of the tokens are
merged into the other half. Its clusters of what is not static are left out: their share is 0 as shipped. Shapes as in
`prune`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from harness.compress.allocation import allocate
from harness.compress.prompt import Prompt
from harness.compress.prune import TwoShares, counted_anew, density_peaks, means
from harness.late import F, torch
from harness.settings.rules import setting

QUIRKS: Mapping[str, bool] = {
    # Counts are rounded window by window and grid by grid, and a budget above what averaging leaves is not filled.
    # Off: largest remainder, and windows that save least are given up until there are as many tokens as the budget.
    "counts_rounded_per_window": False,
    # A window's averages come before all its other tokens (LLaVA-OneVision). Off: in order of place (LLaVA-Video).
    "averages_first": False,
    # Deep in the model tokens are merged one by one into the same one, so that the last one counts half. Off: a mean.
    "merged_one_by_one": True,
}

NEIGHBOURS = 7
CENTRE = 0.6  # weight of a cluster's centre; the others share the rest

Windows = list[tuple[int, int]]
"""First and last grid of each window, in order; they make up the video."""


@dataclass(frozen=True)
class HoliTom(TwoShares):
    """See `TwoShares`; with a published retention that is the share that enters, and less passes the last layers.

    Attributes:
        keep_inner: share of the tokens that enter that passes the last layers.
        alike: cosine of a place in neighbouring grids above which it is static (0.65 at a retention of 0.1).
        longest: grids of a window at most.
    """

    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS
    depth: ClassVar[tuple[int, int]] = (18, 28)

    alike: float = setting(0.8, least=-1, most=1)
    longest: int = setting(1024, least=1)

    def shares(self, prompt: Prompt, layers: int) -> tuple[int, int]:
        if self.retention is None:
            return super().shares(prompt, layers)
        enters = min(self.target(prompt), prompt.n_video)
        return enters, max(1, round(enters * self.keep_inner))

    def merged(self, grids: torch.Tensor, attention: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
        static = (similarity(grids) > self.alike).cpu()  # windows are found on the host, in one go
        rounded = self.has("counts_rounded_per_window")
        found, saved = static_windows(static, self.longest)
        while not rounded and total > attention.numel() - saved:
            found, saved = without_least(found, static)
        parts = blocks(grids, static, found)
        if rounded:
            ratio = min(1.0, total / (attention.numel() - saved))
            counts = [rounded_count(part, ratio) for part in parts]
        else:
            sizes = [len(part.numbers) for part in parts]
            counts = allocate(sizes, total, sizes)
        some = [reduced(part, count, attention) for part, count in zip(parts, counts, strict=True) if count]
        tokens, numbers = (torch.cat(each) for each in zip(*some, strict=True))
        order = torch.arange(len(numbers)) if self.has("averages_first") else numbers.argsort()
        return tokens[order], numbers[order]

    def ids(self, prompt: Prompt, kept: torch.Tensor) -> torch.Tensor | None:
        return counted_anew(prompt, kept)

    def merge(
        self, hidden: torch.Tensor, places: torch.Tensor, kept: torch.Tensor, scores: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gone = torch.ones(len(places), dtype=torch.bool, device=kept.device).scatter(0, kept, False).nonzero().flatten()
        if not len(gone):
            return hidden, kept
        hidden = hidden.clone()
        to, away = places[kept], places[gone]
        merged = merged_into(hidden[to].float(), hidden[away].float(), one_by_one=self.has("merged_one_by_one"))
        hidden[to] = merged.to(hidden.dtype)
        return hidden, kept


class Block(NamedTuple):
    """Tokens of a window that are reduced together: its averages [m, D], or what else one of its grids holds.

    Attributes:
        tokens: [m, D].
        numbers: where each stands [m] ascending; an average in the window's first grid.
        static: whether these are averages.
    """

    tokens: torch.Tensor
    numbers: torch.Tensor
    static: bool


def similarity(grids: torch.Tensor) -> torch.Tensor:
    """Cosine [T - 1, n] of each token and the one at its place in the next grid."""
    normal = F.normalize(grids, dim=-1)
    return F.cosine_similarity(normal[:-1], normal[1:], dim=-1)


def static_windows(static: torch.Tensor, longest: int = 1024) -> tuple[Windows, int]:
    """Windows that save the most tokens, and how many; of those that save as many, the last one is the shortest.

    Of a window of w grids, the places that are static from each of its grids to the next [T - 1, n] save w - 1 tokens.
    """
    total = len(static) + 1
    gains = torch.zeros(total, total, dtype=torch.int64)
    for first in range(total - 1):
        always = static[first : first + longest - 1].cumprod(0).sum(1)
        gains[first, first + 1 : first + 1 + len(always)] = always * torch.arange(1, len(always) + 1)
    best = torch.zeros(total + 1, dtype=torch.int64)  # what the first grids save at most
    starts = []
    for last in range(total):
        values = best[: last + 1] + gains[: last + 1, last]
        values[: max(0, last + 1 - longest)] = -1
        best[last + 1] = values.max()
        starts.append(int((values == best[last + 1]).nonzero()[-1]))
    found, last = [], total - 1
    while last >= 0:
        found.append((starts[last], last))
        last = starts[last] - 1
    return found[::-1], int(best[-1])


def places_of(static: torch.Tensor, window: tuple[int, int]) -> torch.Tensor:
    """Which places [n] a window averages."""
    first, last = window
    return static[first:last].all(0) if last > first else torch.zeros_like(static[:1].any(0))


def without_least(windows: Windows, static: torch.Tensor) -> tuple[Windows, int]:
    """The same without the window that saves least, which becomes single grids; and what the others save."""
    gains = [int(places_of(static, window).sum()) * (window[1] - window[0]) for window in windows]
    least = min((i for i, gain in enumerate(gains) if gain), key=lambda i: gains[i])
    first, last = windows[least]
    single = [(t, t) for t in range(first, last + 1)]
    return [*windows[:least], *single, *windows[least + 1 :]], sum(gains) - gains[least]


def blocks(grids: torch.Tensor, static: torch.Tensor, windows: Windows) -> list[Block]:
    """What is reduced together, window by window: its averages, and then grid by grid what else there is."""
    n, found = grids.shape[1], []
    for first, last in windows:
        always = places_of(static, (first, last))
        places, others = (each.nonzero().flatten().to(grids.device) for each in (always, ~always))
        if len(places):
            found.append(Block(grids[first : last + 1, places].mean(0), first * n + places, static=True))
        if len(others):
            found += [Block(grids[t, others], t * n + others, static=False) for t in range(first, last + 1)]
    return found


def rounded_count(block: Block, ratio: float) -> int:
    """A share of a block as the code rounds it: of averages half to even, of a grid up."""
    share = len(block.numbers) * ratio
    return round(share) if block.static else math.ceil(share)


def reduced(block: Block, count: int, attention: torch.Tensor) -> Sequence[torch.Tensor]:
    """`count` tokens of a block and their numbers: of averages, clusters; otherwise what the tower attends to."""
    if not block.static:
        scores = attention.flatten()[block.numbers]
        kept = scores.sort(descending=True, stable=True).indices[:count].sort().values
        return block.tokens[kept], block.numbers[kept]
    if count >= len(block.numbers):
        return block.tokens, block.numbers
    centres, cluster = density_peaks(block.tokens, count, min(count, NEIGHBOURS))
    around, sizes = block.tokens[centres], torch.bincount(cluster, minlength=count)[:, None]
    rest = (means(block.tokens, cluster, count) * sizes - around) / (sizes - 1).clamp(min=1)
    tokens = torch.where(sizes == 1, around, CENTRE * around + (1 - CENTRE) * rest)
    order = centres.argsort()
    return tokens[order], block.numbers[centres[order]]


def merged_into(kept: torch.Tensor, gone: torch.Tensor, *, one_by_one: bool) -> torch.Tensor:
    """States [k, d] after each of those that go [g, d] was merged into the most similar one.

    One by one, in their order, each is averaged with what is there, so that of m the i-th weighs 2^(i - m - 1).
    """
    to = (F.normalize(gone, dim=-1) @ F.normalize(kept, dim=-1).T).argmax(-1)
    counts = torch.bincount(to, minlength=len(kept))
    if not one_by_one:
        return kept.index_add(0, to, gone) / (1 + counts)[:, None]
    order = to.sort(stable=True).indices
    number = torch.empty_like(to)
    number[order] = torch.arange(len(to), device=to.device) - (counts.cumsum(0) - counts)[to[order]]
    weights = torch.exp2((number - counts[to]).to(kept.dtype))
    return (kept * torch.exp2(-counts.to(kept.dtype))[:, None]).index_add(0, to, gone * weights[:, None])


METHOD = HoliTom
