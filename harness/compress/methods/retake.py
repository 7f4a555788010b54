"""ReTaKe (arXiv 2412.20504), as its code: PivotKV, optionally with the key frames and key patches of DPSelect.

A chunk scores itself, so no question is needed; the same share of every chunk stays in every layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from harness.compress.cache import Kept
from harness.compress.evict import Counts
from harness.compress.method import Method, Pruned, checked_quirks
from harness.compress.methods.adaretake.release import half_of_a_short_video, highest_by_topk
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.reforge import ReforgingEvictor
from harness.compress.scorers import LayerView
from harness.late import F, torch
from harness.settings.rules import setting

_WINDOW = 3  # grids over which a change has to be the largest


def key_patches(features: torch.Tensor, tokens_per_grid: int, device: torch.device, *, synced: bool) -> torch.Tensor:
    """Mask [V] (host) of the tokens whose change from the grid before is the largest within three grids.

    The first grid counts as changed by 1.

    Args:
        features: [V, d].
        synced: decide for whole grids, by the mean over their patches, instead of for each patch position.
    """
    change = _changes(features, tokens_per_grid, device, synced)
    return _peaks(change).expand(-1, tokens_per_grid).reshape(-1).cpu()


def key_frames(
    features: torch.Tensor, tokens_per_grid: int, device: torch.device, *, ratio: float, synced: bool
) -> torch.Tensor:
    """The grids [T', n] (host), ascending, that stay at each patch position: peaks first, then those that changed most.

    T' = round(ratio * G), at least 1; among equal changes the earlier grid stays. Arguments as of `key_patches`.
    """
    change = _changes(features, tokens_per_grid, device, synced)
    count = max(1, round(ratio * len(change)))
    ranked = (change + 2 * _peaks(change)).sort(dim=0, descending=True, stable=True).indices
    return ranked[:count].sort(dim=0).values.expand(-1, tokens_per_grid).cpu()


def _changes(features: torch.Tensor, tokens_per_grid: int, device: torch.device, synced: bool) -> torch.Tensor:
    """Cosine distance to the grid before at each patch position [G, n], or its mean over them [G, 1]."""
    grids = features.view(-1, tokens_per_grid, features.shape[-1])
    changes = [torch.ones(1, tokens_per_grid, device=device)]
    for before, after in zip(grids[:-1].split(64), grids[1:].split(64), strict=True):
        similarity = F.cosine_similarity(before.to(device), after.to(device), dim=-1)
        changes.append(1 - similarity.float())
    change = torch.cat(changes)  # [G, n]
    return change.mean(dim=1, keepdim=True) if synced else change


def _peaks(change: torch.Tensor) -> torch.Tensor:
    """Which entries [G, p] are the largest of their window, the earlier one of equals."""
    peak = F.max_pool1d(change.T[None], _WINDOW, stride=1, padding=_WINDOW // 2, return_indices=True)[1][0].T
    return peak == torch.arange(len(change), device=change.device)[:, None]


QUIRKS = {
    # Mark key patches and prefer them. The published configurations do so except for Video-MME with Qwen2-VL.
    "key_patches": False,
    # Key patches, and key frames, are decided for whole grids. Off: for each patch position, as published.
    "key_patches_synced": False,
    # A key patch is given score 1, which is the mean of all scores, though it was meant to come first. Off: first.
    "key_patches_at_mean": True,
    # Key frames have the ids of as many first grids, whichever they are, and the question those that it had behind the
    # whole video. Off: every token has its own ids.
    "key_frames_take_first_ids": True,
    # PivotKV's ratio is that of the prompt before frames were dropped, so that less than the context stays. Off: of
    # what is left.
    "ratio_before_frames_are_dropped": True,
    # Scores are computed and summed in the number format of the model. Off: in float32.
    "scores_in_model_precision": True,
}


@dataclass(frozen=True)
class ReTaKe(ReforgingEvictor):
    """PivotKV; `Prefill.state` holds the mask [V] of key patches, where they are marked.

    Attributes:
        frame_ratio: share of the grids that DPSelect keeps, at every patch position; 1 drops nothing, as in every
            published configuration.
        quirks: see `QUIRKS`.
    """

    uses_guide: ClassVar[bool] = False
    sees_question: ClassVar[bool] = False
    reusable: ClassVar[bool] = True

    frame_ratio: float = setting(1.0, above=0, most=1, neutral=1.0)
    quirks: dict[str, bool] = field(default_factory=dict)

    def for_family(self, family: str) -> Method:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["quirks"] = checked_quirks(self.quirks, QUIRKS, f"method {self.name}")
        return (ReTaKeOnQwen2VL if family == "qwen2_vl" else ReTaKe)(**values)

    @property
    def squeezes_towards(self) -> Literal["segment", "chunk", "kept"]:
        return "kept"

    @property
    def rounds_scores(self) -> bool:
        return self.quirks["scores_in_model_precision"]

    def squeeze_ratio(self, run: Prefill, n_kept: int, n_judged: int) -> float:
        return n_kept / n_judged

    def compresses(self, prompt: Prompt) -> bool:
        return prompt.over_context or self.frame_ratio < 1

    def prune(self, run: Prefill) -> Pruned | None:
        if self.frame_ratio == 1:
            return None
        n, synced = run.prompt.grid_lengths[0], self.quirks["key_patches_synced"]
        features, device = run.features[0], run.language.device
        grids = run.of_video(
            ("key_frames", self.frame_ratio, synced),
            lambda: key_frames(features, n, device, ratio=self.frame_ratio, synced=synced),
        )
        kept = (grids * n + torch.arange(n)).flatten()  # in the order of the grids kept at each patch position
        moved = self.quirks["key_frames_take_first_ids"]
        kept = kept if moved else kept.sort().values
        if self.quirks["key_patches"]:
            run.state = self._key_patches(run)[kept]
        if moved:
            return Pruned(torch.arange(len(kept)), tuple(feature[kept] for feature in run.features))
        return Pruned(kept)

    def _key_patches(self, run: Prefill) -> torch.Tensor:
        n, synced = run.prompt.grid_lengths[0], self.quirks["key_patches_synced"]
        return key_patches(run.features[0], n, run.language.device, synced=synced)

    def cut(self, prompt: Prompt) -> list[int]:
        return half_of_a_short_video(prompt, self.chunk_frames)

    def begin(self, run: Prefill) -> None:
        super().begin(run)
        if run.compress:
            run.trace.chunk_ratio = [self._ratio(run)] * len(run.trace.chunk_lengths)
        if run.compress and self.quirks["key_patches"] and run.state is None:
            run.state = self._key_patches(run)

    def _ratio(self, run: Prefill) -> float:
        """The share of every chunk that may stay."""
        before = self.quirks["ratio_before_frames_are_dropped"]
        length = run.prompt.n_text + (run.trace.n_encoded if before else run.prompt.n_video)
        return 1.0 if run.prompt.context is None else min(1.0, run.prompt.context / length)

    def budgets(self, run: Prefill, lengths: Sequence[int]) -> list[int]:
        return [max(1, int(self._ratio(run) * c)) for c in lengths]

    def score(self, view: LayerView) -> torch.Tensor:
        """Attention that each token gets from its whole chunk, later tokens included."""
        scores = self.attention(view, "chunk")
        if view.run.state is None:
            return scores
        first = 1.0 if self.quirks["key_patches_at_mean"] else float("inf")
        return scores.masked_fill(view.run.state[view.segment.video].to(scores.device), first)

    def choose(self, run: Prefill, segment: Segment, scores: list[torch.Tensor], counts: Counts) -> list[Kept]:
        return highest_by_topk(run, scores, counts)


@dataclass(frozen=True)
class ReTaKeOnQwen2VL(ReTaKe):
    """As that family's code does it: an in-place write moves all rows of a decoded token."""

    @property
    def shifts_all_rows_of_decoded(self) -> bool:
        return True


METHOD = ReTaKe
