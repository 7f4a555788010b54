"""DPSelect (ReTaKe, arXiv 2412.20504): where and when the video peaks in change over time."""

from __future__ import annotations

from harness.late import F, torch

_WINDOW = 3  # grids over which a change has to be the largest


def key_patches(features: torch.Tensor, tokens_per_grid: int, device: torch.device, *, synced: bool) -> torch.Tensor:
    """Mask [V] (host) of the tokens whose change from the grid before is the largest within three grids.

    The first grid counts as changed by 1.

    Args:
        features: [V, d].
        synced: decide for whole grids, by the mean over their patches, instead of for each patch position.
    """
    change = _changes(features, tokens_per_grid, device, synced)
    return _peaks(change).expand(-1, tokens_per_grid).reshape(-1).cpu()


def key_frames(
    features: torch.Tensor, tokens_per_grid: int, device: torch.device, *, ratio: float, synced: bool
) -> torch.Tensor:
    """The grids [T', n] (host), ascending, that stay at each patch position: peaks first, then those that changed most.

    T' = round(ratio * G), at least 1; among equal changes the earlier grid stays. Arguments as of `key_patches`.
    """
    change = _changes(features, tokens_per_grid, device, synced)
    count = max(1, round(ratio * len(change)))
    ranked = (change + 2 * _peaks(change)).sort(dim=0, descending=True, stable=True).indices
    return ranked[:count].sort(dim=0).values.expand(-1, tokens_per_grid).cpu()


def _changes(features: torch.Tensor, tokens_per_grid: int, device: torch.device, synced: bool) -> torch.Tensor:
    """Cosine distance to the grid before at each patch position [G, n], or its mean over them [G, 1]."""
    grids = features.view(-1, tokens_per_grid, features.shape[-1])
    changes = [torch.ones(1, tokens_per_grid, device=device)]
    for before, after in zip(grids[:-1].split(64), grids[1:].split(64), strict=True):
        similarity = F.cosine_similarity(before.to(device), after.to(device), dim=-1)
        changes.append(1 - similarity.float())
    change = torch.cat(changes)  # [G, n]
    return change.mean(dim=1, keepdim=True) if synced else change


def _peaks(change: torch.Tensor) -> torch.Tensor:
    """Which entries [G, p] are the largest of their window, the earlier one of equals."""
    peak = F.max_pool1d(change.T[None], _WINDOW, stride=1, padding=_WINDOW // 2, return_indices=True)[1][0].T
    return peak == torch.arange(len(change), device=change.device)[:, None]
