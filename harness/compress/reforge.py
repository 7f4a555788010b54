"""Position reforging: squeezing the temporal ids of kept tokens, so that a long video stays within trained positions.

Only the releases and ReTaKe do this. Ids are kept per layer on the host; the keys are rotated back and rotated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.compress.cache import CompressedCache, Kept
from harness.compress.evict import ChunkEvictor
from harness.compress.language import LanguageModel
from harness.compress.positions import TEMPORAL
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.scorers import LayerView, attention_received
from harness.late import torch


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

    def attention(self, view: LayerView, queries: Literal["guide", "chunk"]) -> torch.Tensor:
        """Attention [c] that the chunk's tokens get from the guide, or from each other, under the rules above."""
        view = view.unrotated() if self.scores_content else view
        asking = view.guide_queries if queries == "guide" else view.chunk_queries
        if self.rounds_scores:
            return attention_received(asking, view.chunk_keys, view.scale, rounded=True)
        return attention_received(asking.float(), view.chunk_keys.float(), view.scale)

    @property
    def tracks_positions(self) -> bool:
        return bool(self.reforge) and self.shifts

    def layer_ids(self, run: Prefill, ids: torch.Tensor, *, decoded: bool) -> list[torch.Tensor] | None:
        if not self.reforge or not self.shifts:
            return None
        rows = slice(None) if decoded and self.shifts_all_rows_of_decoded else slice(TEMPORAL, TEMPORAL + 1)
        first, moved = int(ids[TEMPORAL, 0]), {}
        lasts = run.cache.last_ids(TEMPORAL)
        for last in set(lasts):  # layers that end alike share one tensor, so that its rotation is computed once
            moved[last] = ids.clone()
            moved[last][rows] += last + 1 - first
        return [moved[last] for last in lasts]

    def judged(self, run: Prefill, segment: Segment) -> int:
        """Tokens at the end of the cache that the scores decide about."""
        return segment.length

    def evict(self, run: Prefill, segment: Segment, kept: Sequence[Kept]) -> None:
        judged = self.judged(run, segment)
        indices = [of_layer for of_layer in kept if isinstance(of_layer, torch.Tensor)]
        for layer, of_layer in enumerate(indices):
            run.cache.keep_of_last(layer, judged, of_layer)
        if self.reforge:
            self._squeeze(run, segment, indices, judged)

    def _squeeze(self, run: Prefill, segment: Segment, kept: Sequence[torch.Tensor], judged: int) -> None:
        squeezed: dict[tuple[int, int, float], tuple[torch.Tensor, torch.Tensor]] = {}  # layers with equal ids share
        offset = segment.length - judged  # tokens of the segment that were not judged, or of the text before that were
        for layer, indices in enumerate(kept):
            ids, ratio = run.ids[layer], self.squeeze_ratio(run, len(indices), judged)
            old = ids[:, : segment.length]
            if self.squeezes_towards == "kept":
                old = old.to(indices.device)
                change = old, squeeze(old, old[TEMPORAL, indices].min(), ratio)
            else:
                origin = int((ids if self.squeezes_towards == "segment" else old)[TEMPORAL].min())
                key = id(ids), origin, ratio
                if key not in squeezed:
                    squeezed[key] = old, squeeze(old, origin, ratio)
                change = squeezed[key]
            places = indices + offset
            if offset > 0:
                places = torch.cat((torch.arange(offset, device=places.device), places))
            elif offset < 0:
                places = places[places >= 0]
            rotate_again(run.language, run.cache, layer, *change, places)


def squeeze(ids: torch.Tensor, origin: int | torch.Tensor, ratio: float) -> torch.Tensor:
    """Ids [r, n] with temporal t replaced by origin + int((t - origin) * ratio), computed in float32."""
    squeezed = ids.clone()
    distance = (ids[TEMPORAL] - origin).to(torch.float32)
    squeezed[TEMPORAL] = origin + (distance * ratio).long()
    return squeezed


def rotate_again(
    language: LanguageModel,
    cache: CompressedCache,
    layer: int,
    old: torch.Tensor,
    new: torch.Tensor,
    places: torch.Tensor,
) -> None:
    """Rotate the keys of the last k tokens of a layer by `new` ids [r, n] where they were by `old`.

    Of these ids the tokens have those at `places` [k].
    """
    keys = cache.keys(layer)[:, cache.get_seq_length(layer) - places.numel() :]
    keys.copy_(language.rotate(language.unrotate(keys, old, places), new, places))
    cache.change_positions(layer, new[:, places.to(new.device)])
