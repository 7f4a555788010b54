"""DyCoke (arXiv 2411.15024, code dd74634): token merging over time, which drops and does not merge.

In every four grids the first stays whole; the second and fourth keep what is least like the grid before, the third
what is least like the first. Its stage while decoding is left out: it frees nothing, and cannot change a first token.
Shapes as in `prune`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.allocation import allocate
from harness.compress.method import Pruned
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt
from harness.compress.prune import Pruner, counted_anew, highest_per_grid
from harness.errors import QuestionError
from harness.late import F, torch
from harness.settings.rules import setting

QUIRKS = {
    # The last of an odd number of grids is dropped whole. Off: it stays whole, as the first of its pair.
    "odd_grid_dropped": False,
    # Reduced grids hand out their tokens from the least to the most like. Off: in order of place.
    "order_of_similarity": False,
}


@dataclass(frozen=True)
class DyCoke(Pruner):
    """See `Pruner`. Whole grids stay whatever the budget, so a quarter of the tokens and a little is the least.

    Attributes:
        merge: share of a reduced grid that goes, instead of a budget (0.3 in the code, 0.7 in its published command).
    """

    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS

    merge: float | None = setting(None, least=0, most=1)

    def compresses(self, prompt: Prompt) -> bool:
        return super().compresses(prompt) if self.merge is None else self.merge > 0

    def prune(self, run: Prefill) -> Pruned:
        pruned = super().prune(run)
        if not self.has("order_of_similarity"):
            return pruned
        n = run.prompt.grid_lengths[0]
        order = emission(pruned.kept, self.likeness(run), n)
        return dataclasses.replace(pruned, features=tuple(f[order.to(f.device)] for f in run.features))

    def likeness(self, run: Prefill) -> torch.Tensor:
        """See `likeness`, computed once per video."""
        grids = run.features[0].view(run.prompt.n_grids, -1, run.features[0].shape[-1])
        return run.of_video("dycoke", lambda: likeness(grids, run.language.device))

    def keep(self, run: Prefill, grids: torch.Tensor, total: int) -> torch.Tensor:
        n, reduced = grids.shape[1], [r is not None for r in references(len(grids))]
        if self.merge is not None:
            counts = counts_at(self.merge, len(grids), n)
        else:
            whole = n * reduced.count(False)
            if total < whole:
                text = run.prompt.n_text
                raise QuestionError(
                    f"context={run.prompt.context} is too small for DyCoke: every fourth grid and the last ones stay "
                    f"whole, {whole} tokens; use a context of at least {text + whole}"
                )
            shares = iter(allocate([1] * sum(reduced), total - whole, [n] * sum(reduced)))
            counts = [next(shares) if less else n for less in reduced]
        if self.has("odd_grid_dropped") and len(grids) % 2:
            counts[-1] = 0
        return highest_per_grid(run, -self.likeness(run), counts)

    def ids(self, prompt: Prompt, kept: torch.Tensor) -> torch.Tensor | None:
        return counted_anew(prompt, kept)


def references(n_grids: int) -> list[int | None]:
    """Which grid each one [T] is compared with; `None` = it stays whole.

    The second of every pair with the first; the third of four with the first of them, but for the last four.
    """
    found: list[int | None] = [t - 1 if t % 2 else None for t in range(n_grids)]
    for t in range(0, n_grids - 4, 4):
        found[t + 2] = t
    return found


def likeness(grids: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Cosine of every token [T, n] and the one at its place in the reference; -1 in grids that stay whole."""
    found = torch.full(grids.shape[:2], -1.0, device=device)
    for t, reference in enumerate(references(len(grids))):
        if reference is not None:
            pair = grids[[t, reference]].to(device).float()
            found[t] = F.cosine_similarity(pair[0], pair[1], dim=-1)
    return found


def counts_at(merge: float, n_grids: int, n: int) -> list[int]:
    """Tokens per grid [T] when a share `merge` of every reduced grid goes."""
    return [n if reference is None else int((1 - merge) * n) for reference in references(n_grids)]


def emission(kept: torch.Tensor, alike: torch.Tensor, n: int) -> torch.Tensor:
    """Token numbers [k] as the code emits them: grid by grid, in reduced grids from the least alike on."""
    whole = torch.tensor([reference is None for reference in references(len(alike))], device=alike.device)
    grid = kept.to(alike.device) // n
    key = torch.where(whole[grid], kept.to(alike.device) % n, alike.flatten()[kept.to(alike.device)])
    order = key.sort(stable=True).indices
    return kept[order[grid[order].sort(stable=True).indices].cpu()]


METHOD = DyCoke
