"""FlashVID (arXiv 2602.08024, code 1d37422): tokens that the tower attends to and that differ, the rest merged.

Merged over time where a token repeats the grid before, within segments of alike grids, and then in clusters of each
grid. Its tokens are exact in number and every place is taken once, which is not so in the code (`tokens.released`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from harness.compress.method import Method
from harness.compress.methods.flashvid.tokens import Settings, exactly
from harness.compress.two_shares import TwoShares
from harness.late import torch
from harness.settings.rules import setting

QUIRKS: Mapping[str, bool] = {
    # A merged token counts its direct children only, so that what repeats for long grows in norm. Off: all of them.
    "children_counted_once": True,
}


@dataclass(frozen=True)
class FlashVID(TwoShares):
    """See `TwoShares`.

    Attributes:
        keep_inner: share of the tokens that enter that passes the last layers (0.3; Qwen3-VL 0.1); how many enter
            follows from it: 1.25 of the mean with the published numbers.
        min_segments: segments that the video has at least; `None` = 8 (LLaVA), or 4 (Qwen).
    """

    version: ClassVar[int] = 2
    QUIRKS: ClassVar[Mapping[str, bool]] = QUIRKS
    depth: ClassVar[tuple[int, int]] = (20, 28)
    by_segment: ClassVar[bool] = False

    keep_inner: float = setting(0.3, above=0, most=1)
    min_segments: int | None = setting(None, least=1)

    def for_family(self, family: str) -> Method:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"llava_onevision": FlashVIDOnLLaVA, "qwen3_vl": FlashVIDOnQwen3VL}.get(family, FlashVID)(**values)

    def merged(self, grids: torch.Tensor, attention: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
        settings = Settings(
            self.by_segment,
            min_segments=self.min_segments or (8 if self.by_segment else 4),
            children_counted_once=self.has("children_counted_once"),
        )
        return exactly(grids, attention, total, settings)


@dataclass(frozen=True)
class FlashVIDOnLLaVA(FlashVID):
    """There tokens are picked by their likeness to the segment, too."""

    by_segment: ClassVar[bool] = True


@dataclass(frozen=True)
class FlashVIDOnQwen3VL(FlashVID):
    """There the layer is deeper; published with `keep_inner` 0.1."""

    depth: ClassVar[tuple[int, int]] = (28, 36)


METHOD = FlashVID
