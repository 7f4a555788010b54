"""What the two public releases of AdaReTaKe have in common, each of their quirks as one switch.

A release works with shares of a chunk ("ratios") where the paper works with whole tokens. The arithmetic is float32
wherever the releases' is, because rounding down to whole tokens shows the difference.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from harness.compress.allocation import allocate
from harness.compress.cache import Kept
from harness.compress.evict import ChunkEvictor, Counts, margin, video_budget
from harness.compress.method import Method, checked_quirks
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment, cut, whole_grids
from harness.compress.reforge import ReforgingEvictor
from harness.compress.scorers import LayerView
from harness.errors import UserError
from harness.late import torch

SEMANTICS = ("paper", "release_2025", "release_2026")


@dataclass(frozen=True)
class Options(ChunkEvictor):
    """What a configuration says, whatever the semantics.

    Attributes:
        semantics: one of `SEMANTICS`.
        temporal: chunks share the budget by how much changes in them; otherwise by their length.
        layers: layers share a chunk's budget by their scores; otherwise evenly.
        max_guide_length: at most so many of the last prompt tokens score a chunk; `None` = all text after the video.
        reforge: temporal ids are squeezed; releases only. `None` leaves it to the task.
        quirks: deviations of a release from the paper, each to be switched off alone.
    """

    semantics: str = "paper"
    temporal: bool = True
    layers: bool = True
    reforge: bool | None = None
    quirks: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.semantics not in SEMANTICS:
            allowed = ", ".join(SEMANTICS)
            raise UserError(f"unknown semantics {self.semantics!r}: allowed are {allowed}; set method.semantics=paper")


FLOOR = 0.01  # least share of a chunk that a layer keeps
HEAVY = 0.01  # a heavy hitter scores more than this share of the chunk's largest score
ADAPTATION = 4.0  # `temporal_adaptation_ratio` of every published configuration

SHARED_QUIRKS = {
    # The ratio is context / prompt; the text, which is never evicted, is not subtracted. Off: budget / video tokens.
    "ratio_of_whole_prompt": True,
    # Fewer grids than `chunk_frames`: chunks of half the video. Off: chunks of `chunk_frames` frames.
    "halved_short_videos": True,
    # The first chunk is evicted by the scores of the text before the video: all equal, and only for the last so many
    # tokens; the rest stays whole. Off: by its own scores.
    "stale_first_chunk": True,
    # Layer allocation: every layer starts with one hit. Off: with none.
    "hits_start_at_one": True,
    # A layer keeps at least 1 % of a chunk, and counts are rounded down, without taking it from other layers.
    # Off: the layers' counts add up to the chunk's budget.
    "floor_not_renormalised": True,
    # Scores are computed and summed in the number format of the model: in bfloat16 many of them are equal. Of the
    # tokens that float32 puts into the top eighth, 0.56 to 0.98 are then kept (key biases of 800 down to 0).
    # Off: in float32.
    "scores_in_model_precision": True,
    # Reforge: scores use queries and keys from before rotation. Off: after rotation, as without reforge.
    "content_scores": True,
    # Reforge: ids are squeezed by the sample's ratio. Off: by the share of the chunk that the layer keeps.
    "reforge_by_sample_ratio": True,
}


TEXT_SCORE = 1000.0  # what a release gives every token of a text segment


@dataclass(frozen=True)
class Release(ReforgingEvictor, Options):
    """The stages in which both releases agree; a release adds its own quirks.

    `Prefill.state` holds the chunks' shares [K].

    Attributes:
        family: of the model; set by `for_family`.
    """

    defaults: ClassVar[Mapping[str, bool]] = SHARED_QUIRKS
    by_heavy_hitters: ClassVar[bool] = False

    family: str | None = None

    def for_family(self, family: str) -> Method:
        self.check_family(family)
        known = self.known_quirks(family)
        quirks = checked_quirks(self.quirks, known, f"method {self.name} with semantics {self.semantics}")
        return dataclasses.replace(self, family=family, quirks=quirks)

    def check_family(self, family: str) -> None:
        """Raise UserError where this release does not exist for a family."""

    def known_quirks(self, family: str) -> dict[str, bool]:
        """All quirks of this release on a family, as the release has them."""
        return dict(self.defaults)

    @property
    def scores_content(self) -> bool:
        return bool(self.reforge) and self.quirks["content_scores"]

    @property
    def rounds_scores(self) -> bool:
        return self.quirks["scores_in_model_precision"]

    def squeeze_ratio(self, run: Prefill, n_kept: int, n_judged: int) -> float:
        if not self.quirks["reforge_by_sample_ratio"]:
            return n_kept / n_judged
        return super().squeeze_ratio(run, n_kept, n_judged)

    def cut(self, prompt: Prompt) -> list[int]:
        rule = half_of_a_short_video if self.quirks["halved_short_videos"] else whole_grids
        return rule(prompt, self.chunk_frames)

    def begin(self, run: Prefill) -> None:
        if not run.compress:
            return
        trace = run.trace
        run.state = trace.chunk_ratio = self.shares(run, trace.chunk_lengths)
        trace.chunk_budget = [int(r * c) for r, c in zip(run.state, trace.chunk_lengths, strict=True)]

    def shares(self, run: Prefill, lengths: Sequence[int]) -> list[float]:
        """The share of each chunk that may stay [K]; here the sample's for all."""
        return [self.sample_ratio(run.prompt)] * len(lengths)

    def sample_ratio(self, prompt: Prompt) -> float:
        """C / N, or budget / video tokens."""
        return sample_ratio(prompt, of_whole_prompt=self.quirks["ratio_of_whole_prompt"])

    def score(self, view: LayerView) -> torch.Tensor:
        return self.attention(view, "guide")

    def _stale(self, run: Prefill, segment: Segment) -> bool:
        return self.quirks["stale_first_chunk"] and segment.chunk == 0 and run.prompt.video_start > 0

    def judged(self, run: Prefill, segment: Segment) -> int:
        return run.prompt.video_start if self._stale(run, segment) else segment.length

    def judge(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> list[Kept]:
        if self._stale(run, segment):
            text = torch.full((run.prompt.video_start,), TEXT_SCORE, dtype=scores[0].dtype, device=scores[0].device)
            scores = [text] * len(scores) + scores
        return super().judge(run, segment, scores)

    def layer_counts(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> Counts:
        share = LayerShares(
            by_hits=self.layers,
            hits_start_at_one=self.quirks["hits_start_at_one"],
            floor_not_renormalised=self.quirks["floor_not_renormalised"],
            by_heavy_hitters=self.by_heavy_hitters and self.temporal and self.quirks["heavy_hitter_adaptation"],
        )
        return share(scores, run.state[segment.chunk], run.language.num_layers)

    def choose(self, run: Prefill, segment: Segment, scores: list[torch.Tensor], counts: Counts) -> list[Kept]:
        return highest_by_topk(run, scores[: run.language.num_layers], counts)

    def note(self, run: Prefill, segment: Segment, kept: Sequence[Kept], scores: list[torch.Tensor]) -> None:
        assert segment.chunk is not None
        indices = [of_layer for of_layer in kept if isinstance(of_layer, torch.Tensor)]
        run.note_choice(indices)
        # What was judged may reach into the text in front of the chunk, or leave the chunk's first tokens untouched.
        offset = segment.length - self.judged(run, segment)
        if offset < 0:
            indices = [i[i + offset >= 0] for i in indices]
        run.trace.kept.append([len(i) + max(offset, 0) for i in indices])
        if run.record:
            untouched = torch.arange(max(offset, 0))
            run.kept_indices[segment.chunk] = [torch.cat((untouched, i.cpu() + offset)) for i in indices]


def half_of_a_short_video(prompt: Prompt, chunk_frames: int) -> list[int]:
    """Chunk lengths in tokens as both releases cut: frames are compared with grids before halving.

    A video of fewer grids than `chunk_frames` is therefore cut into chunks of half its length, not in chunks of
    `chunk_frames` frames, and a chunk may end inside a grid.
    """
    size = min(chunk_frames, prompt.n_grids) * max(prompt.grid_lengths) // prompt.frames_per_grid
    return cut(prompt.n_video, max(1, size))


def highest_by_topk(run: Prefill, scores: Sequence[torch.Tensor], counts: Counts) -> list[Kept]:
    """Per layer the indices [count] of its highest scores, ascending; among equal scores torch.topk decides."""
    stacked = torch.stack([s.to(scores[0].device) for s in scores])  # small: [L, c]
    kept = [row.topk(count).indices.sort().values for row, count in zip(stacked, counts, strict=True)]
    chosen = torch.zeros_like(stacked, dtype=torch.bool)
    for row, indices in zip(chosen, kept, strict=True):
        row[indices] = True
    run.note_margin(margin(stacked, chosen))
    return list(kept)


def sample_ratio(prompt: Prompt, *, of_whole_prompt: bool) -> float:
    """The share of every chunk that may stay: C / N, or budget / video tokens."""
    assert prompt.context is not None
    if of_whole_prompt:
        return prompt.context / prompt.n_prompt
    return video_budget(prompt) / prompt.n_video


@dataclass(frozen=True)
class LayerShares:
    """Layer allocator of the releases: a share of the chunk per layer, then rounded down.

    Attributes:
        by_hits: "adakv": shares follow each layer's hits among the top scores of all layers; otherwise "even".
        hits_start_at_one, floor_not_renormalised: see `SHARED_QUIRKS`.
        by_heavy_hitters: scale each layer's share by how many heavy hitters it has (2025's temporal adaptation).
    """

    by_hits: bool
    hits_start_at_one: bool = True
    floor_not_renormalised: bool = True
    by_heavy_hitters: bool = False

    def __call__(self, scores: Sequence[torch.Tensor], ratio: float, num_layers: int) -> list[int]:
        length = scores[0].shape[0]
        shares = self._shares(scores, ratio, num_layers).tolist()
        if self.by_heavy_hitters:
            factors = _heavy_hitter_factors(scores[:num_layers])
            shares = [min(1.0, g * r) for g, r in zip(factors, shares, strict=True)]
        if self.floor_not_renormalised:
            return [min(length, max(1, int(max(FLOOR, r) * length))) for r in shares]
        total = round(sum(min(r, 1.0) for r in shares) * length)
        return allocate(shares, min(max(total, num_layers), num_layers * length), [length] * num_layers)

    def _shares(self, scores: Sequence[torch.Tensor], ratio: float, num_layers: int) -> torch.Tensor:
        if not self.by_hits:
            return ratio * torch.ones(num_layers)
        length, device = scores[0].shape[0], scores[0].device
        pooled = torch.cat([s.to(device) for s in scores])
        top = min(int(max(1, ratio * length) * num_layers), pooled.shape[0])
        layer = pooled.topk(top).indices // length
        # With the stale scores of text in front, an index may lie behind the last layer; such a hit counts for none.
        hits = (layer == torch.arange(num_layers, device=device)[:, None]).sum(dim=1).to("cpu", torch.float32)
        hits += 1 if self.hits_start_at_one else 0
        return (num_layers * ratio) * (hits / hits.sum())


def _heavy_hitter_factors(scores: Sequence[torch.Tensor]) -> list[float]:
    """Per layer between 1/2 and 2, neutral when a quarter of the tokens are heavy hitters."""
    device = scores[0].device
    counts = torch.stack([(s > HEAVY * s.max()).sum().to(device) for s in scores]).tolist()
    return [min(2.0, max(0.5, math.sqrt(ADAPTATION * (n / len(s))))) for n, s in zip(counts, scores, strict=True)]
