"""SparseVLM (arXiv 2410.04417): the words that are about the video rank its tokens; what is dropped is recycled."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from harness.compress.allocation import allocate
from harness.compress.cache import Kept
from harness.compress.dropping import FORMS, StagedEvictor, StateDropper, in_native_form
from harness.compress.evict import Counts
from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.scorers import LayerView, causal_weights, guide_rows, received, together, video_columns
from harness.errors import UserError
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class Gathered:
    """Tokens of a chunk [n] that become the means of their groups [k], at the places and ids of the centres [k]."""

    tokens: torch.Tensor
    centres: torch.Tensor
    member_of: torch.Tensor

    @classmethod
    def of(cls, run: Prefill, segment: Segment, layer: int, tokens: torch.Tensor, count: int) -> Gathered:
        """Clustered by their keys before rotation, of all key heads together."""
        keys = cls._unrotated(run, segment, layer)[:, run.places(segment).to(tokens.device)[tokens]]
        centres, member_of = density_peaks(keys.transpose(0, 1).flatten(1), count)
        return cls(tokens, tokens[centres], member_of)

    @staticmethod
    def _unrotated(run: Prefill, segment: Segment, layer: int) -> torch.Tensor:
        keys = run.cache.keys(layer)[:, -segment.length :]
        return run.language.unrotate(keys, run.ids[layer], slice(0, segment.length))

    def write(self, run: Prefill, segment: Segment, layer: int) -> None:
        """Put the means where the centres are cached; keys are averaged before rotation."""
        count, places = len(self.centres), run.places(segment).to(self.tokens.device)
        members, at = places[self.tokens], places[self.centres]
        keys, values = (s[:, -segment.length :] for s in (run.cache.keys(layer), run.cache.values(layer)))
        means = group_means(self._unrotated(run, segment, layer)[:, members], self.member_of, count)
        keys[:, at] = run.language.rotate(means, run.ids[layer], at)
        values[:, at] = group_means(values[:, members], self.member_of, count)


def density_peaks(points: torch.Tensor, count: int, neighbours: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Density peak clustering with densities from the nearest neighbours (DPC-KNN).

    A point's density is exp(- mean squared distance to its nearest neighbours, itself among them), its isolation the
    distance to the nearest point that is denser. The points with the largest products are centres; every other
    point belongs to the nearest centre. Distances are divided by the root of the dimension; ties go to the lower index.

    Args:
        points: [n, d].
        count: how many centres, at most n.
        neighbours: over how many the density is averaged.

    Returns:
        The centres [count], ascending, and for each point [n] which of them it belongs to.
    """
    points = points.float()
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") / points.shape[1] ** 0.5
    nearest = distance.topk(min(neighbours, len(points)), largest=False).values
    density = (-nearest.square().mean(-1)).exp()
    denser = density[None, :] > density[:, None]
    isolation = distance.masked_fill(~denser, torch.inf).amin(-1)
    isolation = torch.where(isolation.isinf(), distance.max(), isolation)
    order = torch.sort(isolation * density, descending=True, stable=True).indices
    centres = order[:count].sort().values
    member_of = distance[:, centres].argmin(-1)
    member_of[centres] = torch.arange(count, device=points.device)
    return centres, member_of


def group_means(states: torch.Tensor, member_of: torch.Tensor, count: int) -> torch.Tensor:
    """Plain means [..., count, d] of the states [..., n, d] of each group."""
    one_hot = torch.nn.functional.one_hot(member_of, count).to(states.device, torch.float32)  # [n, count]
    return (one_hot.T @ states.float() / one_hot.sum(0)[:, None]).to(states.dtype)


def clusters_of(dropped: int, recycled: float, clusters: float) -> int:
    """How many means so many dropped tokens become."""
    return min(dropped, int(clusters * int(recycled * dropped)) + 1, max(1, int(recycled * dropped))) if dropped else 0


def recycled_count(budget: int, length: int, recycled: float, clusters: float, most: float) -> int:
    """How many of a budget's tokens are recycled ones: as many as what is dropped for them becomes, or the most."""
    made, limit = 0, int(most * budget)
    while made < limit and made < clusters_of(length - budget + made, recycled, clusters):
        made += 1
    return made


def best_dropped(scores: torch.Tensor, kept: torch.Tensor, share: float) -> torch.Tensor:
    """The share [n] of the tokens that are not `kept` [k] with the highest scores [c], at least one; ascending."""
    stays = torch.zeros(len(scores), dtype=torch.int8, device=scores.device).index_fill(0, kept, 1)
    tokens = stays.sort(stable=True).indices[: len(scores) - len(kept)]  # as `nonzero`, which waits for the device
    count = min(len(tokens), max(1, int(share * len(tokens))))
    order = torch.sort(scores[tokens], descending=True, stable=True).indices[:count]
    return tokens[order.sort().values]


_WINDOW = 4096  # video tokens moved to the device at a time


@dataclass(frozen=True)
class SparseVLM(StagedEvictor):
    """Layers share a chunk's budget in proportion to the published numbers of tokens behind three pruning layers.

    Of its tokens a layer keeps the best, and the rest of its budget are means of clusters of the best among the others,
    each at the place and with the ids of its centre. `Prefill.state` is a `_State`.

    Attributes:
        form: `kv`, under the context, as here; or `native`.
        layers: behind which of `of_layers` tokens are dropped; scaled to the model's number of layers.
        of_layers: layers of the model of the publication.
        keep: tokens of `keep_of` that are left behind each of them.
        keep_of: video tokens in the publication.
        rule: how many are left: as in `keep` (`list`), or by the `rank` of the attention between raters and video.
        scale, bias: of the rule `rank`: scale * rank + bias tokens.
        raters: the words that rank are chosen by the whole `video`, or by each `chunk`; native: the video.
        recycle: whether dropped tokens are recycled.
        recycled: share of the dropped tokens, the best of them, that are clustered.
        clusters: centres per clustered token; one more is made.
        most: kv form only: largest share of a layer's budget that recycled tokens take.
        reindex: see `StateDropper`; native form only.
    """

    form: str = setting("kv", words=FORMS)
    layers: list[int] = field(default_factory=lambda: [2, 6, 15])
    of_layers: int = setting(32, least=1)
    keep: list[int] = field(default_factory=lambda: [300, 200, 110])
    keep_of: int = setting(576, least=1)
    rule: str = setting("list", words=("list", "rank"))
    scale: float = setting(9.0, above=0)
    bias: float = setting(6.0, least=0)
    raters: str = setting("video", words=("video", "chunk"))
    recycle: bool = True
    recycled: float = setting(0.3, above=0, most=1)
    clusters: float = setting(0.1, least=0, most=1)
    most: float = setting(0.5, least=0, below=1)
    reindex: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        falling = [self.keep_of, *self.keep] == sorted([self.keep_of, *self.keep], reverse=True)
        if not self.layers or len(self.layers) != len(self.keep) or self.layers != sorted(self.layers) or not falling:
            raise UserError(
                f"method.layers={self.layers} and method.keep={self.keep} do not belong together: give as many of "
                f"both, layers rising, tokens falling from method.keep_of={self.keep_of}"
            )

    def for_family(self, family: str) -> Method:
        return in_native_form(self, SparseVLMStates) if self.form == "native" else self

    def begin(self, run: Prefill) -> None:
        super().begin(run)
        if run.compress:
            run.state = _State(run.language.num_layers)
            if self.raters == "video":
                run.state.raters = find_raters(run, self.guide(run.prompt), slice(0, run.prompt.n_video))

    def judges(self, layers: int) -> list[int]:
        points = pruning_layers(self.layers, self.of_layers, layers)
        return [max([p for p in points if p < layer], default=points[0]) for layer in range(layers)]

    def rank(self, view: LayerView) -> torch.Tensor:
        state, run = view.run.state, view.run
        if self.raters == "chunk":
            state.raters = find_raters(run, self.guide(run.prompt), view.segment.video)
        if self.rule == "rank":
            state.ranks[view.layer] = rank_of(view, state.raters)
        return by_raters(view, state.raters)

    def layer_counts(self, run: Prefill, segment: Segment, scores: list[torch.Tensor]) -> Sequence[int]:
        assert segment.chunk is not None
        layers, length = len(scores), segment.n_video
        points = pruning_layers(self.layers, self.of_layers, layers)
        left = [float(self.keep_of)] * layers
        for point, kept in zip(points, self.keep, strict=True):
            wanted = float(kept)
            if self.rule == "rank":
                wanted = min(self.scale * run.state.ranks[point] + self.bias, length) * self.keep_of / length
            left[point + 1 :] = [wanted] * len(left[point + 1 :])
        weights = list(itertools.accumulate(left, min))
        return allocate(weights, layers * run.trace.chunk_budget[segment.chunk], [length] * layers)

    def choose(self, run: Prefill, segment: Segment, scores: list[torch.Tensor], counts: Counts) -> list[Kept]:
        wanted = torch.as_tensor(counts).tolist()
        if not self.recycle:
            return super().choose(run, segment, scores, counts)
        made = [recycled_count(c, segment.n_video, self.recycled, self.clusters, self.most) for c in wanted]
        best = super().choose(run, segment, scores, [c - m for c, m in zip(wanted, made, strict=True)])
        judges = self.judges(len(scores))
        chosen: list[Kept] = []
        for layer, (kept, count) in enumerate(zip(best, made, strict=True)):
            assert isinstance(kept, torch.Tensor)
            dropped = best_dropped(scores[judges[layer]].to(kept.device), kept, self.recycled)
            gathered = Gathered.of(run, segment, layer, dropped, count) if count else None
            run.state.gathered[layer] = gathered
            chosen.append(kept if gathered is None else torch.cat((kept, gathered.centres)).sort().values)
        return chosen

    def evict(self, run: Prefill, segment: Segment, kept: Sequence[Kept]) -> None:
        for layer, gathered in enumerate(run.state.gathered):
            if gathered is not None:
                gathered.write(run, segment, layer)
        super().evict(run, segment, kept)


@dataclass(frozen=True)
class SparseVLMStates(StateDropper):
    """As published: behind each pruning layer a number of tokens, and the means of clusters of what is dropped."""

    reindexes: ClassVar[bool] = True

    layers: list[int] = field(default_factory=lambda: [2, 6, 15])
    of_layers: int = 32
    keep: list[int] = field(default_factory=lambda: [300, 200, 110])
    keep_of: int = 576
    rule: str = "list"
    scale: float = 9.0
    bias: float = 6.0
    recycle: bool = True
    recycled: float = 0.3
    clusters: float = 0.1

    def begin(self, run: Prefill) -> None:
        super().begin(run)
        run.state = find_raters(run, run.prompt.guide(None), slice(0, run.prompt.n_video))

    def drops(self, layers: int) -> list[int]:
        return [point + 1 for point in sorted(set(self._points(layers))) if point + 1 < layers]

    def rank(self, view: LayerView) -> torch.Tensor:
        return by_raters(view, view.run.state)

    def counts(self, layers: int, n_video: int) -> list[int] | None:
        if self.rule == "rank":
            return None
        found, left = [], n_video
        for layer in range(layers):
            if layer in self.drops(layers):
                kept = min(self._listed(layers, n_video, layer), left)
                left = kept + self._made(left - kept)
            found.append(left)
        return found

    def count(self, view: LayerView, layer: int, scores: torch.Tensor) -> int:
        if self.rule == "rank":
            return max(1, min(int(self.scale * rank_of(view, view.run.state) + self.bias), len(scores) - 1))
        return self._listed(view.run.language.num_layers, view.run.prompt.n_video, layer)

    def merge(
        self, hidden: torch.Tensor, places: torch.Tensor, kept: torch.Tensor, scores: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        made = self._made(len(scores) - len(kept))
        if not made:
            return hidden, kept
        dropped = best_dropped(scores, kept, self.recycled)
        states = hidden[places[dropped]]
        centres, member_of = density_peaks(states, made)
        hidden = hidden.clone()
        hidden[places[dropped[centres]]] = group_means(states, member_of, made)
        return hidden, torch.cat((kept, dropped[centres])).sort().values

    def _points(self, layers: int) -> list[int]:
        return pruning_layers(self.layers, self.of_layers, layers)

    def _listed(self, layers: int, n_video: int, layer: int) -> int:
        points = self._points(layers)
        return max(1, min(k for p, k in zip(points, self.keep, strict=True) if p < layer) * n_video // self.keep_of)

    def _made(self, dropped: int) -> int:
        return clusters_of(dropped, self.recycled, self.clusters) if self.recycle else 0


class _State:
    """Of one prompt: raters among the guide's tokens, ranks by judging layer, what each layer recycles of a chunk."""

    def __init__(self, layers: int) -> None:
        self.raters: list[int] = []
        self.ranks: dict[int, int] = {}
        self.gathered: list[Gathered | None] = [None] * layers


def pruning_layers(points: Sequence[int], of: int, layers: int) -> list[int]:
    """Layers behind which tokens are dropped, in a model of another depth."""
    return [min(round(point * layers / of), layers - 1) for point in points]


def find_raters(run: Prefill, guide: slice, video: slice) -> list[int]:
    """Which of the guide's tokens are about the video: more of the video's tokens find them alike than on average.

    softmax over the guide of the products of input embeddings, mean over video tokens.
    """
    words = run.language.embed(run.prompt.input_ids[guide]).float()
    total = torch.zeros(len(words), device=words.device)
    for part in run.features[0][video].split(_WINDOW):
        total += (part.to(words.device).float() @ words.T).softmax(-1).sum(0)
    above: list[int] = (total > total.mean()).nonzero().flatten().tolist()
    return above or list(range(len(words)))


def by_raters(view: LayerView, raters: Sequence[int]) -> torch.Tensor:
    """Attention [c] that video tokens get from the raters; mean over raters and heads."""
    first = guide_rows(view).start
    return received(view, [first + rater for rater in raters])


def rank_of(view: LayerView, raters: Sequence[int]) -> int:
    """The rank of the attention from raters to video tokens, mean over heads."""
    assert view.context is not None
    first, columns = guide_rows(view).start, video_columns(view)
    rows = [first + rater for rater in raters]
    parts = causal_weights(view.queries, together(view.context), view.scale, rows)
    return int(torch.linalg.matrix_rank(torch.cat([w.index_select(-1, columns).mean((0, 1)) for _, w in parts])))


METHOD = SparseVLM
