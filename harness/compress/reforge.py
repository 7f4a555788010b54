"""Position reforging: squeezing the temporal ids of kept tokens, so that a long video stays within trained positions.

Only the releases and ReTaKe do this. Ids are kept per layer on the host; the keys are rotated back and rotated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from harness.compress.cache import CompressedCache, Kept
from harness.compress.evict import ChunkEvictor
from harness.compress.language import LanguageModel
from harness.compress.positions import TEMPORAL
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.scorers import LayerView, attention_received


@dataclass(frozen=True)
class ReforgingEvictor(ChunkEvictor):
    """Evicts like its base, and where `reforge` is set moves and squeezes temporal ids. The properties say how.

    Attributes:
        reforge: `None` leaves it to the task.
    """

    reforge: bool | None = None

    @property
    def shifts(self) -> bool:
        """At each layer, before rotation, a segment's temporal row is moved behind the layer's last cached one."""
        return True

    @property
    def shifts_all_rows_of_decoded(self) -> bool:
        """That shift of a decoded token moves height and width too."""
        return False

    @property
    def squeezes_towards(self) -> Literal["segment", "chunk", "kept"]:
        """Whose smallest temporal id ids are squeezed towards: chunk and guide, the chunk, or its kept tokens."""
        return "segment"

    @property
    def scores_content(self) -> bool:
        """Scores use queries and keys from before rotation."""
        return bool(self.reforge)

    @property
    def rounds_scores(self) -> bool:
        """Scores are computed and summed in the number format of the model."""
        return True

    def squeeze_ratio(self, run: Prefill, n_kept: int, n_judged: int) -> float:
        """The factor on temporal distances when a chunk is stored."""
        assert run.prompt.context is not None
        return run.prompt.context / run.prompt.n_prompt

    @property
    def tracks_positions(self) -> bool:
        return bool(self.reforge)

    def attention(self, view: LayerView, queries: Literal["guide", "chunk"]) -> torch.Tensor:
        """Attention [c] that the chunk's tokens get from the guide, or from each other, under the rules above."""
        view = view.unrotated() if self.scores_content else view
        asking = view.guide_queries if queries == "guide" else view.chunk_queries
        if self.rounds_scores:
            return attention_received(asking, view.chunk_keys, view.scale, rounded=True)
        return attention_received(asking.float(), view.chunk_keys.float(), view.scale)

    def layer_ids(self, run: Prefill, ids: torch.Tensor, *, decoded: bool) -> list[torch.Tensor] | None:
        if not self.reforge or not self.shifts:
            return None
        rows = slice(None) if decoded and self.shifts_all_rows_of_decoded else slice(TEMPORAL, TEMPORAL + 1)
        result = []
        for layer in range(run.cache.num_layers):
            last = int(run.cache.positions(layer)[TEMPORAL, -1]) if run.cache.get_seq_length(layer) else -1
            moved = ids.clone()
            moved[rows] += last + 1 - int(ids[TEMPORAL, 0])
            result.append(moved)
        return result

    def judged(self, run: Prefill, segment: Segment) -> int:
        """Tokens at the end of the cache that the scores decide about."""
        return segment.length

    def evict(self, run: Prefill, segment: Segment, kept: Sequence[Kept]) -> None:
        judged = self.judged(run, segment)
        for layer, indices in enumerate(kept):
            assert isinstance(indices, torch.Tensor)
            if self.reforge:
                self._squeeze(run, segment, layer, indices, judged)
            run.cache.keep_of_last(layer, judged, indices)

    def _squeeze(self, run: Prefill, segment: Segment, layer: int, kept: torch.Tensor, judged: int) -> None:
        temporal = run.ids[layer][TEMPORAL]
        if self.squeezes_towards == "chunk":
            temporal = temporal[: segment.length]
        elif self.squeezes_towards == "kept":
            temporal = temporal[: segment.length][kept.cpu()]
        ratio = self.squeeze_ratio(run, len(kept), judged)
        store_squeezed(run.language, run.cache, layer, segment.length, int(temporal.min()), ratio)


def squeeze(ids: torch.Tensor, origin: int, ratio: float) -> torch.Tensor:
    """Ids [r, n] with temporal t replaced by origin + int((t - origin) * ratio), computed in float32."""
    squeezed = ids.clone()
    distance = (ids[TEMPORAL] - origin).to(torch.float32)
    squeezed[TEMPORAL] = origin + (distance * ratio).long()
    return squeezed


def store_squeezed(
    language: LanguageModel, cache: CompressedCache, layer: int, count: int, origin: int, ratio: float
) -> None:
    """Squeeze the ids of the last `count` tokens of a layer, and rotate their keys accordingly."""
    old = cache.positions(layer)[:, -count:]
    new = squeeze(old, origin, ratio)
    keys = cache.keys(layer)[:, -count:]
    keys.copy_(language.rotate(language.unrotate(keys, old), new))
    cache.positions(layer)[:, -count:] = new
