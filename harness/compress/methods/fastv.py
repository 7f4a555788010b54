"""FastV (arXiv 2403.06764): video tokens are ranked once, by the attention of an early layer."""

from __future__ import annotations

from dataclasses import dataclass

from harness.compress.dropping import FORMS, StagedEvictor, StateDropper, in_native_form
from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.scorers import LayerView, received
from harness.errors import UserError
from harness.late import torch
from harness.settings.rules import setting

ROWS = ("last", "all")


@dataclass(frozen=True)
class FastV(StagedEvictor):
    """All layers keep the same tokens of a chunk, the first ones too: those that layer `layer` - 1 attends to most.

    Attributes:
        form: `kv`, under the context, as here; or `native`.
        layer: K, the number of layers that see all tokens as published.
        rows: whose attention counts: that of the `last` token (code), or the mean over `all` tokens (paper).
        keep: share of the video's tokens that enter layer K; native form only.
        reindex: see `StateDropper`; native form only.
    """

    form: str = setting("kv", words=FORMS)
    layer: int = setting(2, least=1)
    rows: str = setting("last", words=ROWS)
    keep: float = setting(0.5, above=0, most=1)
    reindex: bool | None = None

    def for_family(self, family: str) -> Method:
        return in_native_form(self, FastVStates) if self.form == "native" else self

    def begin(self, run: Prefill) -> None:
        if self.layer > run.language.num_layers:
            raise UserError(f"method.layer={self.layer}: this model has {run.language.num_layers} layers")
        super().begin(run)

    def judges(self, layers: int) -> list[int]:
        return [self.layer - 1] * layers

    def rank(self, view: LayerView) -> torch.Tensor:
        return rank(view, self.rows)


@dataclass(frozen=True)
class FastVStates(StateDropper):
    """As published: from layer K on, a share of the video's tokens."""

    layer: int = 2
    rows: str = "last"
    keep: float = 0.5

    def drops(self, layers: int) -> list[int]:
        return [self.layer]

    def rank(self, view: LayerView) -> torch.Tensor:
        return rank(view, self.rows)

    def counts(self, layers: int, n_video: int) -> list[int]:
        kept = max(1, int(n_video * self.keep))
        return [n_video if layer < self.layer else kept for layer in range(layers)]


def rank(view: LayerView, rows: str) -> torch.Tensor:
    """Attention [c] that video tokens get from the last token, or from all on average; mean over heads."""
    n = view.queries.shape[1]
    return received(view, range(n - 1, n) if rows == "last" else range(n))


METHOD = FastV
