"""FitPrune (arXiv 2409.10197): a recipe, fitted offline, says how much each layer keeps; attention says what."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import advice
from harness.compress.allocation import allocate
from harness.compress.cache import Kept
from harness.compress.dropping import StagedEvictor
from harness.compress.evict import Counts
from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.scorers import LayerView, causal_weights, guide_rows, together, video_columns
from harness.errors import UserError
from harness.late import torch
from harness.places import find
from harness.records import write_atomic
from harness.settings.rules import setting

TARGETS = tuple(2 ** (-step / 2) for step in range(1, 17))
"""Shares kept on average over layers that a recipe has a row for: from 0.71 down to 1/256."""


@dataclass(frozen=True)
class RecipeRow:
    """What each layer keeps where `target` is kept on average.

    Attributes:
        target: the average.
        alpha: largest share of a layer's attention that what it removes may take.
        kept: shares [L], falling.
    """

    target: float
    alpha: float
    kept: list[float]


@dataclass(frozen=True)
class Recipe:
    """A fit: of which weights (digest), on how many samples, and its rows by falling target."""

    weights: str
    samples: int
    rows: list[RecipeRow]

    def row(self, share: float) -> RecipeRow:
        """The row whose target is nearest to a share, by ratio."""
        return min(self.rows, key=lambda row: abs(math.log(row.target) - math.log(max(share, 1e-9))))

    def write(self, path: Path) -> None:
        """Store it; the folder is made.

        Raises:
            UserError: it cannot be written.
        """
        try:
            write_atomic(path, json.dumps(asdict(self), indent=1) + "\n")
        except UserError as error:
            raise UserError(f"method.recipe={path} cannot be written: {error.__cause__}; name another file") from error


def fit_command(words: Sequence[str] | None = None) -> str:
    """What makes a recipe.

    Args:
        words: settings of the command line that needs it; without them the command is that of the toy.
    """
    if words is None:
        by_default = advice.harness("fit", (), "method=fitprune")
        return f"{by_default} (another model: with its profile, model and fit.samples=FILE)"
    said = [word for word in words if re.split(r"[.=]", word)[0] not in ("matrix", "task", "fit")]
    samples = [word for word in words if word.startswith("fit.samples=")] or ["fit.samples=FILE"]
    return advice.harness("fit", said, "method=fitprune", *(samples if "profile=published" in words else []))


def read_recipe(path: str, words: Sequence[str] | None = None) -> tuple[Recipe, str]:
    """A recipe, and the digest of its file; `words` as in `fit_command`.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    again = fit_command(words)
    try:
        data = find(path).read_bytes()
    except OSError as error:
        raise UserError(f"method.recipe={path} does not exist or cannot be read; fit it: {again}") from error
    try:
        found = json.loads(data)
        rows = [RecipeRow(float(r["target"]), float(r["alpha"]), [float(x) for x in r["kept"]]) for r in found["rows"]]
        recipe = Recipe(str(found["weights"]), int(found["samples"]), rows)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"method.recipe={path} is no recipe ({error!r}); {_again(path, again)}") from error
    if not rows or len({len(row.kept) for row in rows}) != 1 or not rows[0].kept:
        raise UserError(f"method.recipe={path} has rows that differ in layers, or none; {_again(path, again)}")
    return recipe, hashlib.sha256(data).hexdigest()[:16]


def _again(path: str, fit: str) -> str:
    return f"fit it again: {advice.aside(find(path))} && {fit}"


def share_below(mass: torch.Tensor) -> torch.Tensor:
    """For each token [c] the share of all mass that it and all tokens of less mass have; ties by index."""
    order = torch.sort(mass, stable=True).indices
    shares = mass[order].double().cumsum(0) / mass.double().sum().clamp_min(torch.finfo(torch.float64).tiny)
    return torch.empty_like(shares).scatter(0, order, shares)


def removed_at(cross: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """The alpha [c] from which on a layer removes each token.

    At alpha a layer removes the tokens that are both among those of least attention from the text, as many as together
    have no more than the share alpha of it, and among those of least attention from the video.
    """
    return torch.maximum(share_below(cross), share_below(own))


def fit_recipe(chunks: Iterable[Sequence[torch.Tensor]], weights: str, samples: int) -> Recipe:
    """A recipe from what calibration chunks give.

    What a layer removes is missing above it, so a token is left behind a layer while no layer up to there has removed
    it. For each target, alpha is the smallest at which no more than the target is left on average over layers; that
    is what bisection by cost finds in the original, where the cost is computation.

    Args:
        chunks: K times `removed_at` of each layer [L], of [c].
        weights: digest of the model's files.
        samples: how many questions the chunks come from.
    """
    stacked = (torch.stack([of_layer.double().cpu() for of_layer in chunk]) for chunk in chunks)
    left_until = torch.cat([of_chunk.cummin(0).values for of_chunk in stacked], 1)
    alphas = left_until.flatten().sort(descending=True).values
    rows = []
    for target in TARGETS:
        alpha = alphas[int(target * len(alphas))]
        rows.append(RecipeRow(target, float(alpha), (left_until > alpha).double().mean(1).tolist()))
    return Recipe(weights, samples, rows)


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
