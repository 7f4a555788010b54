"""Cells as the reporter sees them: setting, questions and answers of one folder under ``results/runs``."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.advice import aside
from harness.benchmarks.benchmark import benchmark, benchmark_names
from harness.benchmarks.metrics import Credit, group_name, values
from harness.benchmarks.parse import Parser
from harness.errors import UserError
from harness.settings.cell import variant_of
from harness.settings.weights import mismatch
from harness.store import Answer, FrameRecords, Manifest, QuestionRecord

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Once:
    """Base of what remembers results about itself; a copy by `dataclasses.replace` shares them."""

    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False, kw_only=True)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns; it is called the first time."""
        if key not in self._made:
            self._made[key] = make()
        return cast(T, self._made[key])


Places = NDArray[np.intp]


@dataclass(frozen=True)
class Counted:
    """What a metric averages, per question, [n].

    inside: whether the question counts. types: its type, by the place among the sorted types (-1: of none); None for a
    plain mean. units: what counts as one; None where that is the question. credit: what the questions of a unit are
    worth together; None where the unit is right if all of them are.
    """

    inside: NDArray[np.bool_]
    types: Places | None
    units: NDArray[np.object_] | None
    credit: Credit | None = None


@dataclass(frozen=True, eq=False)
class Asked(Once):
    """The questions of a cell, in the order asked."""

    questions: list[QuestionRecord]

    @cached_property
    def names(self) -> NDArray[np.object_]:
        """Question ids."""
        return np.array([question.question_id for question in self.questions], object)

    @cached_property
    def ids(self) -> frozenset[str]:
        """Question ids, to look one up."""
        return frozenset(question.question_id for question in self.questions)

    @cached_property
    def by_name(self) -> Places:
        """Places of the questions, sorted by their ids."""
        return np.array(sorted(range(len(self.questions)), key=lambda i: self.questions[i].question_id), np.intp)

    @cached_property
    def videos(self) -> Places:
        """Each question's video, by its place among the sorted ids of videos."""
        return ranks([question.video_id for question in self.questions])

    def letter(self, parser: str, parse: Parser, place: int, text: str) -> str | None:
        """The letter that an answer to a question means; siblings often say the same."""
        return self.once((parser, place, text), lambda: parse(text, self.questions[place].options))

    def counted(self, name: str, metric: str) -> Counted:
        """Which questions count in a metric of the benchmark `name`, and how.

        A metric is ``overall``, ``m_avg``, or a group's one such as ``duration_long``; UserError for an unknown one.
        """
        return self.once(("counted", name, metric), lambda: self._counted(name, metric))

    def _counted(self, name: str, metric: str) -> Counted:
        spec, listed = benchmark(name).metrics, [question.tags for question in self.questions]
        averaged, inside = spec.whole.get(metric), np.ones(len(listed), bool)
        if averaged is None:
            prefix = next((p for p in sorted(spec.groups, key=len, reverse=True) if metric.startswith(f"{p}_")), None)
            if prefix is None:
                known = [*spec.whole, *(f"{p}_<{tag}>" for p, tag in spec.groups.items())]
                raise UserError(f"metric {metric!r} is not one of {name}; known: {', '.join(known)}")
            averaged, groups = spec.within, [values(tags.get(spec.groups[prefix])) for tags in listed]
            inside = np.array([any(group_name(prefix, value) == metric for value in group) for group in groups], bool)
        types = units = None
        if averaged.mean_of:
            types = ranks([next(iter(values(tags.get(averaged.mean_of))), None) for tags in listed])
            inside = inside & (types >= 0)  # a question without a type is in no type's mean
        if averaged.unit:
            units = np.array([tags.get(averaged.unit) for tags in listed], object)
        return Counted(inside, types, units, averaged.credit)


def ranks(listed: list[Any]) -> Places:
    """Each value's place among the sorted different ones; -1 for None."""
    order = {value: i for i, value in enumerate(sorted({value for value in listed if value is not None}))}
    return np.array([-1 if value is None else order[value] for value in listed], np.intp)


OK, FAILED, MISSING = "ok", "failed", "missing"
SCORE = "score.json"


@dataclass(frozen=True, eq=False)
class CellResult(Once):
    """One cell and everything stored about it."""

    folder: Path
    manifest: Manifest
    asked: Asked
    answers: dict[str, Answer]
    frames: FrameRecords
    """The records of the answers' frames; all of them have been checked."""
    score: dict[str, Any] | None = None
    """Content of ``score.json``, where lmms-eval has scored the cell."""

    @property
    def questions(self) -> list[QuestionRecord]:
        """In the order asked."""
        return self.asked.questions

    @property
    def id(self) -> str:
        """Readable name and digest; the folder's name."""
        return self.manifest.cell_id

    @property
    def cell(self) -> dict[str, Any]:
        """The cell's record in its manifest."""
        return self.manifest.cell

    @property
    def task(self) -> str:
        """Name of the benchmark, with the subset of it."""
        subset = self.cell["task"].get("subset")
        return f"{self.cell['task']['name']}{f' ({subset})' if subset else ''}"

    @property
    def protocol(self) -> str:
        """The rules of the prompt."""
        return str(self.cell["task"]["protocol"])

    @cached_property
    def benchmark(self) -> str:
        """Name of the benchmark's folder in ``tasks/``: Video-MME with subtitles shares that of Video-MME."""
        for name in (self.cell["task"].get("data"), self.cell["task"]["name"]):
            if name in benchmark_names():
                return str(name)
        raise UserError(
            f"cell {self.id}: task {self.task} has no metrics; known: {', '.join(benchmark_names())}. "
            f"Leave the cell out (report.cells=[...]) or move its folder away: {aside(self.folder)}"
        )

    @property
    def toy(self) -> bool:
        """Whether the cell belongs to the embedded toy, which is never compared with a published number."""
        return self.cell["model"]["name"] == "toy" or self.manifest.runtime.get("profile") == "toy"

    @property
    def part(self) -> str:
        """How much of the published benchmark was asked, where no subset was asked for; empty where it is all."""
        task = self.cell["task"]
        whole = benchmark(self.benchmark).counts.get(task["split"], {}).get("questions")
        if self.toy or task.get("subset") or not whole or self.n >= whole:
            return ""
        return f"only {self.n:,} of {whole:,} questions of the published benchmark"

    @property
    def mismatch(self) -> str:
        """How the weights differ from what the model's name promises; empty where no difference is known."""
        return mismatch(self.cell) or ""

    @cached_property
    def setting(self) -> dict[str, Any]:
        """The cell's setting in the words of the expected tables; what does not apply is absent.

        The options of a method stand under their own names, its switches of the ablation as ``variant``.
        """
        cell, method, video, task = self.cell, self.cell["method"], self.cell["video"], self.cell["task"]
        setting = {
            "model": cell["model"]["name"],
            "method": method["name"],
            "task": self.benchmark,
            "split": task["split"],
            "subset": task.get("subset"),
            "protocol": self.protocol.removesuffix("_subtitles"),
            "subtitles": subtitles(self.protocol),
            "frames": video["max_frames"],
            "fps": video["fps"],
            "long_side": video.get("long_side"),
            "resample": video.get("resample"),
            "context": "full" if cell["context"] is None else cell["context"],
            "yarn_factor": cell["model"].get("yarn_factor", 1.0),
            "dtype": cell["model"].get("dtype"),
            "numerics": cell["model"].get("numerics", "own"),
            "max_new_tokens": task.get("max_new_tokens"),
            "replicate": task.get("replicate", 0),
            "questions": self.n,
            "positions": method.get("positions"),
        }
        if method["name"] != "none":
            own = {"variant": self.variant} if self.variant else {}
            own |= {name: value for name, value in method.items() if name not in ("name", "temporal", "layers")}
            setting |= {f"method.{n}" if n in setting and n != "positions" else n: v for n, v in own.items()}
            setting["quirks"] = method.get("quirks") or "default"
        return {name: "none" if value is None else value for name, value in setting.items()}

    @property
    def variant(self) -> str:
        """``full``, ``no_layer``, ``no_temporal`` or ``no_both``; empty for a method without these switches."""
        return variant_of(self.cell["method"])

    @property
    def method_title(self) -> str:
        """Method, semantics and variant in a few words: ``adaretake paper full``."""
        method = self.cell["method"]
        words = (method["name"], method.get("semantics"), self.variant)
        return "uncompressed" if method["name"] == "none" else " ".join(filter(None, words))

    @property
    def short_title(self) -> str:
        """The variant, or the method's name where it is not AdaReTaKe: ``full``, ``uncompressed``, ``random full``."""
        name = self.cell["method"]["name"]
        return {"none": "uncompressed", "adaretake": self.variant}.get(name, f"{name} {self.variant}".strip())

    @property
    def parser(self) -> str:
        """Name of the parser that scores the cell's protocol."""
        return benchmark(self.benchmark).protocol(self.protocol).parser

    @property
    def other_parsers(self) -> list[str]:
        """Names of the benchmark's other parsers; a report also holds their scores."""
        return sorted(benchmark(self.benchmark).parsers.keys() - {self.parser})

    def frame(self, parser: str | None = None) -> pd.DataFrame:
        """One row per question, in the order asked; every text is parsed once by each parser that is asked for.

        Columns: question_id, video_id, status (ok, failed, missing), letter (None when unparsed), answer (gold),
        correct (1.0, 0.0; NaN when missing or without a gold answer), tags. A failed and an unparsed answer are wrong.
        The parser is one of the benchmark's ``parsers``; None means the protocol's own.
        """
        name = parser or self.parser
        return self.once(("frame", name), lambda: self._frame(name))

    def _frame(self, parser: str) -> pd.DataFrame:
        columns = {
            "question_id": [question.question_id for question in self.questions],
            "video_id": [question.video_id for question in self.questions],
            "status": self.statuses,
            "letter": self.letters(parser),
            "answer": [question.answer for question in self.questions],
            "correct": self.correct(parser),
            "tags": [question.tags for question in self.questions],
        }
        return pd.DataFrame(columns, dtype=object).astype({"correct": float})

    @cached_property
    def statuses(self) -> list[str]:
        """Per question: ok, failed or missing."""
        answers = (self.answers.get(question.question_id) for question in self.questions)
        return [MISSING if answer is None else answer.status for answer in answers]

    def letters(self, parser: str | None = None) -> list[str | None]:
        """Per question the letter of its answer; None where there is no answer, or no letter in it."""
        name = parser or self.parser
        return self.once(("letters", name), lambda: self._letters(name))

    def _letters(self, parser: str) -> list[str | None]:
        parse, asked = benchmark(self.benchmark).parsers[parser], self.asked
        return [
            asked.letter(parser, parse, place, self.answers[question.question_id].text) if status == OK else None
            for place, (question, status) in enumerate(zip(self.questions, self.statuses, strict=True))
        ]

    def correct(self, parser: str | None = None) -> NDArray[np.float64]:
        """Per question 1.0 or 0.0, [n]; NaN where the answer is missing or the right one is not known."""
        name = parser or self.parser
        return self.once(("correct", name), lambda: self._correct(name))

    def _correct(self, parser: str) -> NDArray[np.float64]:
        rows = zip(self.questions, self.statuses, self.letters(parser), strict=True)
        correct = (
            math.nan if question.answer is None or status == MISSING else float(letter == question.answer)
            for question, status, letter in rows
        )
        return np.fromiter(correct, float, self.n)

    def answered(self, parser: str | None = None) -> pd.DataFrame:
        """The rows with a score: answered or failed, and with a gold answer."""
        return self.frame(parser).dropna(subset="correct").reset_index(drop=True)

    def items(self, parser: str | None = None) -> list[dict[str, Any]]:
        """Scored questions in the form that ``harness.benchmarks.metrics`` takes."""
        rows = zip(self.correct(parser).tolist(), self.questions, strict=True)
        return [{"score": correct, "tags": question.tags} for correct, question in rows if not math.isnan(correct)]

    def scores(self, parser: str | None = None) -> dict[str, float]:
        """Every metric in percent, see ``harness.benchmarks.metrics``."""
        name = parser or self.parser
        return self.once(("scores", name), lambda: benchmark(self.benchmark).metrics.scores(self.items(name)))

    def main_score(self, metric: str, parser: str) -> float | None:
        """One metric of all questions, in percent; None where no question is scored."""
        items = self.items(parser)
        return benchmark(self.benchmark).metrics.whole[metric](items) if items else None

    @property
    def n(self) -> int:
        """Questions of the cell."""
        return len(self.questions)

    @cached_property
    def failed(self) -> int:
        """Questions whose answer is a stored failure; they count as wrong."""
        return self.statuses.count(FAILED)

    @cached_property
    def missing(self) -> int:
        """Questions without any answer; they count nowhere."""
        return self.statuses.count(MISSING)

    @cached_property
    def unparsed(self) -> int:
        """Answers in which no letter was found; they count as wrong."""
        return sum(pair == (OK, None) for pair in zip(self.statuses, self.letters(), strict=True))

    @cached_property
    def slots(self) -> float | None:
        """KV cache entries after the prefill, measured: mean over layers and answers; None where no answer has it."""
        return mean_known(a.n_cache_mean for a in self.answers.values() if a.ok)

    @property
    def complete(self) -> bool:
        """Whether every question has an answer or a stored failure."""
        return self.n > 0 and self.missing == 0


def mean_known(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are known; None where none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def subtitles(protocol: str) -> bool:
    """Whether a protocol shows the model the subtitles."""
    return "subtitles" in protocol
