"""The bound of appendix A in numbers, on instances so small that the best allocation is found by trying all.

An instance: L layers, c tokens in each, of which T are kept in all. A layer that keeps k tokens keeps its k best, which
is the most attention mass that k tokens hold; its kept mass is their share of the layer's attention. The paper's bound
on the loss of compression falls as the product over layers of kept mass rises, so an allocation is judged by that
product, as the sum of its logarithms: the log-mass. Every layer keeps at least one token, for without any there is no
mass; the gain of an allocation is its log-mass above that of one token per layer.

What is proven, and holds in every instance:
    the T highest scores of all layers together are the largest sum of kept scores of any T tokens;
    adding tokens one by one by their gain in log-mass, the greedy choice, has at least 1 - 1/e of the best gain, for
    log-mass is monotone and submodular (Nemhauser, Wolsey and Fisher 1978). As it is a sum of concave functions of the
    layers' counts, the greedy choice even is the best.
What is not, and is measured: how near the pooled choice, by score and not by gain, comes to the best gain. Layers that
have their attention in fewer tokens take from the others, so it may fall below 1 - 1/e.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from harness.compress.layers import pooled

GUARANTEE = 1 - 1 / math.e


@dataclass(frozen=True)
class Instance:
    """Scores [L, c] and how many tokens each layer keeps on average."""

    scores: torch.Tensor
    budget: int

    @property
    def total(self) -> int:
        """T."""
        return len(self.scores) * self.budget

    def log_mass(self, counts: Sequence[int]) -> float:
        """Sum over layers of the logarithm of the kept mass; minus infinity where a layer keeps nothing."""
        held = self._held()
        return sum(math.log(held[layer][k]) if held[layer][k] else -math.inf for layer, k in enumerate(counts))

    def gain(self, counts: Sequence[int]) -> float:
        """Log-mass above that of one token per layer."""
        return self.log_mass(counts) - self.log_mass([1] * len(self.scores))

    def score(self, counts: Sequence[int]) -> float:
        """Sum of the kept scores."""
        ordered = self.scores.double().sort(dim=1, descending=True).values
        return sum(float(row[:k].sum()) for row, k in zip(ordered, counts, strict=True))

    def allocations(self, least: int = 1) -> Iterator[tuple[int, ...]]:
        """All counts of at least `least` per layer that add up to T."""
        layers, length = self.scores.shape
        for counts in itertools.product(range(least, length + 1), repeat=layers - 1):
            if least <= (last := self.total - sum(counts)) <= length:
                yield (*counts, last)

    def even(self) -> list[int]:
        """As many in every layer."""
        return [self.budget] * len(self.scores)

    def pooled(self) -> list[int]:
        """What the method keeps (eq. 11 to 16), bounds and rounding included."""
        return pooled(list(self.scores), self.budget)

    def best(self) -> list[int]:
        """The largest gain, by trying all."""
        return list(max((self.log_mass(counts), counts) for counts in self.allocations())[1])

    def greedy(self) -> list[int]:
        """From one token per layer on, always the token that gains most; ties go to the lower layer."""
        held, counts = self._held(), [1] * len(self.scores)
        for _ in range(self.total - len(counts)):
            gains = [
                math.log(held[layer][k + 1] / held[layer][k]) if k + 1 < len(held[layer]) else -math.inf
                for layer, k in enumerate(counts)
            ]
            counts[gains.index(max(gains))] += 1
        return counts

    def _held(self) -> list[list[float]]:
        """Kept mass of each layer by its count, from none to all [L][c + 1]."""
        ordered = self.scores.double().sort(dim=1, descending=True).values
        masses = ordered.cumsum(1) / ordered.sum(1, keepdim=True)
        return [[0.0, *row] for row in masses.tolist()]


def instances(count: int, seed: int) -> Iterator[Instance]:
    """Random instances: attention of each layer drawn from a Dirichlet distribution, from one spike to nearly flat."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    for _ in range(count):
        layers, length = draw(2, 5), draw(4, 11)
        sharpness = 10 ** (torch.rand(layers, generator=generator) * 2.5 - 1.5)
        # Dirichlet by exponentials raised to a power would be another law; gamma draws are what it is made of.
        gamma = torch._standard_gamma(sharpness[:, None].expand(layers, length).double(), generator=generator)
        scores = gamma.clamp_min(1e-12)
        yield Instance(scores / scores.sum(1, keepdim=True), draw(1, length))


def judged(instance: Instance) -> dict[str, float]:
    """Gains as shares of the best one (1 where there is nothing to gain), and sums of kept scores."""
    most = instance.gain(instance.best())
    found: dict[str, float] = {"layers": len(instance.scores), "tokens": instance.scores.shape[1]}
    found["budget"] = instance.budget
    for name, counts in (("even", instance.even()), ("pooled", instance.pooled()), ("greedy", instance.greedy())):
        found[name] = instance.gain(counts) / most if most > 0 else 1.0
        found[f"{name}_score"] = instance.score(counts)
    return found
