"""Recipes of FitPrune: which share of a chunk each layer keeps, fitted on calibration videos and stored as a file.

K chunks of c tokens, L layers.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import advice
from harness.errors import UserError
from harness.late import torch
from harness.places import find
from harness.records import write_atomic

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
