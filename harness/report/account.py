"""The account of a method: what passes the model, what is cached, and what the cache is good for, beside its accuracy.

A retention ratio says none of this: methods count tokens that enter the model, tokens that leave it, or a mean over
layers. Two budgets are measured: tokens through the language model at prefill, and cache slots at answer time.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from harness.evidence.cells import CellResult, mean_known
from harness.evidence.choose import newest
from harness.evidence.section import Section, interval_text, number_text
from harness.evidence.statistics import Estimate, mean_estimate
from harness.store import Answer
from harness.verdicts.context import Context
from harness.verdicts.pairs import OF_TASK, benchmark_title

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


def section(found: Sequence[Entry], confidence: float) -> Section:
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
