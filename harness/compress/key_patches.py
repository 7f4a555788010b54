"""DPSelect's key patches (ReTaKe, arXiv 2412.20504): where a patch of the video peaks in change over time."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_WINDOW = 3  # grids over which a change has to be the largest


def key_patches(features: torch.Tensor, tokens_per_grid: int, device: torch.device, *, synced: bool) -> torch.Tensor:
    """Mask [V] (host) of the tokens whose change from the grid before is the largest within three grids.

    The first grid counts as changed by 1. No grid is dropped: that is DPSelect at ratio 1, as ReTaKe's published
    configurations have it.

    Args:
        features: [V, d].
        synced: decide for whole grids, by the mean over their patches, instead of for each patch position.
    """
    grids = features.view(-1, tokens_per_grid, features.shape[-1])
    changes = [torch.ones(1, tokens_per_grid, device=device)]
    for before, after in zip(grids[:-1].split(64), grids[1:].split(64), strict=True):
        similarity = F.cosine_similarity(before.to(device), after.to(device), dim=-1)
        changes.append(1 - similarity.float())
    change = torch.cat(changes)  # [G, n]
    if synced:
        change = change.mean(dim=1, keepdim=True)
    peak = F.max_pool1d(change.T[None], _WINDOW, stride=1, padding=_WINDOW // 2, return_indices=True)[1][0].T
    is_peak = peak == torch.arange(len(change), device=device)[:, None]
    return is_peak.expand(-1, tokens_per_grid).reshape(-1).cpu()
