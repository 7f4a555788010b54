"""A compression method: a choice of small pure functions and a few numbers."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.compress import methods
from harness.compress.layers import LayerAllocator, even
from harness.compress.layout import Layout, whole_grids
from harness.compress.positions import after_chunk, check_rule
from harness.compress.reforge import Reforge
from harness.compress.scorers import Scorer, guide_attention
from harness.compress.temporal import TemporalAllocator, by_length
from harness.errors import UserError

SEMANTICS = ("paper", "release_2025", "release_2026")

GuideRule = Callable[[torch.Tensor, slice, slice], torch.Tensor]  # positions [r, N], chunk, guide -> ids [r, g]


Choice = Callable[..., list[torch.Tensor]]  # scores [L, c], counts [L], chunk=i -> indices, ascending, per layer


def highest(scores: torch.Tensor, counts: Sequence[int], *, chunk: int) -> list[torch.Tensor]:
    """Per layer the indices [count] of its highest scores, ascending; among equal scores the lower index wins."""
    length = scores.shape[1]
    order = torch.sort(scores, descending=True, stable=True).indices
    chosen = torch.arange(length, device=scores.device) < torch.tensor(counts, device=scores.device)[:, None]
    ascending = torch.where(chosen, order, length).sort().values  # what is not chosen goes last
    return [row[:count] for row, count in zip(ascending, counts, strict=True)]


@dataclass(frozen=True)
class Method:
    """How to compress one prompt. The defaults are those of the paper with both allocations off.

    Attributes:
        name: as in the configuration and the tables.
        semantics: one of `SEMANTICS`.
        compresses: false for the uncompressed baseline, which ignores the context length.
        positions: the rule for M-RoPE ids, one of `positions.RULES`.
        chunk_frames: frames prefilled together.
        max_guide_length: at most so many of the last prompt tokens score a chunk; `None` = all text after the video.
        uses_guide: whether the guide is appended behind each chunk.
        cut: chunk lengths from layout and `chunk_frames`.
        temporal: budget per chunk.
        scorer: score per video token in one layer.
        mark: which of the video's tokens [V] the scorer should see marked; from layout, features and device.
        layers: kept tokens per layer.
        choose: which tokens, given the scores and the number of kept tokens of each layer.
        guide_positions: ids of the guide behind a chunk.
        whole: whether a chunk of this budget is stored without being looked at.
        whole_keeps_guide: whether the guide's states stay in the cache behind such a chunk.
        stale_text_scores: whether the first chunk is evicted by the scores of the text before the video.
        text_index_recorded: whether the cache records the plain text index as the ids of text.
        content_scores: whether scores use queries and keys from before rotation.
        reforge: how temporal ids are squeezed when a chunk is stored; `None` = tokens keep their ids.
    """

    name: str
    semantics: str = "paper"
    compresses: bool = True
    positions: str = "float"
    chunk_frames: int = 32
    max_guide_length: int | None = None
    uses_guide: bool = True
    cut: Callable[[Layout, int], list[int]] = whole_grids
    temporal: TemporalAllocator = by_length
    scorer: Scorer = guide_attention
    mark: Callable[[Layout, torch.Tensor, torch.device], torch.Tensor] | None = None
    layers: LayerAllocator = even
    choose: Choice = highest
    guide_positions: GuideRule = after_chunk
    whole: Callable[[float], bool] = field(default=lambda budget: False)
    whole_keeps_guide: bool = False
    stale_text_scores: bool = False
    text_index_recorded: bool = False
    content_scores: bool = False
    reforge: Reforge | None = None


@dataclass(frozen=True)
class MethodOptions:
    """The settings a method is built from; any object with these attributes will do."""

    name: str = "adaretake"
    semantics: str = "paper"
    temporal: bool = True
    layers: bool = True
    chunk_frames: int = 32
    max_guide_length: int | None = None
    reforge: bool = False
    positions: str | None = None
    quirks: Mapping[str, bool] = field(default_factory=dict)
    seed: int = 0


def method_names() -> list[str]:
    """Names of all methods: the files of `harness/compress/methods`."""
    return sorted(module.name for module in pkgutil.iter_modules(methods.__path__))


def build_method(config: Any, *, family: str = "qwen2_5_vl") -> Method:
    """The method that a configuration asks for.

    Args:
        config: an object with the attributes of `MethodOptions` (missing ones take their defaults).
        family: model family of the adapter; some semantics do not exist for some families.

    Raises:
        UserError: a name, semantics, quirk, number or combination that does not exist.
    """
    options = MethodOptions(**{k: getattr(config, k) for k in MethodOptions.__dataclass_fields__ if hasattr(config, k)})
    if options.name not in method_names():
        allowed = ", ".join(method_names())
        raise UserError(f"unknown method {options.name!r}: allowed are {allowed}; set method=adaretake")
    if options.semantics not in SEMANTICS:
        raise UserError(
            f"unknown semantics {options.semantics!r}: allowed are {', '.join(SEMANTICS)}; set method.semantics=paper"
        )
    for key, least in (("chunk_frames", 1), ("max_guide_length", 1)):
        value = getattr(options, key)
        if value is not None and value < least:
            raise UserError(f"method.{key}={value} is too small: use {least} or more")
    if options.positions is not None:
        check_rule(options.positions)
    return importlib.import_module(f"{methods.__name__}.{options.name}").build(options, family)


def checked_quirks(options: MethodOptions, defaults: Mapping[str, bool]) -> dict[str, bool]:
    """The quirks of a semantics with the user's switches applied.

    Raises:
        UserError: a quirk that this semantics does not have.
    """
    unknown = sorted(set(options.quirks or {}) - set(defaults))
    if unknown:
        allowed = ", ".join(sorted(defaults)) or "none"
        raise UserError(
            f"unknown quirk {', '.join(unknown)} for method {options.name} with semantics {options.semantics}: "
            f"allowed are {allowed}; remove it from method.quirks"
        )
    return {**defaults, **{k: bool(v) for k, v in (options.quirks or {}).items()}}
