"""Work of a prefill, counted from shapes: what compression costs and saves without a profiler."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from harness.evidence.cells import CellResult, mean_known
from harness.places import find
from harness.store import Answer


@dataclass(frozen=True)
class Shape:
    """A decoder-only language model with grouped queries and a gated MLP (Qwen2, Qwen2.5)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @property
    def weights_per_token(self) -> int:
        """Weights of all layers that one token is multiplied with."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)


SEVEN = Shape(28, 3584, 18944, 28, 4, 128, 152064)
KNOWN = {
    "qwen2_vl_7b": SEVEN,
    "qwen2_5_vl_7b": SEVEN,
    "llava_onevision_7b": SEVEN,
    "llava_video_7b": SEVEN,
    "qwen3_vl_8b": Shape(36, 4096, 12288, 32, 8, 128, 151936),
    "internvl3_5_8b": Shape(36, 4096, 12288, 32, 8, 128, 151936),
    "qwen2_5_vl_72b": Shape(80, 8192, 29568, 64, 8, 128, 152064),
}
"""Shapes of the published checkpoints, for a report on a machine without them."""


@lru_cache
def find_shape(name: str, path: str) -> Shape | None:
    """Shape of a model by its name or from its ``config.json``; None where neither is known."""
    if name in KNOWN:
        return KNOWN[name]
    file = find(path) / "config.json"
    if not file.is_file():
        return None
    raw = json.loads(file.read_text(encoding="utf-8"))
    text = {**raw, **raw.get("text_config", {})}
    try:
        heads = text["num_attention_heads"]
        return Shape(
            layers=text["num_hidden_layers"],
            hidden=text["hidden_size"],
            intermediate=text["intermediate_size"],
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or heads,
            head_dim=text.get("head_dim") or text["hidden_size"] // heads,
            vocabulary=text["vocab_size"],
        )
    except KeyError:
        return None


def answer_flops(shape: Shape, answer: Answer) -> float | None:
    """Floating-point operations of the language model for one answer (a multiply-add is two), from measured counts.

    Vision encoding is left out: sibling cells share it.

    Returns:
        None when the answer does not say what passed the model.
    """
    if not answer.ok or answer.prefilled is None or answer.attended is None:
        return None
    new, cached = max(answer.n_new or 0, 1), answer.n_cache_mean or 0
    decoded = new - 1  # the last new token does not pass the model
    tokens = answer.prefilled + decoded
    pairs = answer.attended + decoded * cached + decoded * (decoded + 1) / 2
    linear = 2.0 * shape.weights_per_token * tokens + 2.0 * shape.hidden * shape.vocabulary * new
    return linear + 4.0 * shape.layers * shape.heads * shape.head_dim * pairs


@dataclass(frozen=True)
class Cost:
    """Means per answer of one cell; None where the store does not say. `peak_memory` is the largest of all answers.

    tokens: of the prompt; kept: cache slots after the prefill, mean over layers; seconds: per stage; total: their sum;
    flops: of the language model; peak_memory: bytes on the accelerators, weights included.
    """

    tokens: float | None
    kept: float | None
    seconds: dict[str, float]
    total: float | None
    flops: float | None
    peak_memory: float | None


def cost(cell: CellResult) -> Cost:
    """What an answer of a cell costs on average."""
    return cell.once("cost", lambda: _cost(cell))


def _cost(cell: CellResult) -> Cost:
    answers = [answer for answer in cell.answers.values() if answer.ok]
    shape = find_shape(cell.cell["model"]["name"], cell.cell["model"].get("path", ""))
    stages = sorted({stage for answer in answers for stage in answer.seconds})
    seconds = {stage: mean_known([a.seconds.get(stage, 0.0) for a in answers]) or 0.0 for stage in stages}
    flops = [] if shape is None else [answer_flops(shape, answer) for answer in answers]
    return Cost(
        tokens=mean_known([a.n_prompt for a in answers]),
        kept=mean_known([a.n_cache_mean for a in answers]),
        seconds=seconds,
        total=sum(seconds.values()) if seconds else None,
        flops=mean_known(flops),
        peak_memory=max((a.peak_memory for a in answers if a.peak_memory is not None), default=None),
    )
