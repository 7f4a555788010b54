"""Control: the budgets of AdaReTaKe, per chunk and per layer, but tokens chosen at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from harness.compress.cache import Kept
from harness.compress.evict import Counts
from harness.compress.method import Method
from harness.compress.methods.adaretake import SEMANTICS, AdaReTaKe, Options, Paper, Release2025, Release2026
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class Random(AdaReTaKe):
    """Chooses by scores drawn from (seed, chunk, layer), so that no choice depends on the order of the others.

    Attributes:
        per_layer: layers draw each for itself; otherwise all from one draw, so that layers of one count keep one set.
    """

    seed: int = 0
    per_layer: bool = setting(True, neutral=True)

    @property
    def sees_question(self) -> bool:  # type: ignore[override]
        """Only through the budgets: those of layers, and of the 2025 release over time, come from its scores."""
        by_scores = self.semantics == "release_2025" and self.quirks.get("heavy_hitter_adaptation", True)
        return self.layers or (self.temporal and by_scores)

    @property
    def reusable(self) -> bool:  # type: ignore[override]
        return not self.sees_question

    @classmethod
    def implementations(cls) -> Mapping[str, type[Options]]:
        return dict(zip(SEMANTICS, (RandomPaper, RandomRelease2025, RandomRelease2026), strict=True))

    def for_family(self, family: str) -> Method:
        values = {f.name: getattr(self, f.name) for f in fields(Random)}
        return self.implementations()[self.semantics](**values).for_family(family)

    def choose(self, run: Prefill, segment: Segment, scores: list[torch.Tensor], counts: Counts) -> list[Kept]:
        chosen: list[Kept] = []
        for layer, count in enumerate(torch.as_tensor(counts).tolist()):
            seed = (self.seed * 1_000_003 + (segment.chunk or 0)) * 1_000_003 + (layer if self.per_layer else 0)
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.rand(scores[layer].shape[0], generator=generator)
            chosen.append(drawn.topk(count).indices.sort().values.to(scores[layer].device))
        return chosen


@dataclass(frozen=True)
class RandomPaper(Random, Paper):
    """Budgets of semantics paper."""

    for_family = Paper.for_family


@dataclass(frozen=True)
class RandomRelease2025(Random, Release2025):
    """Budgets of semantics release_2025."""

    for_family = Release2025.for_family


@dataclass(frozen=True)
class RandomRelease2026(Random, Release2026):
    """Budgets of semantics release_2026."""

    for_family = Release2026.for_family


METHOD = Random
