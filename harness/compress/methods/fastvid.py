"""FastVID (arXiv 2503.11187, code a40a109): what the tower attends to, and dense tokens into which the rest is merged.

The video is cut into segments where neighbouring grids differ. In a segment every fourth grid from the end is an
anchor: its densest tokens that differ are centres, and all tokens of the segment that no grid keeps for the attention
they got are merged into the centres of every anchor. This is the form for LLaVA, on all families. There the code loads
SigLIP's pooling head anew, which checkpoints lack, for attention and for what a grid is like; here both are of what the
model has: the tower's last layer, and the mean of a grid's tokens, as for Qwen. Shapes as in `prune`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.allocation import allocate
from harness.compress.prune import Merger, density_peaks
from harness.late import F, torch
from harness.settings.rules import setting

QUIRKS: Mapping[str, bool] = {
    # Every grid gets the same number and every anchor of a segment, all rounded down. Off: largest remainder.
    "counts_rounded_down": False,
}

NEIGHBOURS = 4
CENTRE = 0.6  # least weight of a centre


@dataclass(frozen=True)
class FastVID(Merger):
    """See `Merger`; published at a retention of 0.1, which leaves the context out of account.

    Attributes:
        min_segments: segments that the video has at least.
        cut_below: cosine of neighbouring grids' means below which a segment ends (0.9 LLaVA, 0.84 Qwen2.5-VL).
        context_share: share of the tokens that are centres; the others got the most attention.
        anchor_every: grids from one anchor of a segment to the next.
    """

    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS

    min_segments: int = setting(8, least=1)
    cut_below: float = setting(0.9, least=-1, most=1)
    context_share: float = setting(0.4, least=0, most=1)
    anchor_every: int = setting(4, least=1)

    def merged(self, grids: torch.Tensor, attention: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
        lengths, (n_grids, n) = segments(grids, self.cut_below, self.min_segments), attention.shape
        found = anchors(lengths, self.anchor_every)
        if self.has("counts_rounded_down"):
            salient, centres = rounded_counts(total / attention.numel(), n, lengths, found, self.context_share)
        else:
            salient, centres = exact_counts(total, n, lengths, found, self.context_share)
        chosen = torch.zeros(n_grids, n, dtype=torch.bool, device=grids.device)
        order = attention.sort(dim=1, descending=True, stable=True).indices
        for grid, count in enumerate(salient):
            chosen[grid, order[grid, :count]] = True
        numbers = torch.arange(n_grids * n, device=grids.device).view(n_grids, n)
        tokens, ids, start = [grids[chosen]], [numbers[chosen]], 0
        for length, of_segment in zip(lengths, found, strict=True):
            rest = ~chosen[start : start + length]
            others = grids[start : start + length][rest]
            for grid in of_segment:
                if centres[grid]:
                    free = ~chosen[grid]
                    own, places = grids[grid, free], numbers[grid, free]
                    peaks, _ = density_peaks(own, centres[grid], min(NEIGHBOURS, len(own)))
                    tokens.append(around(own[peaks], others))
                    ids.append(places[peaks])
            start += length
        numbers, places = torch.cat(ids).sort()
        return torch.cat(tokens)[places], numbers


def segments(grids: torch.Tensor, cut: float, least: int) -> list[int]:
    """Lengths of segments: cut where neighbouring means are the least alike, `least` - 1 times, and below `cut`."""
    path = F.normalize(grids.mean(1), dim=-1)
    alike = (path[:-1] * path[1:]).sum(-1)
    ends = alike < cut
    ends[alike.sort(stable=True).indices[: least - 1]] = True
    stops = [-1, *ends.nonzero().flatten().tolist(), len(grids) - 1]
    return [b - a for a, b in zip(stops[:-1], stops[1:], strict=True)]


def anchors(lengths: Sequence[int], every: int) -> list[list[int]]:
    """The grids of each segment that hold centres: every so many, counted from its end."""
    found, start = [], 0
    for length in lengths:
        found.append(sorted(range(start + length - 1, start - 1, -every)))
        start += length
    return found


def rounded_counts(
    ratio: float, n: int, lengths: Sequence[int], found: Sequence[Sequence[int]], share: float
) -> tuple[list[int], list[int]]:
    """Salient tokens and centres of each grid [T], as the code rounds them; centres at most as many as there are."""
    kept = int(n * ratio)
    context = int(kept * share)
    centres = [0] * sum(lengths)
    for length, of_segment in zip(lengths, found, strict=True):
        for grid in of_segment:
            centres[grid] = min(context * length // len(of_segment), n - (kept - context))
    return [kept - context] * sum(lengths), centres


def exact_counts(
    total: int, n: int, lengths: Sequence[int], found: Sequence[Sequence[int]], share: float
) -> tuple[list[int], list[int]]:
    """The same, `total` in all: centres in proportion to their segment; what has no room there is salient."""
    n_grids, context = sum(lengths), int(total * share)
    salient = allocate([1] * n_grids, total - context, [n] * n_grids)
    places = [grid for of_segment in found for grid in of_segment]
    weights = [length / len(of) for length, of in zip(lengths, found, strict=True) for _ in of]
    room = [n - salient[grid] for grid in places]
    filled = min(context, sum(room))
    centres = dict(zip(places, allocate(weights, filled, room), strict=True))
    left = [n - salient[grid] - centres.get(grid, 0) for grid in range(n_grids)]
    more = allocate(left, context - filled, left)
    return [a + b for a, b in zip(salient, more, strict=True)], [centres.get(grid, 0) for grid in range(n_grids)]


def around(centres: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Centres [k, D] with what is most like each of them of the tokens [m, D], themselves among these, merged in."""
    to = (F.normalize(tokens, dim=-1) @ F.normalize(centres, dim=-1).T).argmax(-1)
    counts = torch.bincount(to, minlength=len(centres))[:, None]
    mean = torch.zeros_like(centres).index_add(0, to, tokens) / counts.clamp(min=1)
    weight = (1 / (counts + 1)).clamp(min=CENTRE)
    return weight * centres + (1 - weight) * torch.where(counts > 0, mean, centres)


METHOD = FastVID
