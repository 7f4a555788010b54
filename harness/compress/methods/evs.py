"""EVS, Efficient Video Sampling (arXiv 2510.14624), as vLLM has it (d750efb): tokens that changed since the last grid.

The paper compares pixels of patches, vLLM their embeddings; this is vLLM's. Shapes as in `prune`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt
from harness.compress.prune import Pruner, highest_of_all, windows
from harness.late import F, torch

QUIRKS = {
    # The whole first grid stays, also where it is more than the budget. Off: exactly the budget, of the first grid too.
    "first_grid_whole": False,
    # On Qwen2.5-VL the text behind the video starts at a grid's width, so among the ids of the video. Off: behind.
    "text_at_grid_width": False,
}

WIDTH = 2  # row of the ids
FIRST = 255.0  # dissimilarity of every token of the first grid: above all others


@dataclass(frozen=True)
class EVS(Pruner):
    """See `Pruner`; vLLM prunes a share of 0.7 where a model was trained for it, and none otherwise."""

    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS

    def for_family(self, family: str) -> Method:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return (EVSOnQwen25VL if family == "qwen2_5_vl" else EVS)(**values)

    def keep(self, run: Prefill, grids: torch.Tensor, total: int) -> torch.Tensor:
        changed = run.of_video("evs", lambda: dissimilarity(grids, run.language.device))
        if self.has("first_grid_whole"):
            total = max(total, grids.shape[1])
        return highest_of_all(run, changed, total)


@dataclass(frozen=True)
class EVSOnQwen25VL(EVS):
    """vLLM lays out the ids of this family anew; those of Qwen3-VL go on behind the video's largest."""

    def ids(self, prompt: Prompt, kept: torch.Tensor) -> torch.Tensor | None:
        if not self.has("text_at_grid_width"):
            return None
        left = prompt.keep_video(kept)
        columns = prompt.positions[WIDTH, prompt.video]
        ids, behind = left.positions.clone(), slice(left.video_stop, left.n_prompt)
        ids[:, behind] += int(columns.max()) + 1 - int(ids[WIDTH, left.video_stop])
        return ids


def dissimilarity(grids: torch.Tensor, device: torch.device) -> torch.Tensor:
    """1 - cosine of every token and the one at its place a grid before [N]; `FIRST` in the first grid."""
    found = [torch.full((grids.shape[1],), FIRST, device=device)]
    for window in windows(grids, device, before=1):
        found.append((1 - F.cosine_similarity(window[1:], window[:-1], dim=-1)).flatten())
    return torch.cat(found)


def retained(n_grids: int, n: int, pruned: float) -> int:
    """How many tokens vLLM keeps when a share of them is `pruned`."""
    return max(n, int(n_grids * n * (1 - pruned)))


METHOD = EVS
