"""KVzip (arXiv 2505.23416): kept is what the model looks at when it reads the context a second time."""

from __future__ import annotations

from dataclasses import dataclass

from harness.compress.allocation import pooled_margin, top_hits
from harness.compress.attention import Heads
from harness.compress.evict import Counts, video_budget
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.scorers import together
from harness.compress.whole_context import WholeContextEvictor
from harness.late import torch
from harness.settings.rules import setting

SHARES = ("model", "head")
_BLOCK_BYTES = 64 * 2**20  # most that the attention weights of one block of queries may take


@dataclass(frozen=True)
class KVzip(WholeContextEvictor):
    """Chunk by chunk the video passes again behind all of it, as a video that follows; then it is dropped. A token's
    score is the largest attention that it gets from the copy of its own chunk.

    Attributes:
        share: who shares the budget: the whole `model`, so that heads of all layers compete, or nobody: each `head`
            keeps as many.
        strict: as published, only scores above the n-th highest are kept: at least one token less than the budget.
    """

    share: str = setting("model", words=SHARES)
    strict: bool = False

    def scores(self, run: Prefill) -> list[torch.Tensor]:
        found: list[list[torch.Tensor]] = [[] for _ in range(run.language.num_layers)]
        following = int(run.prompt.positions[:, : run.prompt.video_stop].max()) + 1
        for segment in run.segments:
            if segment.chunk is None:
                continue
            ids = run.prompt.positions[:, segment.tokens]

            def observe(layer: int, query: torch.Tensor, key: Heads, scale: float, segment: Segment = segment) -> None:
                found[layer].append(most_attention(run, segment, query, together(key), scale))

            run.forward(segment, ids=ids - ids.amin(1, keepdim=True) + following, observer=observe)
            run.cache.drop_last(segment.length)
        return [torch.cat(of_layer, dim=1) for of_layer in found]

    def counts(self, run: Prefill, scores: list[torch.Tensor]) -> Counts:
        heads = [of_head for of_layer in scores for of_head in of_layer]
        if self.strict:
            return self._above(run, scores)
        if self.share == "head":
            return super().counts(run, scores)
        run.note_margin(pooled_margin(heads, video_budget(run.prompt)))
        hits, kv = top_hits(heads, len(heads) * video_budget(run.prompt)), len(scores[0])
        return [hits[i : i + kv] for i in range(0, len(hits), kv)]

    def _above(self, run: Prefill, scores: list[torch.Tensor]) -> list[list[int]]:
        """Per layer and head how many scores lie above the n-th highest of those that compete."""
        stacked, budget = torch.stack([s.to(scores[0].device) for s in scores]), video_budget(run.prompt)
        rows = stacked.flatten(0, 1) if self.share == "head" else stacked.flatten()[None]
        nth = rows.topk(budget * stacked.shape[0] * stacked.shape[1] // len(rows), dim=1).values[:, -1]
        counts: list[list[int]] = (stacked.flatten(0, 1) > nth[:, None]).sum(1).view(stacked.shape[:2]).tolist()
        return counts


def most_attention(
    run: Prefill, segment: Segment, queries: torch.Tensor, keys: torch.Tensor, scale: float
) -> torch.Tensor:
    """The largest attention [kv, c] that each video token of a chunk gets from any token of its copy, in any head.

    The softmax is over the text in front of the video, the chunk, and the copy as far as it has passed.

    Args:
        queries: of the copy [h, n, d].
        keys: of all that is cached [kv, m, d], the chunk's at their places in the prompt, the copy's at the end.
        scale: factor on the logits.
    """
    (groups, m, dim), n, front = keys.shape, queries.shape[1], run.prompt.video_start
    seen = torch.cat((torch.arange(front), torch.arange(segment.tokens.start, segment.tokens.stop)))
    columns = torch.cat((seen, torch.arange(m - n, m))).to(keys.device)
    asked = keys.index_select(1, columns).float().transpose(1, 2)  # [kv, d, front + 2 n]
    video = (run.places(segment) + front).to(keys.device)
    best = torch.zeros(groups, len(video), device=keys.device)
    block = max(1, _BLOCK_BYTES // (4 * queries.shape[0] * len(columns)))
    for start in range(0, n, block):
        part = queries[:, start : start + block].float()
        logits = (part.reshape(groups, -1, dim) @ asked * scale).view(groups, -1, part.shape[1], len(columns))
        rows = torch.arange(start, start + part.shape[1], device=keys.device)
        later = torch.arange(-len(seen), n, device=keys.device) > rows[:, None]
        weights = logits.masked_fill(later, -torch.inf).softmax(dim=-1)
        best = torch.maximum(best, weights.index_select(-1, video).amax((1, 2)))
    return best


METHOD = KVzip
