"""Methods that drop hidden states before some layers, restated as eviction behind every chunk.

As published, a token that is dropped before a layer is missing there and in all layers above. Here a chunk passes all
layers whole; then each layer keeps what would have entered it, so that the sets of the layers are nested.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from harness.compress.allocation import allocate
from harness.compress.cache import Kept
from harness.compress.evict import ChunkEvictor, Counts, highest
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.scorers import LayerView
from harness.late import torch


@dataclass(frozen=True)
class StagedEvictor(ChunkEvictor):
    """Stages of consecutive layers; the attention of one layer ranks the tokens for a whole stage."""

    @abstractmethod
    def judges(self, layers: int) -> list[int]:
        """For each layer [L] the one whose attention ranks its tokens; they do not fall from layer to layer."""

    def weights(self, layers: int) -> Sequence[float]:
        """In which proportion the layers [L] share a chunk's budget; they do not rise from layer to layer."""
        return [1.0] * layers

    @abstractmethod
    def rank(self, view: LayerView) -> torch.Tensor:
        """One score [c] per token of the chunk, of a judging layer."""

    def score(self, view: LayerView) -> torch.Tensor:
        if view.layer in self.judges(view.run.language.num_layers):
            return self.rank(view)
        return torch.empty(0, device=view.queries.device)

    def layer_counts(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> Sequence[int]:
        assert segment.chunk is not None
        layers, budget = len(scores), run.trace.chunk_budget[segment.chunk]
        return allocate(self.weights(layers), layers * budget, [segment.n_video] * layers)

    def choose(self, run: Prefill, segment: Segment, scores: list[torch.Tensor], counts: Counts) -> list[Kept]:
        judges, of_layer = self.judges(len(scores)), torch.as_tensor(counts).tolist()
        kept: list[Kept] = []
        alive = torch.arange(segment.n_video)
        for judge in sorted(set(judges)):
            wanted = [count for count, j in zip(of_layer, judges, strict=True) if j == judge]
            alive = alive.to(scores[judge].device)
            best = highest(run, [scores[judge][alive]] * len(wanted), wanted)
            found = [alive[indices] for indices in best if isinstance(indices, torch.Tensor)]
            kept += found
            alive = found[-1]
        return kept
