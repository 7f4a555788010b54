"""SnapKV (arXiv 2404.14469): what the last rows of the prompt attend to, each key head for itself."""

from __future__ import annotations

from dataclasses import dataclass

from harness.compress.evict import ChunkEvictor
from harness.compress.scorers import LayerView, causal_weights, guide_rows, trapped
from harness.errors import UserError
from harness.late import F, torch
from harness.settings.rules import setting

POOLINGS = ("average", "max")
REDUCTIONS = ("mean", "max")


@dataclass(frozen=True)
class SnapKV(ChunkEvictor):
    """The observation window is the guide, the text behind the video, which follows every chunk and is never evicted.

    Attributes:
        form: only `kv`, under the context and behind every chunk. As published, after the whole prompt, eviction would
            come too late for a letter.
        kernel: scores of so many neighbouring tokens of the chunk are pooled; 1 = none, an odd number.
        pooling: how.
        reduction: over the query heads that share a key head.
    """

    form: str = "kv"
    kernel: int = setting(1, least=1)
    pooling: str = setting("average", words=POOLINGS)
    reduction: str = setting("mean", words=REDUCTIONS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form != "kv":
            raise trapped(f"method.form={self.form} does not exist for {self.name}", "set method.form=kv")
        if self.kernel % 2 == 0:
            raise UserError(f"method.kernel={self.kernel} has no middle: use an odd number, or 1 for no pooling")

    def score(self, view: LayerView) -> torch.Tensor:
        """Attention [kv, c] from the guide: softmax over all that it sees, mean over its rows, pooled, reduced."""
        assert view.context is not None
        context = [view.context] if isinstance(view.context, torch.Tensor) else view.context
        keys = [head for part in context for head in part[0]]
        queries = view.queries.split(view.queries.shape[0] // len(keys))
        return torch.stack([self._of_head(view, q, k) for q, k in zip(queries, keys, strict=True)])

    def _of_head(self, view: LayerView, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """[c], from the queries [g, n, d] and all cached keys [m, d] of one key head, which may be as long as it is."""
        rows, n = guide_rows(view), queries.shape[1]
        places = torch.arange(n - view.n_guide) if view.places is None else view.places
        columns = (places + (len(keys) - n)).to(keys.device)
        total = torch.zeros(len(queries), len(columns), device=keys.device)
        for _, weights in causal_weights(queries, keys[None], view.scale, rows):
            total += weights[0].index_select(-1, columns).sum(1)
        pooled = pool(total / len(rows), self.kernel, self.pooling)
        return pooled.mean(0) if self.reduction == "mean" else pooled.amax(0)


def pool(scores: torch.Tensor, kernel: int, how: str) -> torch.Tensor:
    """Scores [h, c] of so many neighbours, their `average` (what lies outside counts as 0) or `max`."""
    if kernel == 1:
        return scores
    if how == "max":
        return F.max_pool1d(scores, kernel, stride=1, padding=kernel // 2)
    return F.avg_pool1d(scores, kernel, stride=1, padding=kernel // 2)


METHOD = SnapKV
