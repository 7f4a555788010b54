"""Expected Attention (kvpress): kept is what queries to come would attend to, if they are like those that were."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.compress.attention import Heads
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.whole_context import WholeContextEvictor
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class ExpectedAttention(WholeContextEvictor):
    """Every layer and key head keeps as many tokens, its own. `Prefill.state` holds the `Statistics` [L] of queries.

    Attributes:
        future: positions behind the video over which a query to come is averaged.
        sinks: first tokens of the prompt that neither count nor compete; the text in front of the video stays anyway.
        covariance: whether the spread of the queries counts, beside their mean.
        values: whether a token counts by the length of its value.
    """

    future: int = setting(512, least=1)
    sinks: int = setting(4, least=0)
    covariance: bool = True
    values: bool = True

    def begin(self, run: Prefill) -> None:
        super().begin(run)
        run.state = [Statistics() for _ in range(run.language.num_layers)]

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        if not run.compress or segment.tokens.stop == run.prompt.n_prompt:
            return super().feed(run, segment)
        first = max(0, self.sinks - segment.tokens.start)

        def observe(layer: int, query: torch.Tensor, key: Heads, scale: float) -> None:
            run.state[layer].scale = scale
            run.state[layer].add(run.language.unrotate(query, run.ids[layer])[:, first:].float())

        return run.forward(segment, observer=observe)

    def scores(self, run: Prefill) -> list[torch.Tensor]:
        found = []
        behind = run.prompt.positions[:, run.prompt.video_stop, None] + torch.arange(self.future)
        for layer, seen in enumerate(run.state):
            if run.cache.get_seq_length(layer) <= self.sinks:  # no query behind them was seen
                found.append(run.cache.keys(layer).new_zeros(len(run.cache.keys(layer)), run.prompt.n_video).float())
                continue
            keys, values = run.cache.keys(layer)[:, self.sinks :], run.cache.values(layer)[:, self.sinks :]
            turn = average_rotation(run, behind, keys)
            mean = seen.mean @ turn
            covariance = turn.T @ seen.covariance() @ turn if self.covariance else torch.zeros_like(seen.squares)
            expected = expected_attention(mean, covariance, keys.float(), seen.scale)
            scores = expected * values.float().norm(dim=-1) if self.values else expected
            sinks = scores.new_zeros(len(scores), self.sinks)
            found.append(torch.cat((sinks, scores), dim=1)[:, run.prompt.video.to(scores.device)])
        return found


@dataclass
class Statistics:
    """Mean [h, d] of queries before rotation, sum of squares [h, d, d] of their distances to it; chunks are merged."""

    count: int = 0
    mean: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    scale: float = 1.0

    def add(self, queries: torch.Tensor) -> None:
        """Count more queries [h, n, d]."""
        new = queries.shape[1]
        if not new:
            return
        mean = queries.mean(1)
        centred = queries - mean[:, None]
        squares, gap = centred.transpose(1, 2) @ centred, mean - self.mean
        weight = self.count * new / (self.count + new)
        self.squares = self.squares + squares + weight * gap[:, :, None] * gap[:, None]
        self.count += new
        self.mean = self.mean + gap * (new / self.count)

    def covariance(self) -> torch.Tensor:
        """[h, d, d], the mean over all queries."""
        return self.squares / max(1, self.count)


def average_rotation(run: Prefill, ids: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The mean rotation [d, d] by ids [r, n], to be multiplied from the right: row i is where basis vector i goes."""
    dim = like.shape[-1]
    basis = torch.eye(dim, device=like.device)[:, None].expand(dim, ids.shape[1], dim)
    return run.language.rotate(basis, ids).float().mean(1)


def expected_attention(mean: torch.Tensor, covariance: torch.Tensor, keys: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention [kv, m] that normally distributed queries pay to rotated keys [kv, m, d] on average, up to a factor.

    exp(q k) has the mean exp(mean k + k covariance k / 2). Softmax over the keys, mean over the query heads of a head.

    Args:
        mean: [h, d]; covariance: [h, d, d], of rotated queries.
        scale: factor on the logits.
    """
    groups, h = keys.shape[0], mean.shape[0]
    found = []
    for key, means, covariances in zip(keys, mean.chunk(groups), covariance.chunk(groups), strict=True):
        weights = torch.zeros(len(key), device=key.device)
        for m, c in zip(means, covariances, strict=True):
            logits = key @ m * scale + ((key @ c) * key).sum(-1) * (scale**2 / 2)
            weights += logits.softmax(-1)
        found.append(weights / (h // groups))
    return torch.stack(found)


METHOD = ExpectedAttention
