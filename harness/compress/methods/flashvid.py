"""FlashVID (arXiv 2602.08024, code 1d37422): tokens that the tower attends to and that differ, the rest merged.

Merged over time where a token repeats the grid before, within segments of alike grids, and then in clusters of each
grid. Its tokens are exact in number and every place is taken once, which is not so in the code (`tokens.released`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from harness.compress.allocation import allocate
from harness.compress.method import Method
from harness.compress.prune import TwoShares, density_peaks, means
from harness.late import F, torch
from harness.settings.rules import setting

NEIGHBOURS = 7


@dataclass(frozen=True)
class Settings:
    """What is published besides budgets: by whose scores tokens are picked, and the thresholds.

    Attributes:
        by_segment: scores count the likeness to the segment's grids, too (LLaVA); otherwise attention alone (Qwen).
        picked: share of a step's tokens that are picked, and not merged.
        cut: cosine of neighbouring grids below which a segment ends.
        min_segments: there are at least so many, cut at the least alike grids.
        alike: cosine above which a token is merged into one of the grid before.
        children_counted_once: see `QUIRKS` of the method.
    """

    by_segment: bool = False
    picked: float = 0.7
    cut: float = 0.9
    min_segments: int = 4
    alike: float = 0.8
    children_counted_once: bool = True


def segments(grids: torch.Tensor, cut: float, least: int) -> list[int]:
    """Lengths of runs of alike grids [T, n, D]: cut where the cosine of their means is below `cut`.

    If these are fewer than `least`, also at the least alike of the others; where there are no others, at the same place
    again, so that some lengths are 0, as in the code.
    """
    path = grids.mean(1)
    path = path / path.norm(dim=-1, keepdim=True)
    alike = (path[:-1] * path[1:]).sum(-1)
    cuts = (alike < cut).nonzero().flatten()
    if len(cuts) + 1 < least:
        more = min(least - 1 - len(cuts), len(alike))
        rest = alike.masked_fill(alike < cut, 1.0)
        cuts = torch.cat((cuts, rest.topk(more, largest=False).indices)).sort().values
    ends = [-1, *cuts.tolist(), len(grids) - 1]
    return [b - a for a, b in zip(ends[:-1], ends[1:], strict=True)]


def picked(
    grids: torch.Tensor, attention: torch.Tensor, count: int, *, by_segment: bool, twice: bool | None = None
) -> torch.Tensor:
    """Of every grid [s, n, D] of a segment `count` tokens [s, count], in the order in which they are picked.

    Greedy: the largest cosine distance to the nearest one picked, times the attention that the token got [s, n], and
    with `by_segment` times its mean product with the grids' means. That variant does not exclude what is picked, where
    `twice` does not say otherwise.
    """
    twice = by_segment if twice is None else twice
    grids = grids.float()
    normal = grids / grids.norm(dim=-1, keepdim=True)
    apart = (1.0 - normal @ normal.transpose(1, 2)) * (attention.float() * 1e6)[:, None]
    if by_segment:
        apart = apart * torch.einsum("snd,cd->scn", grids, grids.mean(1)).mean(1)[:, None]
    count = min(max(count, 1), grids.shape[1])
    chosen = [apart.topk(min(2, apart.shape[1]), dim=1, largest=False).values[:, -1].argmax(-1)]
    rows = torch.arange(len(grids), device=grids.device)
    nearest = apart[rows, chosen[0]]
    for _ in range(count - 1):
        left = nearest if twice else nearest.scatter(1, torch.stack(chosen, 1), -1.0 if not by_segment else -torch.inf)
        chosen.append(left.argmax(-1))
        nearest = torch.minimum(nearest, apart[rows, chosen[-1]])
    return torch.stack(chosen, 1)


def merged_over_time(
    grids: torch.Tensor, free: torch.Tensor, least: int, alike: float, *, children_counted_once: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of a segment [s, n, D] after those that repeat the grid before were merged into it, and which are left.

    Args:
        grids: of one segment.
        free: [s, n], which may merge and be merged into.
        least: how many have to be left, those that are not free included.
        alike: cosine above which a token is merged into the most similar one of the grid before.
        children_counted_once: see `Settings`.
    """
    tokens, (steps, n, _) = grids.clone(), grids.shape
    normal = grids / grids.norm(dim=-1, keepdim=True)
    cosine = normal[1:] @ normal[:-1].transpose(1, 2)
    cosine = cosine.masked_fill(~free[1:, :, None] | ~free[:-1, None], -1.0)
    best, parent = cosine.max(-1)
    best = F.pad(best, (0, 0, 1, 0), value=-1.0)
    goes = best > alike
    if int((~goes).sum()) < least:
        threshold = best.flatten().topk(steps * n - least).values[-1].clamp_min(-1.0 + 1e-6)
        goes = best > threshold
    counts = torch.ones(steps, n, dtype=grids.dtype, device=grids.device)
    for t in range(steps - 1, -1, -1):
        stays, leaves = ~goes[t], goes[t]
        tokens[t, stays] = tokens[t, stays] / counts[t, stays][:, None]
        if t and leaves.any():
            to = parent[t - 1, leaves]
            tokens[t - 1].index_add_(0, to, tokens[t, leaves])
            children = torch.ones_like(counts[t, leaves]) if children_counted_once else counts[t, leaves]
            counts[t - 1].index_add_(0, to, children)
    return tokens, ~goes & free


def clustered(tokens: torch.Tensor, ids: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [m, D] with numbers [m] merged to `count` means, each at the number of its cluster's centre."""
    if count >= len(tokens):
        return tokens, ids
    centres, cluster = density_peaks(tokens, count, min(count, NEIGHBOURS))
    return means(tokens, cluster, count), ids[centres]


def released(
    grids: torch.Tensor, attention: torch.Tensor, budget: int, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the code does it: tokens [k, D] and their numbers [k] ascending, about `budget` of every grid [T, n, D].

    Shares are rounded up step by step. A step that is a segment is clustered whole, with what was picked, so that
    numbers may repeat.
    """
    n_picked = math.ceil(budget * settings.picked)
    found, numbers, start = [], [], 0
    for steps in filter(None, segments(grids, settings.cut, settings.min_segments)):
        part, ids = grids[start : start + steps], _numbers(grids, start, steps)
        chosen = picked(part, attention[start : start + steps], n_picked, by_segment=settings.by_segment).sort().values
        found.append(part.gather(1, chosen[..., None].expand(-1, -1, part.shape[2])).flatten(0, 1))
        numbers.append(ids.gather(1, chosen).flatten())
        start += steps
        needed = (budget - n_picked) * steps
        if not needed:
            continue
        left = torch.ones_like(ids, dtype=torch.bool)
        if steps > 1:
            free = left.scatter(1, chosen, False)
            once = settings.children_counted_once
            part, left = merged_over_time(part, free, budget * steps, settings.alike, children_counted_once=once)
        share = needed / int(left.sum())
        for tokens, ids_of, stays in zip(part, ids, left, strict=True):
            count = math.ceil(int(stays.sum()) * share) if share < 1 else int(stays.sum())
            if count:
                merged = clustered(tokens[stays], ids_of[stays], count)
                found.append(merged[0])
                numbers.append(merged[1])
    joined = torch.cat(numbers)
    order = joined.argsort()
    return torch.cat(found)[order], joined[order]


def exactly(
    grids: torch.Tensor, attention: torch.Tensor, total: int, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same with `total` tokens: shares by largest remainder, and what was picked is clustered nowhere.

    Returns:
        Tokens [total, D] and their numbers [total] ascending.
    """
    n_grids, n = grids.shape[:2]
    n_picked = math.ceil(total * settings.picked)
    counts = allocate([1] * n_grids, n_picked, [n] * n_grids)
    numbers, left, start = _numbers(grids, 0, n_grids), [], 0
    stays = torch.zeros(n_grids, n, dtype=torch.bool, device=grids.device)
    for steps in filter(None, segments(grids, settings.cut, settings.min_segments)):
        span = slice(start, start + steps)
        by_segment = settings.by_segment
        order = picked(grids[span], attention[span], max(counts[span]), by_segment=by_segment, twice=False)
        for t, of_step in enumerate(order):
            stays[start + t, of_step[: counts[start + t]]] = True
        free = ~stays[span]
        needed = math.ceil((total - n_picked) * int(free.sum()) / max(1, stays.numel() - n_picked))
        least, once = sum(counts[span]) + needed, settings.children_counted_once
        merged = grids[span], free
        if steps > 1 and least < steps * n:
            merged = merged_over_time(grids[span], free, least, settings.alike, children_counted_once=once)
        left += list(zip(*merged, numbers[span], strict=True))
        start += steps
    found, ids = [grids[stays]], [numbers[stays]]
    available = [int(mask.sum()) for _, mask, _ in left]
    some = [t for t in range(n_grids) if available[t]]
    shares = allocate([available[t] for t in some], total - n_picked, [available[t] for t in some])
    for t, count in zip(some, shares, strict=True):
        if count:
            tokens, mask, of_step = left[t]
            clusters = clustered(tokens[mask], of_step[mask], count)
            found.append(clusters[0])
            ids.append(clusters[1])
    numbers, order = torch.cat(ids).sort()
    return torch.cat(found)[order], numbers


def _numbers(grids: torch.Tensor, start: int, steps: int) -> torch.Tensor:
    n = grids.shape[1]
    return (torch.arange(start * n, (start + steps) * n, device=grids.device)).view(steps, n)


QUIRKS: Mapping[str, bool] = {
    # A merged token counts its direct children only, so that what repeats for long grows in norm. Off: all of them.
    "children_counted_once": True,
}


@dataclass(frozen=True)
class FlashVID(TwoShares):
    """See `TwoShares`.

    Attributes:
        keep_inner: share of the tokens that enter that passes the last layers (0.3; Qwen3-VL 0.1); how many enter
            follows from it: 1.25 of the mean with the published numbers.
        min_segments: segments that the video has at least; `None` = 8 (LLaVA), or 4 (Qwen).
    """

    version: ClassVar[int] = 2
    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS
    depth: ClassVar[tuple[int, int]] = (20, 28)
    by_segment: ClassVar[bool] = False

    keep_inner: float = setting(0.3, above=0, most=1)
    min_segments: int | None = setting(None, least=1)

    def for_family(self, family: str) -> Method:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"llava_onevision": FlashVIDOnLLaVA, "qwen3_vl": FlashVIDOnQwen3VL}.get(family, FlashVID)(**values)

    def merged(self, grids: torch.Tensor, attention: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
        settings = Settings(
            self.by_segment,
            min_segments=self.min_segments or (8 if self.by_segment else 4),
            children_counted_once=self.has("children_counted_once"),
        )
        return exactly(grids, attention, total, settings)


@dataclass(frozen=True)
class FlashVIDOnLLaVA(FlashVID):
    """There tokens are picked by their likeness to the segment, too."""

    by_segment: ClassVar[bool] = True


@dataclass(frozen=True)
class FlashVIDOnQwen3VL(FlashVID):
    """There the layer is deeper; published with `keep_inner` 0.1."""

    depth: ClassVar[tuple[int, int]] = (28, 36)


METHOD = FlashVID
