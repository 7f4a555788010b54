"""Recycling evicted tokens: clusters of the best of them become a few tokens, the means of their members."""

from __future__ import annotations

from dataclasses import dataclass

from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.late import torch


@dataclass(frozen=True)
class Gathered:
    """Tokens of a chunk [n] that become the means of their groups [k], at the places and ids of the centres [k]."""

    tokens: torch.Tensor
    centres: torch.Tensor
    member_of: torch.Tensor

    @classmethod
    def of(cls, run: Prefill, segment: Segment, layer: int, tokens: torch.Tensor, count: int) -> Gathered:
        """Clustered by their keys before rotation, of all key heads together."""
        keys = cls._unrotated(run, segment, layer)[:, run.places(segment).to(tokens.device)[tokens]]
        centres, member_of = density_peaks(keys.transpose(0, 1).flatten(1), count)
        return cls(tokens, tokens[centres], member_of)

    @staticmethod
    def _unrotated(run: Prefill, segment: Segment, layer: int) -> torch.Tensor:
        keys = run.cache.keys(layer)[:, -segment.length :]
        return run.language.unrotate(keys, run.ids[layer], slice(0, segment.length))

    def write(self, run: Prefill, segment: Segment, layer: int) -> None:
        """Put the means where the centres are cached; keys are averaged before rotation."""
        count, places = len(self.centres), run.places(segment).to(self.tokens.device)
        members, at = places[self.tokens], places[self.centres]
        keys, values = (s[:, -segment.length :] for s in (run.cache.keys(layer), run.cache.values(layer)))
        means = group_means(self._unrotated(run, segment, layer)[:, members], self.member_of, count)
        keys[:, at] = run.language.rotate(means, run.ids[layer], at)
        values[:, at] = group_means(values[:, members], self.member_of, count)


def density_peaks(points: torch.Tensor, count: int, neighbours: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Density peak clustering with densities from the nearest neighbours (DPC-KNN).

    A point's density is exp(- mean squared distance to its nearest neighbours, itself among them), its isolation the
    distance to the nearest point that is denser. The points with the largest products are centres; every other
    point belongs to the nearest centre. Distances are divided by the root of the dimension; ties go to the lower index.

    Args:
        points: [n, d].
        count: how many centres, at most n.
        neighbours: over how many the density is averaged.

    Returns:
        The centres [count], ascending, and for each point [n] which of them it belongs to.
    """
    points = points.float()
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") / points.shape[1] ** 0.5
    nearest = distance.topk(min(neighbours, len(points)), largest=False).values
    density = (-nearest.square().mean(-1)).exp()
    denser = density[None, :] > density[:, None]
    isolation = distance.masked_fill(~denser, torch.inf).amin(-1)
    isolation = torch.where(isolation.isinf(), distance.max(), isolation)
    order = torch.sort(isolation * density, descending=True, stable=True).indices
    centres = order[:count].sort().values
    member_of = distance[:, centres].argmin(-1)
    member_of[centres] = torch.arange(count, device=points.device)
    return centres, member_of


def group_means(states: torch.Tensor, member_of: torch.Tensor, count: int) -> torch.Tensor:
    """Plain means [..., count, d] of the states [..., n, d] of each group."""
    one_hot = torch.nn.functional.one_hot(member_of, count).to(states.device, torch.float32)  # [n, count]
    return (one_hot.T @ states.float() / one_hot.sum(0)[:, None]).to(states.dtype)


def clusters_of(dropped: int, recycled: float, clusters: float) -> int:
    """How many means so many dropped tokens become."""
    return min(dropped, int(clusters * int(recycled * dropped)) + 1, max(1, int(recycled * dropped))) if dropped else 0


def recycled_count(budget: int, length: int, recycled: float, clusters: float, most: float) -> int:
    """How many of a budget's tokens are recycled ones: as many as what is dropped for them becomes, or the most."""
    made, limit = 0, int(most * budget)
    while made < limit and made < clusters_of(length - budget + made, recycled, clusters):
        made += 1
    return made


def best_dropped(scores: torch.Tensor, kept: torch.Tensor, share: float) -> torch.Tensor:
    """The share [n] of the tokens that are not `kept` [k] with the highest scores [c], at least one; ascending."""
    stays = torch.zeros(len(scores), dtype=torch.int8, device=scores.device).index_fill(0, kept, 1)
    tokens = stays.sort(stable=True).indices[: len(scores) - len(kept)]  # as `nonzero`, which waits for the device
    count = min(len(tokens), max(1, int(share * len(tokens))))
    order = torch.sort(scores[tokens], descending=True, stable=True).indices[:count]
    return tokens[order.sort().values]
