"""Work of a prefill, counted from shapes: what compression costs and saves without a profiler."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import pandas as pd

from harness.evidence.cells import CellResult, mean_known
from harness.evidence.loading import newest
from harness.evidence.section import Section, interval_text, number_text
from harness.evidence.statistics import Estimate, mean_estimate
from harness.places import find
from harness.store import Answer
from harness.verdicts.context import Context
from harness.verdicts.pairs import OF_TASK, benchmark_title


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


MIB = 2.0**20


@dataclass(frozen=True)
class Account:
    """Means over the answers of some cells; None where no answer says.

    Attributes:
        prompt: tokens of the prompt, with as much of the video as enters the model.
        encoded: video tokens that the vision tower made.
        entered: of these, the ones that entered the language model.
        prefilled: tokens through the language model before the first new one, guides included, mean over layers.
        peak: most cache slots until then, mean over layers.
        slots: cache slots at answer time, mean over layers.
        largest: of the layer that holds most.
        evidence: share of answers with a frame in every span of time that the benchmark says shows the answer.
        host, moved: bytes of keys and values that waited in host memory, and that were copied for an answer.
        sees_question: whether the question takes part in choosing what is encoded, passed on or kept.
        reusable: whether the cache of the video serves further questions.
    """

    prompt: float | None
    encoded: float | None
    entered: float | None
    prefilled: float | None
    peak: float | None
    slots: float | None
    largest: float | None
    evidence: float | None
    host: float | None
    moved: float | None
    sees_question: bool | None
    reusable: bool | None


MEASURED: dict[str, Callable[[Answer], float | None]] = {
    "prompt": lambda answer: answer.n_prompt,
    "encoded": lambda answer: answer.n_encoded,
    "entered": lambda answer: answer.n_video,
    "prefilled": lambda answer: answer.prefilled,
    "peak": lambda answer: answer.cache_peak,
    "slots": lambda answer: answer.n_cache_mean,
    "largest": lambda answer: max(answer.cache_length, default=None),
    "evidence": lambda answer: answer.evidence_seen,
    "host": lambda answer: answer.host_bytes,
    "moved": lambda answer: answer.moved_bytes,
}
"""What an `Account` has of every answer."""


def account(cells: Sequence[CellResult]) -> Account:
    """What an answer of these cells takes, each cell with the same weight."""
    means = [cell.once("account", partial(_means, cell)) for cell in cells]

    def said(key: str) -> bool | None:
        found = {cell.cell.get(key) for cell in cells}
        return found.pop() if len(found) == 1 else None

    return Account(
        **{name: mean_known(own[name] for own in means) for name in MEASURED},
        sees_question=said("sees_question"),
        reusable=said("reusable"),
    )


def _means(cell: CellResult) -> dict[str, float | None]:
    answered = [answer for answer in cell.answers.values() if answer.ok]
    return {name: mean_known(map(of, answered)) for name, of in MEASURED.items()}


@dataclass(frozen=True)
class Entry:
    """One method at one budget, on one benchmark or on several: its account, and its accuracy (their mean)."""

    cells: tuple[CellResult, ...]
    account: Account
    estimate: Estimate | None

    @property
    def benchmark(self) -> str:
        """Name of the benchmark, or of how many the mean is taken."""
        return benchmark_title(self.cells)


def entries(context: Context) -> list[Entry]:
    """Means over benchmarks where cells are alike but for that, then an entry per cell; of one setting the newest."""
    single, alike = [], defaultdict(list)
    for cell in newest(context.cells):
        single.append(Entry((cell,), account([cell]), context.estimate(cell)))
        kept = {key: value for key, value in cell.setting.items() if key not in OF_TASK}
        alike[json.dumps(kept, sort_keys=True)].append(single[-1])
    pooled = []
    for group in alike.values():
        parts = list({entry.cells[0].benchmark: entry for entry in reversed(group)}.values())[::-1]
        found = [entry.estimate for entry in parts if entry.estimate is not None]
        if len(parts) > 1 and len(found) == len(parts):
            cells = tuple(entry.cells[0] for entry in parts)
            pooled.append(Entry(cells, account(cells), mean_estimate(found)))
    return [*pooled, *single]


def account_section(found: Sequence[Entry], confidence: float) -> Section:
    """The account of every entry beside its accuracy."""
    frame = pd.DataFrame([_row(entry, f"{100 * confidence:g} % interval", confidence) for entry in found])
    notes = (
        "Means per answer, measured. encoded: video tokens that the vision tower made. prefilled: tokens through the "
        "language model before the first new one, guides and second passes included, mean over layers. peak, slots, "
        "largest: cache slots per layer, the most until then, and at answer time the mean over layers and the layer "
        "with most. asked: the context that was set, nothing more.",
        "evidence: of answers that the benchmark says when they are to be seen (LVBench), the percentage with a frame "
        "there; what was not sampled no method can find.",
        "host, moved: MiB of keys and values that waited in host memory, and that were copied for the answer.",
        "sees question: it takes part in choosing what is encoded, passed on or kept. reusable: the cache of the video "
        "serves further questions, so that their prefill is only the question.",
    )
    return Section("What an answer takes", frame, ("benchmark", "model", "method", "sees question", "reusable"), notes)


def _row(entry: Entry, interval: str, confidence: float) -> dict[str, str]:
    cell, took, score = entry.cells[0], entry.account, entry.estimate
    return {
        "benchmark": entry.benchmark,
        "model": cell.setting["model"],
        "method": cell.method_title,
        "frames": str(cell.setting["frames"]),
        "asked": str(cell.setting["context"]),
        "score": number_text(None if score is None else score.value, ".1f"),
        interval: "-" if score is None else interval_text(score.interval(confidence)),
        "n": "-" if score is None else str(score.n),
        "encoded": number_text(took.encoded),
        "prefilled": number_text(took.prefilled),
        "peak": number_text(took.peak),
        "slots": number_text(took.slots),
        "largest": number_text(took.largest),
        "evidence": number_text(None if took.evidence is None else 100 * took.evidence, ".1f"),
        "host": number_text(None if took.host is None else took.host / MIB, ".3g"),
        "moved": number_text(None if took.moved is None else took.moved / MIB, ".3g"),
        "sees question": _yes(took.sees_question),
        "reusable": _yes(took.reusable),
    }


def _yes(value: bool | None) -> str:
    return "-" if value is None else ("yes" if value else "no")
