"""Imported cells in ``results/foreign/<name>/``, with the reading interface of our own.

Their manifest is of another kind than ours, and the store and the gate refuse it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

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
FOLDER = "foreign"
KIND = "foreign"
SCHEMA = 1
MANIFEST, SAID = "manifest.json", "said.jsonl"

SETTING = (
    "model", "method", "task", "split", "subset", "protocol", "subtitles", "frames", "fps", "long_side", "resample",
    "context", "yarn_factor", "dtype", "max_new_tokens", "questions", "positions",
)  # fmt: skip
"""The words of `CellResult.setting` that every cell has."""


@dataclass(frozen=True)
class Said:
    """The file's own verdict of an answer: its letter ("" for none) and whether it is right; None: not in the file."""

    letter: str | None = None
    correct: bool | None = None


@dataclass(frozen=True, eq=False)
class ImportedCell(CellResult):
    """Other people's answers, with the reading interface of a cell of ours.

    `declared` holds every setting of the file; `setting` is "not said" where the file declares none.
    """

    record: dict[str, Any] = field(default_factory=dict)
    """The manifest as stored."""
    said: dict[str, Said] = field(default_factory=dict)
    """The file's own verdicts, by question id."""

    @property
    def declared(self) -> dict[str, Any]:
        """The settings that the file declares."""
        found: dict[str, Any] = self.record["declared"]
        return found

    @property
    def matching(self) -> dict[str, Any]:
        """How rows were matched to questions, and which were not."""
        found: dict[str, Any] = self.record["matching"]
        return found

    @property
    def title(self) -> str:
        """For tables: ``videomme-lmms_eval-... (imported, lmms_eval)``."""
        return f"{self.id} (imported, {self.record['format']})"

    @property
    def toy(self) -> bool:
        """Whether the file declares the toy model."""
        return str(self.declared.get("model")) == "toy"

    @property
    def mismatch(self) -> str:
        """Nothing is known of the weights."""
        return ""

    @property
    def variant(self) -> str:
        """As declared; else empty."""
        return str(self.declared.get("variant", ""))

    @property
    def method_title(self) -> str:
        """As declared."""
        return " ".join(filter(None, (str(self.declared.get("method", NOT_SAID)), self.variant)))

    @property
    def short_title(self) -> str:
        """As declared."""
        return self.method_title

    @property
    def parser(self) -> str:
        """The parser whose rule is nearest to that of the file's code base."""
        return str(self.record["parser"])

    @cached_property
    def setting(self) -> dict[str, Any]:
        """In the words of `CellResult.setting`; "not said" where the file declares nothing."""
        known = dict.fromkeys(SETTING, NOT_SAID) | self.declared
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
    """Write an imported cell. The manifest comes last: a folder without one is no cell.

    Raises:
        UserError: the folder holds something else.
    """
    if folder.exists():
        held = read_record(folder)
        if held["digest"] != record["digest"]:
            raise UserError(
                f"{folder} holds another import (of {', '.join(held['files'])}); choose another name=..., or remove "
                f"it: {removal(folder)}"
            )
        (folder / MANIFEST).unlink()
    write_atomic(folder / "questions.jsonl", as_file(questions))
    write_atomic(folder / "answers.jsonl", b"".join(answer.to_line(folder.name) for answer in answers))
    lines = (seal({"question_id": name, **vars(each)}) for name, each in said.items())
    write_atomic(folder / SAID, b"".join(lines))
    write_atomic(folder / MANIFEST, seal({"kind": KIND, "schema": SCHEMA, **record}, indent=2))


def read_record(folder: Path) -> dict[str, Any]:
    """The manifest of an imported cell.

    Raises:
        UserError: absent, edited, or of something else.
    """
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

    Args:
        results: the results folder.
        references: see `harness.evidence.loading.matching`; empty for all.

    Raises:
        UserError: a reference that matches nothing, or a folder that is damaged.
    """
    root = Path(results) / FOLDER
    names = stored_names(root)
    matched = {name for each in references for name in find_names(each, names, str(root))}
    chosen = [name for name in names if name in matched or not references]
    frames = FrameRecords(results)
    return [_load(root / name, frames) for name in chosen]


def _load(folder: Path, frames: FrameRecords) -> ImportedCell:
    record = read_record(folder)
    benchmark(record["benchmark"])
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
    asked, answers = Asked(read_questions(folder)), read_answers(folder)
    return ImportedCell(folder, manifest, asked, answers, frames, record=record, said=_said(folder))


def _said(folder: Path) -> dict[str, Said]:
    found = {}
    for number, line in enumerate((folder / SAID).read_bytes().splitlines(), start=1):
        try:
            record = unseal(line)
            name = record.pop("question_id")
            found[name] = Said(**record)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / SAID}, line {number} is damaged ({error}). Import the file again.") from error
    return found
