"""Imported cells in ``results/foreign/<name>/``, with the reading interface of our own.

Their manifest is of another kind than ours, and the store and the gate refuse it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.advice import removal
from harness.benchmarks.benchmark import benchmark
from harness.errors import UserError
from harness.evidence.cells import Asked, CellResult, subtitles
from harness.evidence.loading import find_names, stored_names
from harness.records import EditedError, NotRecordError, seal, unseal
from harness.store import FrameRecords, Manifest, QuestionRecord, read_answers, read_questions, write_atomic
from harness.store.answers import Answer
from harness.store.manifest import as_file

NOT_SAID = "not said"
"""Value of a setting that a file does not declare; nothing is guessed."""
FOLDER = KIND = "foreign"
SCHEMA = 1
MANIFEST, SAID = "manifest.json", "said.jsonl"


@dataclass(frozen=True)
class Said:
    """The file's own verdict of an answer: its letter ("" for none) and whether it is right; None: not in the file."""

    letter: str | None = None
    correct: bool | None = None


@dataclass(frozen=True, eq=False)
class ImportedCell(CellResult):
    """Other people's answers, with the reading interface of a cell of ours."""

    record: dict[str, Any] = field(default_factory=dict)
    """The manifest as stored."""
    said: dict[str, Said] = field(default_factory=dict)
    """The file's own verdicts, by question id."""

    @property
    def declared(self) -> dict[str, Any]:
        """The settings that the file declares."""
        return dict(self.record["declared"])

    @property
    def matching(self) -> dict[str, Any]:
        """How rows were matched to questions, and which were not."""
        return dict(self.record["matching"])

    @cached_property
    def verdicts(self) -> NDArray[np.float64]:
        """The file's own verdicts of the questions: right (1), wrong (0); NaN where it has none."""
        said = (self.said.get(question.question_id, Said()).correct for question in self.questions)
        return np.array([np.nan if verdict is None else float(verdict) for verdict in said])

    @property
    def own_score(self) -> str:
        """The file's own score next to ours, over the questions that both judge; empty where they agree."""
        right = self.correct()
        both = ~np.isnan(self.verdicts) & ~np.isnan(right)
        if not both.any() or (self.verdicts == right)[both].all():
            return ""
        theirs, ours = 100 * self.verdicts[both].mean(), 100 * right[both].mean()
        count = f"{int(both.sum())} questions"
        return f"the file itself scores {theirs:.2f} % of {count}, our parser {self.parser} {ours:.2f} %"

    @property
    def parser(self) -> str:
        """The parser whose rule is nearest to that of the file's code base."""
        return str(self.record["parser"])

    @cached_property
    def setting(self) -> dict[str, Any]:
        """In the words of `CellResult.setting`; "not said" where the file declares nothing."""
        known = defaultdict(lambda: NOT_SAID, self.declared)
        if self.protocol != NOT_SAID:
            known |= {"protocol": self.protocol.removesuffix("_subtitles"), "subtitles": subtitles(self.protocol)}
        return known | {"task": self.benchmark, "split": self.record["split"], "questions": self.n}


def import_folder(results: Path | str, name: str) -> Path:
    """The folder of the imported cell of this name."""
    return Path(results) / FOLDER / name


def write_imported(
    folder: Path,
    record: dict[str, Any],
    questions: Sequence[QuestionRecord],
    answers: Sequence[Answer],
    said: dict[str, Said],
) -> None:
    """Write an imported cell, the manifest last: a folder without one is no cell. UserError if it holds another."""
    if folder.exists():
        if (held := read_record(folder))["digest"] != record["digest"]:
            raise UserError(
                f"{folder} holds another import (of {', '.join(held['files'])}); choose another name=..., or remove "
                f"it: {removal(folder)}"
            )
        (folder / MANIFEST).unlink()
    write_atomic(folder / "questions.jsonl", as_file(questions))
    write_atomic(folder / "answers.jsonl", b"".join(answer.to_line(folder.name) for answer in answers))
    lines = (seal({"question_id": name, **vars(verdict)}) for name, verdict in said.items())
    write_atomic(folder / SAID, b"".join(lines))
    write_atomic(folder / MANIFEST, seal({"kind": KIND, "schema": SCHEMA, **record}, indent=2))


def read_record(folder: Path) -> dict[str, Any]:
    """The manifest of an imported cell. Raises UserError where it is absent, edited, or of something else."""
    path = folder / MANIFEST
    try:
        record = unseal(path.read_bytes())
    except (OSError, NotRecordError, EditedError) as error:
        raise UserError(f"{path} is not the manifest of an import ({error}). Remove it: {removal(folder)}") from error
    if record.get("kind") != KIND or record.get("schema") != SCHEMA:
        said = json.dumps({key: record.get(key) for key in ("kind", "schema")})
        raise UserError(f"{path} is not an import of this version ({said}). Import the file again.")
    return record


def load_imported(results: Path | str, references: Sequence[str] = ()) -> list[ImportedCell]:
    """The imported cells below ``results/foreign``, in the order of their names.

    `references` are as for `harness.evidence.loading.matching`; none means all. Raises UserError where one matches
    nothing, or a folder is damaged.
    """
    root = Path(results) / FOLDER
    names, frames = stored_names(root), FrameRecords(results)
    matched = {name for reference in references for name in find_names(reference, names, str(root))}
    return [_load(root / name, frames) for name in names if name in matched or not references]


def _load(folder: Path, frames: FrameRecords) -> ImportedCell:
    record = read_record(folder)
    benchmark(record["benchmark"])  # raises where there is none of that name
    declared = record["declared"]
    task = {"name": record["benchmark"], "data": record["benchmark"], "split": record["split"], "subset": None}
    cell = {
        "name": record["name"],
        "model": {"name": declared.get("model", NOT_SAID)},
        "method": {"name": declared.get("method", NOT_SAID)},
        "task": task | {"protocol": record["protocol"]},
        "video": {},
        "context": declared.get("context", NOT_SAID),
    }
    manifest = Manifest(record["name"], record["digest"], cell, created=record["imported"], status="complete")
    said = {}
    for number, line in enumerate((folder / SAID).read_bytes().splitlines(), start=1):
        try:
            verdict = unseal(line)
            name = verdict.pop("question_id")
            said[name] = Said(**verdict)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / SAID}, line {number} is damaged ({error}). Import the file again.") from error
    asked, answers = Asked(read_questions(folder)), read_answers(folder)
    return ImportedCell(folder, manifest, asked, answers, frames, record=record, said=said)
