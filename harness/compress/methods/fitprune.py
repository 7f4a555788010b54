"""FitPrune (arXiv 2409.10197): a recipe, fitted offline, says how much each layer keeps; attention says what."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from harness.compress.allocation import allocate
from harness.compress.cache import Kept
from harness.compress.dropping import StagedEvictor
from harness.compress.evict import Counts
from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.recipe import Recipe, fit_command, read_recipe, removed_at
from harness.compress.scorers import LayerView, causal_weights, guide_rows, together, video_columns
from harness.errors import UserError
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class FitPrune(StagedEvictor):
    """Layers share a chunk's budget as the recipe's row of the nearest share says; each chooses among what is left.

    A token's score is the product of the attention that it gets from the guide and from the chunk's video tokens, each
    the largest over heads. As published a layer removes tokens behind its own attention and still caches them; here
    what it removes leaves its own cache too. `Prefill.state` is the recipe.

    Attributes:
        recipe: its file; `python -m harness fit method=fitprune` writes it.
        recipe_digest: of the file, filled in when a run is planned, so that a new recipe makes new answers.
    """

    recipe: str | None = setting(None, runtime=True)
    recipe_digest: str | None = None

    def settled(self, weights: str, words: Sequence[str] = ()) -> Method:
        recipe, digest = self._read(words)
        if weights not in ("unknown", recipe.weights):
            raise UserError(
                f"method.recipe={self.recipe} was fitted for other weights ({recipe.weights}, these are {weights}): "
                f"set another method.recipe=FILE and fit it: {fit_command(words)}"
            )
        return dataclasses.replace(self, recipe_digest=digest)

    def calibrator(self) -> Method:
        """What watches calibration videos: the scores that it records are those of `fit_recipe`."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Calibrator(**values)

    def begin(self, run: Prefill) -> None:
        super().begin(run)
        if not run.compress:
            return
        run.state, digest = self._read()
        if self.recipe_digest not in (None, digest):
            raise UserError(f"method.recipe={self.recipe} has changed since the run was planned: start it again")
        if len(run.state.rows[0].kept) != run.language.num_layers:
            raise UserError(
                f"method.recipe={self.recipe} is of a model of {len(run.state.rows[0].kept)} layers, this one has "
                f"{run.language.num_layers}: {fit_command()}"
            )

    def _read(self, words: Sequence[str] | None = None) -> tuple[Recipe, str]:
        if self.recipe is None:
            raise UserError(
                f"method.recipe=null: method fitprune needs a recipe of this model; fit it: {fit_command(words)}"
            )
        return read_recipe(self.recipe, words)

    def judges(self, layers: int) -> list[int]:
        return list(range(layers))

    def layer_counts(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> Sequence[int]:
        assert segment.chunk is not None
        layers, budget = len(scores), run.trace.chunk_budget[segment.chunk]
        kept = run.state.row(budget / segment.n_video).kept
        return allocate(kept, layers * budget, [segment.n_video] * layers)

    def rank(self, view: LayerView) -> torch.Tensor:
        cross, own = cross_and_own(view)
        return cross * own


@dataclass(frozen=True)
class Calibrator(FitPrune):
    """Keeps everything; its scores are the alpha from which on a layer would remove each token."""

    def compresses(self, prompt: Prompt) -> bool:
        return True

    def begin(self, run: Prefill) -> None:
        """Everything is kept, so there is no budget to decide."""

    def rank(self, view: LayerView) -> torch.Tensor:
        return removed_at(*cross_and_own(view))

    def judge(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> list[Kept]:
        return [torch.arange(segment.n_video, device=of_layer.device) for of_layer in scores]

    def layer_counts(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> list[int]:
        return [segment.n_video] * len(scores)

    def choose(self, run: Prefill, segment: Segment, scores: list[torch.Tensor], counts: Counts) -> list[Kept]:
        return self.judge(run, segment, scores)


def cross_and_own(view: LayerView) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention [c] that video tokens get from the guide, and from the chunk's video tokens, by the number of these.

    Causal over all that is cached; of each weight the largest over heads.
    """
    assert view.context is not None
    columns, n = video_columns(view), view.queries.shape[1]
    guide = guide_rows(view)
    video = list(range(n - view.n_guide)) if view.places is None else view.places.tolist()
    found = []
    for rows in (guide, video):
        total = torch.zeros(len(columns), device=view.queries.device)
        for _, weights in causal_weights(view.queries, together(view.context), view.scale, rows):
            total += weights.amax((0, 1)).index_select(-1, columns).sum(0)
        found.append(total / max(1, len(rows)))
    return found[0], found[1]


METHOD = FitPrune
