"""Clusters by density peaks among the nearest neighbours (DPC-kNN), as methods that merge tokens use them."""

from __future__ import annotations

import math

from harness.late import torch


def density_peaks(tokens: torch.Tensor, count: int, neighbours: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters of tokens [m, D]: their centres [count], the most peaked first, and each token's cluster [m].

    A token is dense by its distances to the nearest ones, itself among them, and a peak by its distance to the nearest
    denser one. The published codes add noise of 1e-6 to the density, for two that are nearest to each other are equally
    dense; here the one of the lower index then counts as denser.
    """
    distances = torch.cdist(tokens.float(), tokens.float()) / math.sqrt(tokens.shape[1])
    nearest = distances.topk(neighbours, dim=-1, largest=False).values
    density = (-nearest.square()).mean(-1).exp()
    first = torch.ones_like(distances, dtype=torch.bool).tril(-1)  # the other one has the lower index
    denser = (density[None] > density[:, None]) | ((density[None] == density[:, None]) & first)
    apart = torch.where(denser, distances, distances.max()).amin(-1)
    centres = (apart * density).sort(descending=True, stable=True).indices[:count]
    cluster = distances[:, centres].argmin(-1)
    cluster[centres] = torch.arange(count, device=tokens.device)
    return centres, cluster


def means(tokens: torch.Tensor, cluster: torch.Tensor, count: int) -> torch.Tensor:
    """Mean of the tokens [m, D] of each cluster [count, D]."""
    total = tokens.new_zeros(count, tokens.shape[1]).index_add(0, cluster, tokens)
    return total / torch.bincount(cluster, minlength=count)[:, None].to(tokens.dtype)
