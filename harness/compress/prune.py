"""Choosing among the video's tokens before the language model sees them.

Shapes: T grids (steps in time) of n tokens each, hidden size D; N = T * n.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.dropping import StateDropper
from harness.compress.evict import margin, video_budget
from harness.compress.method import Method, Pruned, WithQuirks
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.scorers import LayerView, received
from harness.errors import UserError
from harness.late import torch
from harness.settings.rules import setting


def density_peaks(tokens: torch.Tensor, count: int, neighbours: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters of tokens [m, D]: their centres [count], the most peaked first, and each token's cluster [m].

    A token is dense by its distances to the nearest ones, itself among them, and a peak by its distance to the nearest
    denser one. The published codes add noise of 1e-6 to the density, for two that are nearest to each other are equally
    dense; here the one of the lower index then counts as denser.
    """
    distances = torch.cdist(tokens.float(), tokens.float()) / math.sqrt(tokens.shape[1])
    nearest = distances.topk(neighbours, dim=-1, largest=False).values
    density = (-nearest.square()).mean(-1).exp()
    first = torch.ones_like(distances, dtype=torch.bool).tril(-1)  # the other one has the lower index
    denser = (density[None] > density[:, None]) | ((density[None] == density[:, None]) & first)
    apart = torch.where(denser, distances, distances.max()).amin(-1)
    centres = (apart * density).sort(descending=True, stable=True).indices[:count]
    cluster = distances[:, centres].argmin(-1)
    cluster[centres] = torch.arange(count, device=tokens.device)
    return centres, cluster


def means(tokens: torch.Tensor, cluster: torch.Tensor, count: int) -> torch.Tensor:
    """Mean of the tokens [m, D] of each cluster [count, D]."""
    total = tokens.new_zeros(count, tokens.shape[1]).index_add(0, cluster, tokens)
    return total / torch.bincount(cluster, minlength=count)[:, None].to(tokens.dtype)


_WINDOW = 64  # grids moved to the device at a time


@dataclass(frozen=True)
class Pruner(WithQuirks):
    """Keeps some of the video's tokens, as they are, and prefills the shorter prompt uncompressed.

    The context decides how many tokens stay: exactly as many as fit beside the text. With `retention` it does not; a
    share is a nominal number, and what was measured is in the trace (`n_video`, `prefilled`, `cache_length`).

    Attributes:
        retention: share of the video's tokens that stay, whatever the context; `None` = what fits the context.
    """

    retention: float | None = setting(None, above=0, most=1)

    def compresses(self, prompt: Prompt) -> bool:
        return prompt.over_context if self.retention is None else self.retention < 1

    def target(self, prompt: Prompt) -> int:
        """Tokens of the video that are to stay."""
        if self.retention is None:
            return video_budget(prompt)
        return max(1, round(self.retention * prompt.n_video))

    def prune(self, run: Prefill) -> Pruned:
        n_grids = run.prompt.n_grids
        grids = run.features[0].view(n_grids, -1, run.features[0].shape[-1])
        kept = self.keep(run, grids, self.target(run.prompt)).cpu()
        run.note_choice([kept])
        return Pruned(kept, positions=self.ids(run.prompt, kept))

    @abstractmethod
    def keep(self, run: Prefill, grids: torch.Tensor, total: int) -> torch.Tensor:
        """Which tokens stay [k] ascending, of `grids` [T, n, D] in host memory; k is `total` but for quirks."""

    def ids(self, prompt: Prompt, kept: torch.Tensor) -> torch.Tensor | None:
        """Ids [r, N - V + k] of the prompt that is left; `None` = every token keeps its own."""
        return None


@dataclass(frozen=True)
class Merger(Pruner):
    """Makes fewer tokens of the video's, by what each got in the vision tower; one stays at a member's place."""

    @property
    def needs_attention(self) -> bool:
        return True

    def entering(self, run: Prefill) -> int:
        """Tokens of the video that are to enter the model."""
        return min(self.target(run.prompt), run.prompt.n_video)

    @abstractmethod
    def merged(self, grids: torch.Tensor, attention: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [k, D] in the order in which they enter, and their numbers [k]; k is `total` but for quirks.

        Args:
            grids: [T, n, D] float32.
            attention: what each token got [T, n].
            total: how many tokens are to be left.
        """

    def keep(self, run: Prefill, grids: torch.Tensor, total: int) -> torch.Tensor:
        raise NotImplementedError("its tokens are merged, see `prune`")

    def prune(self, run: Prefill) -> Pruned:
        prompt, device = run.prompt, run.language.device
        if prompt.attention is None:
            raise UserError(f"method {self.name} needs the tower's attention: encode(..., keep_attention=True)")
        total, shape = self.entering(run), (prompt.n_grids, prompt.grid_lengths[0], -1)
        grids = run.features[0].to(device).float().view(shape)
        tokens, ids = self.merged(grids, prompt.attention.to(device).view(shape[:2]), total)
        ids = ids.cpu()
        kept = ids.sort().values
        run.note_choice([kept])
        features = (tokens.to(run.features[0].dtype), *(f[ids] for f in run.features[1:]))
        return Pruned(kept, features, self.ids(prompt, kept))


def counted_anew(prompt: Prompt, kept: torch.Tensor) -> torch.Tensor | None:
    """Ids [1, N - V + k] without gaps, where ids count tokens; `None` for M-RoPE, whose ids are places."""
    if prompt.positions.shape[0] > 1:
        return None
    return torch.arange(prompt.n_text + len(kept))[None]


def windows(grids: torch.Tensor, device: torch.device, before: int = 0) -> Iterator[torch.Tensor]:
    """Grids [T, n, D] on a device in float32, some at a time, each window with the `before` grids in front of it."""
    for start in range(0, len(grids), _WINDOW):
        part = grids[max(start - before, 0) : start + _WINDOW]
        yield part.to(device, non_blocking=True).float()


def over_windows(
    grids: torch.Tensor, device: torch.device, compute: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """What `compute` makes of each window of grids [t, n, D], put together along the grids."""
    return torch.cat([compute(window) for window in windows(grids, device)])


def highest_per_grid(run: Prefill | None, scores: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Of every grid the `counts` [T] highest scores of [T, n]: token numbers [k] ascending; ties to the lower one.

    How near the closest choice was goes into the trace of `run`.
    """
    order = scores.sort(dim=1, descending=True, stable=True).indices
    wanted = torch.tensor(counts, device=scores.device)[:, None]
    chosen = torch.arange(scores.shape[1], device=scores.device) < wanted
    chosen = torch.zeros_like(chosen).scatter(1, order, chosen)
    if run is not None:
        run.note_margin(margin(scores, chosen))
    return chosen.flatten().nonzero().flatten()


def highest_of_all(run: Prefill | None, scores: torch.Tensor, total: int) -> torch.Tensor:
    """The `total` highest of scores [N]: token numbers ascending; ties to the lower one. Notes as the above."""
    return highest_per_grid(run, scores[None], [total])


@dataclass(frozen=True)
class TwoShares(Merger, StateDropper):
    """See `Merger`; then video tokens that the last token does not look at stop passing, deep in the model (see
    `StateDropper`). Before that layer there are more tokens than the budget and behind it fewer; their mean is exact.

    Attributes:
        depth: the layer before which they are dropped, and of how many, in the published model.
        keep_inner: share of the tokens that enter that passes the last layers; how many enter follows from it.
        layer: the first layer that only these pass; `None` = as deep as `depth`.
    """

    sees_question: ClassVar[bool] = True
    reusable: ClassVar[bool] = False
    depth: ClassVar[tuple[int, int]]

    keep_inner: float = setting(0.5, above=0, most=1)
    layer: int | None = setting(None, least=1)

    def first_dropped(self, layers: int) -> int:
        """The layer before which tokens are dropped."""
        return max(1, layers * self.depth[0] // self.depth[1]) if self.layer is None else self.layer

    def drops(self, layers: int) -> list[int]:
        return [self.first_dropped(layers)]

    def rank(self, view: LayerView) -> torch.Tensor:
        n = view.queries.shape[1]
        return received(view, range(n - 1, n))

    def shares(self, prompt: Prompt, layers: int) -> tuple[int, int]:
        """Tokens that enter the model, and those that pass its last layers."""
        mean = min(self.target(prompt), prompt.n_video)
        return two_shares(mean, prompt.n_video, self.first_dropped(layers), layers, self.keep_inner)

    def entering(self, run: Prefill) -> int:
        layers = run.language.num_layers
        if not 0 < self.first_dropped(layers) < layers:
            raise UserError(f"method.layer={self.layer}: this model allows 1 to {layers - 1}")
        run.state = self.shares(run.prompt, layers)
        return int(run.state[0])

    def check_context(self, run: Prefill, slots: float) -> None:
        if self.retention is None:
            super().check_context(run, slots)

    def counts(self, layers: int, n_video: int) -> list[int] | None:
        return None

    def count(self, view: LayerView, layer: int, scores: torch.Tensor) -> int:
        return int(view.run.state[1])

    def segments(self, prompt: Prompt) -> list[Segment]:
        return Method.segments(self, prompt)

    def begin(self, run: Prefill) -> None:
        if run.compress:  # what is left may fit the context, and passes at once all the same
            run.segments = super().segments(run.prompt)
            run.trace.chunk_lengths, run.scores, run.kept_indices = [run.prompt.n_video], [None], [None]
            super().begin(run)

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        return super().feed(run, segment) if run.compress else Method.feed(self, run, segment)


def two_shares(mean: int, n_video: int, first: int, layers: int, keep_inner: float) -> tuple[int, int]:
    """Tokens in the layers before `first`, and in the others: near the published shares, and on average exactly `mean`.

    There is always such a pair near by: the common divisor of `first` and the other layers divides all layers.
    """
    rest, total = layers - first, layers * mean
    wanted = total / (first + keep_inner * rest)
    pairs = [
        (outer, (total - first * outer) // rest)
        for outer in range(mean, min(n_video, total // first) + 1)
        if (total - first * outer) % rest == 0 and 1 <= (total - first * outer) // rest
    ]
    return min(pairs, key=lambda pair: abs(pair[0] - wanted))
