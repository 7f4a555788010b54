"""Cells as the reporter sees them: setting, questions and answers of one folder under ``results/runs``."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from harness.benchmarks.metrics import BENCHMARKS
from harness.benchmarks.parse import PARSERS, parser_name
from harness.errors import UserError
from harness.store import Answer, Manifest, QuestionRecord, read_answers, read_manifest, read_questions

OK, FAILED, MISSING = "ok", "failed", "missing"
COLUMNS = ["question_id", "video_id", "status", "letter", "answer", "correct", "tags"]


@dataclass(frozen=True, eq=False)
class CellResult:
    """One cell and everything stored about it."""

    folder: Path
    manifest: Manifest
    questions: list[QuestionRecord]
    answers: dict[str, Answer]
    score: dict[str, Any] | None = field(default=None)
    """Content of ``score.json``, where lmms-eval has scored the cell."""

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
        """Name of the benchmark."""
        return self.cell["task"]["name"]

    @property
    def benchmark(self) -> str:
        """Key of the benchmark in ``harness.benchmarks.metrics``: Video-MME with subtitles shares that of Video-MME."""
        for name in (self.cell["task"].get("data"), self.task):
            if name in BENCHMARKS:
                return name
        raise UserError(
            f"cell {self.id}: task {self.task!r} has no metrics; known: {', '.join(BENCHMARKS)}. "
            f"Leave the cell out (report.cells=[...]) or move its folder away: mv {self.folder} {self.folder}.old"
        )

    @property
    def toy(self) -> bool:
        """Whether the cell belongs to the embedded toy, which is never compared with a published number."""
        return self.cell["model"]["name"] == "toy" or self.manifest.runtime.get("profile") == "toy"

    @cached_property
    def setting(self) -> dict[str, Any]:
        """The cell's setting in the words of the expected tables; what does not apply is absent."""
        cell, method, video, task = self.cell, self.cell["method"], self.cell["video"], self.cell["task"]
        setting = {
            "model": cell["model"]["name"],
            "method": method["name"],
            "task": self.benchmark,
            "split": task["split"],
            "subset": task.get("subset") or "none",
            "protocol": task["protocol"].removesuffix("_subtitles"),
            "subtitles": subtitles(task["protocol"]),
            "frames": video["max_frames"],
            "fps": video["fps"],
            "long_side": video.get("long_side") or "none",
            "resample": video.get("resample"),
            "context": "full" if cell["context"] is None else cell["context"],
            "yarn_factor": cell["model"].get("yarn_factor", 1.0),
            "dtype": cell["model"].get("dtype"),
            "max_new_tokens": task.get("max_new_tokens"),
            "questions": self.n,
            "positions": method.get("positions"),
        }
        if method["name"] != "none":
            setting |= {
                "semantics": method["semantics"],
                "variant": self.variant,
                "reforge": bool(method.get("reforge")),
                "max_guide_length": method.get("max_guide_length") or "none",
                "chunk_frames": method.get("chunk_frames"),
                "quirks": method.get("quirks") or "default",
            }
        return setting

    @property
    def variant(self) -> str:
        """``full``, ``no_layer``, ``no_temporal`` or ``no_both``; ``none`` without compression."""
        method = self.cell["method"]
        if method["name"] == "none":
            return "none"
        names = {(True, True): "full", (True, False): "no_layer", (False, True): "no_temporal"}
        return names.get((bool(method.get("temporal")), bool(method.get("layers"))), "no_both")

    @property
    def method_title(self) -> str:
        """Method, semantics and variant in a few words: ``adaretake paper full``."""
        method = self.cell["method"]
        return "uncompressed" if method["name"] == "none" else f"{method['name']} {method['semantics']} {self.variant}"

    @property
    def short_title(self) -> str:
        """The variant, or the method's name where it is not AdaReTaKe: ``full``, ``uncompressed``, ``random full``."""
        method = self.cell["method"]["name"]
        return {"none": "uncompressed", "adaretake": self.variant}.get(method, f"{method} {self.variant}")

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per question, in the order asked.

        Columns: question_id, video_id, status (ok, failed, missing), letter (by the protocol's parser, None when
        unparsed), answer (gold), correct (1.0, 0.0; NaN when missing or without a gold answer), tags. A failed and an
        unparsed answer are wrong.
        """
        parse = PARSERS[parser_name(self.benchmark, self.cell["task"]["protocol"])]
        rows = []
        for question in self.questions:
            answer = self.answers.get(question.question_id)
            status = MISSING if answer is None else answer.status
            letter = parse(answer.text, question.options) if status == OK else None
            known = question.answer is not None and status != MISSING
            correct = float(letter is not None and letter == question.answer) if known else float("nan")
            rows.append(
                (question.question_id, question.video_id, status, letter, question.answer, correct, question.tags)
            )
        return pd.DataFrame(rows, columns=COLUMNS)

    @cached_property
    def answered(self) -> pd.DataFrame:
        """The rows with a score: answered or failed, and with a gold answer."""
        return self.frame[self.frame["correct"].notna()].reset_index(drop=True)

    @property
    def n(self) -> int:
        """Questions of the cell."""
        return len(self.frame)

    @property
    def failed(self) -> int:
        """Questions whose answer is a stored failure; they count as wrong."""
        return int((self.frame["status"] == FAILED).sum())

    @property
    def missing(self) -> int:
        """Questions without any answer; they count nowhere."""
        return int((self.frame["status"] == MISSING).sum())

    @property
    def unparsed(self) -> int:
        """Answers in which no letter was found; they count as wrong."""
        return int(((self.frame["status"] == OK) & self.frame["letter"].isna()).sum())

    @property
    def complete(self) -> bool:
        """Whether every question has an answer or a stored failure."""
        return self.n > 0 and self.missing == 0

    def items(self) -> list[dict[str, Any]]:
        """Scored questions in the form that ``harness.benchmarks.metrics`` takes."""
        return [
            {"score": correct, "tags": tags}
            for correct, tags in zip(self.answered["correct"], self.answered["tags"], strict=True)
        ]


def subtitles(protocol: str) -> bool:
    """Whether a protocol shows the model the subtitles."""
    return "subtitles" in protocol


def load_cells(results: Path | str, patterns: list[str] | None = None) -> list[CellResult]:
    """All cells below ``results/runs``, in the order of the tables.

    Args:
        results: the results folder.
        patterns: cell names or ids, ``*`` allowed; None or empty for all.

    Raises:
        UserError: a pattern that matches nothing, or a folder that is damaged.
    """
    root = Path(results) / "runs"
    folders = sorted(path.parent for path in root.glob("*/manifest.json"))
    if patterns:
        chosen = [f for f in folders if any(fnmatch.fnmatch(f.name, pattern) for pattern in patterns)]
        for pattern in patterns:
            if not fnmatch.filter([f.name for f in folders], pattern):
                known = "\n  ".join(f.name for f in folders) or f"none: {root} has no cell yet (python -m harness run)"
                raise UserError(f"report.cells: {pattern!r} matches no cell; there are\n  {known}")
        folders = chosen
    cells = []
    for folder in folders:
        score = folder / "score.json"
        cells.append(
            CellResult(
                folder=folder,
                manifest=read_manifest(folder),
                questions=read_questions(folder),
                answers=read_answers(folder),
                score=json.loads(score.read_text()) if score.is_file() else None,
            )
        )
    return sorted(cells, key=_place)


def _place(cell: CellResult) -> tuple[Any, ...]:
    """Order of the tables: toy first, then model, benchmark, frames, context, and the ablation's own order."""
    setting, order = cell.setting, ("none", "no_both", "no_layer", "no_temporal", "full")
    context = setting["context"] if isinstance(setting["context"], int) else float("inf")
    where = (not cell.toy, setting["model"], cell.benchmark, cell.task, setting["frames"], setting["fps"], context)
    return (*where, setting.get("semantics", ""), setting["method"], order.index(cell.variant), cell.id)
