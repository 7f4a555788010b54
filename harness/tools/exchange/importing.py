"""The verb ``import``: other people's per-question results, as cells of their own kind."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from harness.benchmarks.benchmark import Benchmark, benchmark
from harness.console import open_console
from harness.errors import UserError, printable
from harness.evidence.imported import NOT_SAID, ImportedCell, Said, folder_of, load_imported, write_imported
from harness.store import Answer, now
from harness.store.answers import FAILED, OK
from harness.tools.exchange import inspect, lmms_eval, openvlm, release
from harness.tools.exchange.known import Asked, known_questions, which
from harness.tools.exchange.matching import Matching, match
from harness.tools.exchange.rows import ImportedFile, ImportedRow, damaged

if TYPE_CHECKING:
    from harness.settings.groups import Config
    from harness.tools.verbs import ImportConfig

READERS: dict[str, ModuleType] = {"lmms_eval": lmms_eval, "openvlm": openvlm, "release": release, "inspect": inspect}
"""Format -> module with ``recognises(path)`` and ``read(path)``."""
LISTED = 5
"""Rows named on the terminal; the manifest has all."""


def main(config: Config, given: ImportConfig) -> int:
    """Import every file of ``imported.files``.

    Returns:
        0, or 1 where rows of a file were not matched (they are listed).

    Raises:
        UserError: no file, a file that cannot be taken, or none of whose rows is a question of the benchmark.
    """
    if not given.files:
        raise UserError("import: name the files: python -m harness import FILE...")
    paths = [path for name in given.files for path in _files(Path(name), given.format)]
    if given.name and len(paths) > 1:
        raise UserError(f"name={given.name} is for one file, and there are {len(paths)}")
    whole = True
    for path in paths:
        cell = import_file(path, given, Path(config.results), Path(config.data.root))
        show(cell, open_console())
        whole &= not cell.matching["unmatched"]
    return 0 if whole else 1


def _files(path: Path, format: str | None) -> list[Path]:
    """The files to read at a path: itself, or those in a folder that a reader knows."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"import: {path} does not exist")
    readers = [READERS[format]] if format else list(READERS.values())
    inside = sorted(each for each in path.rglob("*") if each.is_file())
    found = [each for each in inside if any(reader.recognises(each) for reader in readers)]
    if not found:
        raise UserError(f"import: nothing in {path} is a file of {', '.join(READERS)}; name the file itself")
    return found


def read_file(path: Path, format: str | None = None) -> ImportedFile:
    """The rows of a file, by the reader that knows it.

    Raises:
        UserError: none does, or it is damaged.
    """
    if format is None:
        format = next((name for name, reader in READERS.items() if reader.recognises(path)), None)
    if format is None:
        raise UserError(f"{path}: no reader knows it; say what it is with format=<{'|'.join(READERS)}>")
    try:
        found: ImportedFile = READERS[format].read(path)
    except (LookupError, TypeError, AttributeError, ValueError, OSError, RecursionError) as error:
        raise damaged(path, "", f"is not as {format} writes it ({type(error).__name__}: {error})") from error
    return found


def import_file(path: Path, given: ImportConfig, results: Path, data: Path) -> ImportedCell:
    """Read a file, match its rows, write the imported cell and load it.

    Raises:
        UserError: as `main`.
    """
    file = read_file(path, given.format)
    asked = which(given.of or file.task or path.stem, str(path))
    spec = benchmark(asked.benchmark)
    protocol = next((each for each in (asked.protocol, file.protocol) if each in spec.protocols), None)
    known, source = known_questions(asked, data, results, protocol)
    matching = match(file.rows, known, path)
    if not matching.found:
        row, why = matching.unmatched[0]
        raise UserError(
            printable(
                f"{path}: none of its {len(file.rows)} rows is a question of {asked.benchmark} ({asked.split}); the "
                f"first, {row.place}: {why}. Known are the {source}. Say of=<benchmark or task setting> where the file "
                "asks other questions, or data.root=<folder> for other annotations."
            )
        )
    name = given.name or _name(file, asked)
    record = {
        "name": name,
        "digest": file.digest[:16],
        "format": file.format,
        "files": [str(each) for each in file.paths],
        "benchmark": asked.benchmark,
        "split": asked.split,
        "protocol": protocol or NOT_SAID,
        "parser": _parser(file, protocol, spec),
        "declared": file.declared,
        "matching": _summary(file, matching, source),
        "imported": now(),
    }
    answers = [_answer(each.row, each.record.question_id, each.record.video_id) for each in matching.found]
    said = {
        each.record.question_id: Said(each.row.letter, each.row.correct)
        for each in matching.found
        if each.row.letter is not None or each.row.correct is not None
    }
    folder = folder_of(results, name)
    write_imported(folder, record, [each.record for each in matching.found], answers, said)
    return load_imported(results, [name])[0]


def _answer(row: ImportedRow, question_id: str, video_id: str) -> Answer:
    if row.text is None or row.error:
        error = {"type": "NoAnswer", "message": row.error or "the file has no answer"}
        return Answer(question_id, video_id, FAILED, text=row.text or "", error=error)
    return Answer(question_id, video_id, OK, text=row.text)


def _parser(file: ImportedFile, protocol: str | None, spec: Benchmark) -> str:
    """Of the protocol that the file declares, else the one nearest to its code base, else the benchmark's first."""
    if protocol is not None:
        return spec.protocols[protocol].parser
    if file.parser in spec.parsers:
        return file.parser
    of_format = spec.protocols.get(file.format)
    return (of_format or next(iter(spec.protocols.values()))).parser


def _name(file: ImportedFile, asked: Asked) -> str:
    said = file.declared.get("model", file.paths[0].parent.name or file.paths[0].stem)
    words = re.sub(r"[^A-Za-z0-9_.]+", "_", str(said)).strip("_.")[:40] or "file"
    return f"{asked.benchmark}-{file.format}-{words}-{file.digest[:8]}"


def _summary(file: ImportedFile, matching: Matching, source: str) -> dict[str, Any]:
    return {
        "source": source,
        "rows": len(file.rows),
        "matched": dict(Counter(each.how for each in matching.found)),
        "unmatched": [
            {"place": row.place, "why": why, "ids": list(row.ids), "video": row.video, "question": row.question[:200]}
            for row, why in matching.unmatched
        ],
        "repeated": [row.place for row in matching.repeated],
        "absent": matching.absent,
        "reordered": matching.reordered,
        "gold_differs": matching.gold_differs,
        "wording_differs": matching.wording_differs,
    }


def show(cell: ImportedCell, console: Console) -> None:
    """Print what was taken, what was not, what the file says of its setting, and its score under every parser."""
    made = cell.matching
    how = ", ".join(f"{n} by {name}" for name, n in made["matched"].items())
    lines = [f"{cell.folder}: {cell.n} of {made['rows']} rows are questions of {cell.benchmark} ({how})"]
    notes = {
        "repeated": "rows say again what a row before them says",
        "absent": "questions of the benchmark are not in the file",
        "reordered": "questions have their options in another order; read in the file's order",
        "gold_differs": "questions have another right answer in the file; ours counts",
        "wording_differs": "questions are worded otherwise in the file",
    }
    for key, text in notes.items():
        if listed := made[key]:
            lines.append(f"  {len(listed)} {text}: {_some(listed)}")
    if unmatched := made["unmatched"]:
        lines.append(f"  {len(unmatched)} rows are no question of it and were left out:")
        lines += [f"    {row['place']}: {row['why']}" for row in unmatched[:LISTED]]
        lines += [f"    ... all in {cell.folder / 'manifest.json'}"] if len(unmatched) > LISTED else []
    if cell.failed:
        lines.append(f"  {cell.failed} have no answer in the file and count as wrong")
    missing = [word for word in ("model", "frames", "fps", "context", "protocol") if cell.setting[word] == NOT_SAID]
    lines.append("  it says: " + (", ".join(f"{key}={value}" for key, value in cell.declared.items()) or "nothing"))
    lines.append(f"  not said: {', '.join(missing) or 'nothing of what is asked for'}")
    lines += _scores(cell)
    console.print(printable("\n".join(lines)), markup=False, highlight=False, soft_wrap=True)


def _scores(cell: ImportedCell) -> list[str]:
    if not cell.scores():
        return ["  no question has a right answer here"]
    said = np.array([_value(cell.said.get(question.question_id)) for question in cell.questions])
    lines = []
    for parser in (cell.parser, *cell.other_parsers):
        right = cell.correct(parser)
        both = ~np.isnan(said) & ~np.isnan(right)
        agree = f"; the file's own verdict is the same for {int((said == right)[both].sum())} of {both.sum()}"
        score = f"{100 * np.nanmean(right):.2f} % of {int((~np.isnan(right)).sum())} right"
        lines.append(f"  parser {parser}: {score}{agree if both.any() else ''}")
    return lines


def _value(said: Said | None) -> float:
    return float("nan") if said is None or said.correct is None else float(said.correct)


def _some(listed: list[str]) -> str:
    return ", ".join(listed[:LISTED]) + (" ..." if len(listed) > LISTED else "")
