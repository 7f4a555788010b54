"""Control: the budgets of AdaReTaKe, per chunk and per layer, but tokens chosen at random."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from harness.compress.method import Method, MethodOptions
from harness.compress.methods import adaretake


def build(options: MethodOptions, family: str) -> Method:
    return dataclasses.replace(adaretake.build(options, family), choose=RandomChoice(options.seed))


@dataclasses.dataclass(frozen=True)
class RandomChoice:
    """Chooses by scores drawn from (seed, chunk, layer), so that no choice depends on the order of the others."""

    seed: int

    def __call__(self, scores: torch.Tensor, counts: Sequence[int], *, chunk: int) -> list[torch.Tensor]:
        chosen = []
        for layer, count in enumerate(counts):
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + chunk) * 1_000_003 + layer)
            drawn = torch.rand(scores.shape[1], generator=generator)
            chosen.append(drawn.topk(count).indices.sort().values.to(scores.device))
        return chosen
