"""The verb ``export``: stored cells in the formats of other code bases."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.advice import aside, harness
from harness.benchmarks.questions import Question, load_asked
from harness.errors import UserError
from harness.evidence.cells import CellResult
from harness.evidence.loading import load_cells, references_of
from harness.records import made_folder
from harness.settings.groups import TaskConfig
from harness.settings.matrix import ids_under
from harness.store import write_atomic
from harness.tools.exchange import inspect, lmms_eval, openvlm
from harness.tools.exchange.rows import Exported

if TYPE_CHECKING:
    from harness.settings.groups import Config
    from harness.tools import ExportConfig

Writer = Callable[[CellResult, Sequence[Exported]], Mapping[str, bytes]]
"""From a cell and its answers to files: name below the cell's folder -> content."""
WRITERS: dict[str, Writer] = {"lmms_eval": lmms_eval.write, "openvlm": openvlm.write, "inspect": inspect.write}

LEDGER = ".written.json"


def main(config: Config, settings: ExportConfig) -> int:
    """Write the chosen cells in every format of ``export.formats``.

    Returns:
        0, or 1 where a cell lacks answers; its file lacks them too.

    Raises:
        UserError: there is no such format or cell, or a file is in the way.
    """
    results = Path(config.results)
    unknown = [name for name in settings.formats if name not in WRITERS]
    if unknown or not settings.formats:
        said = f"{' '.join(unknown)} is not known" if unknown else "no format is named"
        raise UserError(f"export: {said}; allowed: {', '.join(WRITERS)}")
    cells = load_cells(results, references_of(settings.cell), ids_under(config.words))
    if not cells:
        raise UserError(f"{results / 'runs'} has no cell yet; answer some: {harness('run', config.words)}")
    roots = {
        name: made_folder(Path(settings.output) if settings.output else results / "export" / name, "output=<folder>")
        for name in settings.formats
    }
    for cell in cells:
        answers = exported_answers(cell, Path(config.data.root))
        if not answers:
            print(f"{cell.id}: no answer yet, nothing is written")
            continue
        lacking = f"; {cell.missing} questions have no answer yet" if cell.missing else ""
        if bare := sum(not answer.prompt for answer in answers):
            lacking += f"; {bare} without the question's text, its annotation is not below data.root"
        for name, root in roots.items():
            paths = write_exported(root / cell.id, WRITERS[name](cell, answers))
            print(f"{paths[0]}: {len(answers)} answers{lacking}")
    return 1 if any(cell.missing for cell in cells) else 0


def exported_answers(cell: CellResult, data: Path) -> list[Exported]:
    """The answered questions of a cell in the order asked, with stored failures and without missing answers."""
    texts = {
        question.question_id: (question.prompt, str(row.get("question", "")))
        for row, question in _annotation(cell, data)
    }
    answers = []
    for record, letter, correct in zip(cell.questions, cell.letters(), cell.correct().tolist(), strict=True):
        if (answer := cell.answers.get(record.question_id)) is not None:
            right = None if math.isnan(correct) else bool(correct)
            answers.append(Exported(record, answer, letter, right, *texts.get(record.question_id, ())))
    return answers


def _annotation(cell: CellResult, data: Path) -> list[tuple[Any, Question]]:
    """Rows and questions of the cell's annotation; empty where it is not on this disk, or has other options."""
    task = cell.cell["task"]
    named = {name: task.get(name) for name in ("name", "split", "protocol", "subset")}
    named["replicate"] = task.get("replicate", 0)
    try:
        listed = load_asked(TaskConfig(data=cell.benchmark, **named), data)
    except UserError:
        return []
    options = {record.question_id: record.options for record in cell.questions}
    same = all(options.get(question.question_id, question.options) == question.options for _, question in listed)
    return listed if same else []


def write_exported(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files below a folder, each whole or not at all. A file is replaced only where an export wrote it and nobody
    changed it since.

    Raises:
        UserError: a file was not written by an export, or was changed.
    """
    ledger = folder / LEDGER
    try:
        known: dict[str, list[str]] = json.loads(ledger.read_text(encoding="utf-8")) if ledger.exists() else {}
        if not isinstance(known, dict) or not all(isinstance(digests, list) for digests in known.values()):
            raise ValueError("it is no list of digests by file")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{ledger} is damaged ({error}); move the folder away: {aside(folder)}") from error
    for name in files:
        path = folder / name
        if path.exists() and _digest(path.read_bytes()) not in known.get(name, []):
            raise UserError(
                f"{path} is not as an export wrote it, and is left alone; move it away ({aside(path)}) or "
                "choose another folder with output=<folder>"
            )
    digests = {name: [_digest(content)] for name, content in files.items()}
    old_or_new = {name: known.get(name, []) + new for name, new in digests.items()}  # until every file is written
    write_atomic(ledger, json.dumps(known | old_or_new, indent=1) + "\n")
    for name, content in files.items():
        write_atomic(folder / name, content)
    write_atomic(ledger, json.dumps(known | digests, indent=1) + "\n")
    return [folder / name for name in files]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
