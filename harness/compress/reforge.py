"""Position reforging: squeezing the temporal ids of kept tokens, so that a long video stays within trained positions.

Only the releases and ReTaKe do this. Ids are kept per layer on the host; the keys are rotated back and rotated again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from harness.compress.cache import CompressedCache
from harness.compress.language import LanguageModel
from harness.compress.positions import TEMPORAL


@dataclass(frozen=True)
class Reforge:
    """Attributes:
    shift: at each layer, before rotation, a segment's temporal row is moved behind the layer's last cached one.
    shift_all_rows_of_decoded: the shift of a decoded token moves height and width too.
    origin: temporal ids are squeezed towards the smallest id of the `segment` (chunk and guide), the `chunk`, or its
        `kept` tokens.
    by_kept_share: squeeze by the kept share of the chunk instead of by the sample's ratio.
    """

    shift: bool = True
    shift_all_rows_of_decoded: bool = False
    origin: Literal["segment", "chunk", "kept"] = "segment"
    by_kept_share: bool = False

    def layer_positions(
        self, cache: CompressedCache, ids: torch.Tensor, *, decoded: bool = False
    ) -> list[torch.Tensor] | None:
        """Ids [r, n] of a segment for each layer; `None` when all layers use `ids`."""
        if not self.shift:
            return None
        rows = slice(None) if decoded and self.shift_all_rows_of_decoded else slice(TEMPORAL, TEMPORAL + 1)
        result = []
        for layer in range(cache.num_layers):
            last = int(cache.positions(layer)[TEMPORAL, -1]) if cache.get_seq_length(layer) else -1
            moved = ids.clone()
            moved[rows] += last + 1 - int(ids[TEMPORAL, 0])
            result.append(moved)
        return result


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
