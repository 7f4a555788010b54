"""Dropping hidden states of video tokens between the layers, while the whole prompt passes the model at once.

This is how FastV, PyramidDrop and SparseVLM were published: at ratios of their own, whatever the context.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.allocation import allocate
from harness.compress.attention import Heads
from harness.compress.cache import Kept, mean
from harness.compress.evict import ChunkEvictor, Counts, highest
from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt, Segment
from harness.compress.scorers import LayerView, together
from harness.errors import QuestionError, UserError
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


FORMS = ("kv", "native")
"""Under a budget of cache slots, or as published."""


@dataclass(frozen=True)
class StateDropper(Method):
    """Before some layers, video tokens stop passing through the model; text never does.

    Attributes:
        reindex: what is left is numbered anew, without gaps. `None` = where the original does so and tokens have one
            id; of ids of time, height and width no original says how.
    """

    sees_question: ClassVar[bool] = True
    reusable: ClassVar[bool] = False
    looks_ahead: ClassVar[bool] = False  # ranked by the layer they do not enter, instead of the one before it
    reindexes: ClassVar[bool] = False  # the original does

    form: str = "native"
    reindex: bool | None = None

    @abstractmethod
    def drops(self, layers: int) -> Sequence[int]:
        """Before which layers, ascending; each above 0 and below their number."""

    @abstractmethod
    def rank(self, view: LayerView) -> torch.Tensor:
        """One score [c] per video token that is left, from the attention of a layer among all tokens that are left."""

    @abstractmethod
    def counts(self, layers: int, n_video: int) -> list[int] | None:
        """How many video tokens enter each layer [L]; `None` where it depends on the video."""

    def count(self, view: LayerView, layer: int, scores: torch.Tensor) -> int:
        """How many of the video tokens that are left enter a layer that some do not enter."""
        counts = self.counts(view.run.language.num_layers, view.run.prompt.n_video)
        assert counts is not None
        return counts[layer]

    def merge(
        self, hidden: torch.Tensor, places: torch.Tensor, kept: torch.Tensor, scores: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States that go on.

        Args:
            hidden: all that is left [m, d].
            places: of the video's tokens [c] among them.
            kept: which of these c stay [k], ascending.
            scores: of them [c].

        Returns:
            The states [m, d], some of them changed, and which of the c video tokens go on.
        """
        return hidden, kept

    def compresses(self, prompt: Prompt) -> bool:
        return True

    def segments(self, prompt: Prompt) -> list[Segment]:
        return [Segment(slice(0, prompt.n_prompt), slice(0, prompt.n_video), chunk=0)]

    def renumbers(self, prompt: Prompt) -> bool:
        """Whether what is left is numbered anew.

        Raises:
            UserError: it was asked for where a token has several ids.
        """
        rows = prompt.positions.shape[0]
        if self.reindex and rows > 1:
            raise UserError(f"method.reindex=true: ids of {rows} rows have no order to be numbered by; set it to null")
        return rows == 1 and (self.reindexes if self.reindex is None else self.reindex)

    def begin(self, run: Prefill) -> None:
        """Raises UserError for layers that the model does not have, QuestionError for a context that is too small."""
        layers, prompt = run.language.num_layers, run.prompt
        self.renumbers(prompt)
        for layer in self.drops(layers):
            if not (least := len(run.features)) <= layer < layers:
                raise UserError(
                    f"method {self.name} cannot drop tokens before layer {layer}: this model allows {least} to "
                    f"{layers - 1}"
                )
        if (counts := self.counts(layers, prompt.n_video)) is not None:
            self.check_context(run, prompt.n_text + mean(counts))

    def check_context(self, run: Prefill, slots: float) -> None:
        """Raises QuestionError where the context is less than what the method keeps, `slots` per layer on average."""
        context = run.prompt.context
        if context is not None and slots > context:
            raise QuestionError(
                f"method {self.name} in its native form keeps {slots:.1f} slots per layer, more than "
                f"context={context}: use a context of at least {math.ceil(slots)}, context=full, or method.form=kv"
            )

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        passage = _Passage(self, run, segment)
        hidden = run.forward(segment, observer=passage.observe, between=passage.between)
        run.state = [segment.length - length for length in run.cache.lengths]
        run.note_choice(passage.kept)
        run.trace.kept.append([indices.numel() for indices in passage.kept])
        run.trace.chunk_ratio = [mean(run.trace.kept[0]) / segment.n_video]
        run.trace.chunk_budget = [round(mean(run.trace.kept[0]))]
        if run.record:
            run.kept_indices[0] = [indices.cpu() for indices in passage.kept]
        self.check_context(run, mean(run.cache.lengths))
        return hidden

    def layer_ids(self, run: Prefill, ids: torch.Tensor, *, decoded: bool) -> list[torch.Tensor] | None:
        if not self.renumbers(run.prompt):
            return None
        if not decoded:
            return [ids] * run.language.num_layers
        moved = {gap: ids - gap for gap in set(run.state)}  # layers alike share one tensor, and so its rotation
        return [moved[gap] for gap in run.state]


class _Passage:
    """One prompt on its way through the layers: which tokens are left, and the last scores of the video's."""

    def __init__(self, method: StateDropper, run: Prefill, segment: Segment) -> None:
        self._method, self._run, self._segment = method, run, segment
        layers = run.language.num_layers
        self._drops = method.drops(layers)
        self._video = torch.arange(segment.n_video)  # those that are left
        self._places = run.places(segment).cpu()  # where they are among all tokens that are left
        self._view: LayerView | None = None
        self.kept = [self._video] * layers

    def observe(self, layer: int, query: torch.Tensor, key: Heads, scale: float) -> None:
        if not self._method.looks_ahead and layer + 1 in self._drops:
            self._view = self._seen(layer, query, together(key), scale)

    def between(
        self, layer: int, hidden: torch.Tensor, alive: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        if layer not in self._drops:
            return None
        method, run = self._method, self._run
        if method.looks_ahead:
            ids = run.ids[layer][:, alive]
            self._view = self._seen(layer, *run.language.queries_and_keys(layer, hidden, ids))
        assert self._view is not None
        scores = method.rank(self._view).to(hidden.device)
        (kept,) = highest(run, [scores], [min(method.count(self._view, layer, scores), len(scores))])
        assert isinstance(kept, torch.Tensor)
        hidden, going = method.merge(hidden, self._places.to(hidden.device), kept, scores)
        self._view, going = None, going.cpu()
        stays = torch.ones(len(alive), dtype=torch.bool)
        stays[self._places] = False
        stays[self._places[going]] = True
        self._video, self._places = self._video[going], (stays.cumsum(0) - 1)[self._places[going]]
        self.kept[layer:] = [self._video] * (len(self.kept) - layer)
        alive = alive[stays]
        if method.renumbers(run.prompt):
            ids = run.ids[layer].clone()
            ids[:, alive] = torch.arange(len(alive))
            run.ids[layer:] = [ids] * (len(run.ids) - layer)
        return hidden[stays.to(hidden.device)], alive

    def _seen(self, layer: int, query: torch.Tensor, key: torch.Tensor, scale: float) -> LayerView:
        prompt = self._run.prompt
        behind = prompt.n_prompt - prompt.video_stop
        return LayerView(query, key, behind, self._places, scale, layer, self._segment, self._run, key[None])


def in_native_form(options: Method, native: type[StateDropper]) -> StateDropper:
    """A method's options as those of its native form."""
    return native(**{field.name: getattr(options, field.name) for field in dataclasses.fields(native)})
