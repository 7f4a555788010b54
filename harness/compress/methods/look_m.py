"""LOOK-M (arXiv 2406.18139): tokens that got attention stay, and the others are merged into those that are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.compress.cache import Kept
from harness.compress.evict import ChunkEvictor, Counts
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.scorers import LayerView, received
from harness.compress.whole_context import WINDOWS, has_window, highest_and_newest
from harness.late import F, torch
from harness.settings.rules import setting

MERGES = ("pivotal", "average", "weighted", "none")


@dataclass(frozen=True)
class LookM(ChunkEvictor):
    """Ranks a chunk's tokens by the attention that they get from the chunk and the guide; each key head on its own.

    Attributes:
        merge: what becomes of a token that is evicted, see `merged`; `none` = it is lost.
        unlike: pairs whose likeness is below the layer's mean are merged too; the code leaves them out.
        content: likeness and means are those of keys before rotation; published: as they are cached.
        recent: share of the budget that goes to the newest tokens.
        window: in which chunks, see `recent.WINDOWS`.
    """

    merge: str = setting("pivotal", words=MERGES)
    unlike: bool = True
    content: bool = False
    recent: float = setting(0.1, least=0, most=1)
    window: str = setting("last", words=WINDOWS)

    def score(self, view: LayerView) -> torch.Tensor:
        """[kv, c]; the mean over all queries is in the order of their sum."""
        return received(view, range(view.queries.shape[1]), per_head=True)

    def choose(self, run: Prefill, segment: Segment, scores: list[torch.Tensor], counts: Counts) -> list[Kept]:
        of_layer = torch.as_tensor(counts).tolist()
        recent = self.recent if has_window(run, segment, self.window) else 0.0
        return highest_and_newest(run, scores, of_layer, [int(recent * count) for count in of_layer])

    def evict(self, run: Prefill, segment: Segment, kept: Sequence[Kept]) -> None:
        if self.merge != "none":
            for layer, of_layer in enumerate(kept):
                if not isinstance(of_layer, torch.Tensor) and 0 < len(of_layer[0]) < segment.n_video:
                    self._merge(run, segment, layer, torch.stack(list(of_layer)))
        super().evict(run, segment, kept)

    def _merge(self, run: Prefill, segment: Segment, layer: int, kept: torch.Tensor) -> None:
        """Write the merged keys and values where those of the kept tokens [kv, k] are cached."""
        heads, places = range(len(kept)), run.places(segment).to(kept.device)
        of_keys = [run.cache.head_keys(layer, head)[-segment.length :] for head in heads]
        of_values = [run.cache.head_values(layer, head)[-segment.length :] for head in heads]
        keys, values = (torch.stack([state[places] for state in states]) for states in (of_keys, of_values))
        if self.content:
            keys = run.language.unrotate(keys, run.ids[layer], places)
        keys, values = merged(keys, values, kept, self.merge, unlike=self.unlike)
        for head in heads:
            of_head = keys[head : head + 1]
            if self.content:
                of_head = run.language.rotate(of_head, run.ids[layer], places[kept[head]])
            of_keys[head][places[kept[head]]] = of_head[0]
            of_values[head][places[kept[head]]] = values[head]


def merged(
    keys: torch.Tensor, values: torch.Tensor, kept: torch.Tensor, rule: str, *, unlike: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values [kv, k, d] of the kept tokens, with those of the others merged in.

    Each evicted token e goes to the kept token c whose key has the largest cosine s with its own, for keys and values
    alike. With n tokens that go to c it becomes
    average: (c + sum e) / (n + 1); pivotal: (c + sum (e + c) / 2) / (n + 1); weighted: (c + sum s e) / (n + 1).

    Args:
        keys, values: of all tokens [kv, c, d].
        kept: indices [kv, k] of those that stay.
        rule: one of the three.
        unlike: whether tokens whose s is below the mean over all evicted ones are merged too.
    """
    k = kept.shape[1]
    stays = torch.zeros(keys.shape[:2], dtype=torch.int8, device=keys.device).scatter(1, kept, 1)
    gone = stays.sort(stable=True).indices[:, : keys.shape[1] - k]  # [kv, e], ascending

    def of(states: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return states.float().gather(1, indices[..., None].expand(-1, -1, states.shape[2]))

    alike, nearest = (F.normalize(of(keys, gone), dim=-1) @ F.normalize(of(keys, kept), dim=-1).mT).max(-1)
    goes = F.one_hot(nearest, k).float()  # [kv, e, k]; sums are products with it, so that they add up in one order
    if not unlike:
        goes = goes * (alike >= alike.mean())[..., None]
    count = goes.sum(1)[..., None]
    weighted = goes * alike[..., None] if rule == "weighted" else goes

    def merge(states: torch.Tensor) -> torch.Tensor:
        centre, total = of(states, kept), weighted.mT @ of(states, gone)
        if rule == "pivotal":
            total = (total + count * centre) / 2
        return ((centre + total) / (count + 1)).to(states.dtype)

    return merge(keys), merge(values)


METHOD = LookM
