"""The verb ``import``: other people's per-question results, as cells of their own kind."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from harness.advice import harness, open_console
from harness.benchmarks.benchmark import Benchmark, benchmark, benchmark_names
from harness.benchmarks.files import Folder
from harness.errors import UserError, printable
from harness.evidence.imported import NOT_SAID, ImportedCell, Said, import_folder, load_imported, write_imported
from harness.evidence.loading import stored_names
from harness.settings.compose import Recomposed, options
from harness.store import Answer, QuestionRecord, now, read_manifest, read_questions
from harness.store.answers import FAILED, OK
from harness.tools.exchange import inspect, lmms_eval, official, openvlm, release
from harness.tools.exchange.matching import KnownQuestion, Matching, match_rows, stem_of
from harness.tools.exchange.rows import ImportedFile, ImportedRow, damaged

if TYPE_CHECKING:
    from harness.settings.groups import Config
    from harness.tools import ImportConfig

READERS: dict[str, ModuleType] = {
    "lmms_eval": lmms_eval, "openvlm": openvlm, "release": release, "inspect": inspect, "official": official,
}  # fmt: skip
"""Format -> module with ``recognises(path)`` and ``read(path)``."""
_LISTED = 5
"""Rows named on the terminal; the manifest has all."""


def main(config: Config, settings: ImportConfig) -> int:
    """Import every file of ``imported.files``.

    Returns:
        0, or 1 where rows of a file match no question; they are listed.

    Raises:
        UserError: there is no file, a file cannot be read, or none of its rows is a question of the benchmark.
    """
    if not settings.files:
        raise UserError("import: name the files: python -m harness import FILE...")
    paths = [path for name in settings.files for path in _files(Path(name), settings.format)]
    if settings.name and len(paths) > 1:
        raise UserError(f"name={settings.name} is for one file, and there are {len(paths)}")
    whole = True
    for path in paths:
        cell = import_file(path, settings, Path(config.results), Path(config.data.root))
        print_import(cell, open_console())
        whole &= not cell.matching["unmatched"]
    return 0 if whole else 1


def _files(path: Path, format: str | None) -> list[Path]:
    """The files to read at a path: itself, or those in a folder that a reader recognises."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"import: {path} does not exist")
    readers = [READERS[format]] if format else list(READERS.values())
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    files = [file for file in inside if any(reader.recognises(file) for reader in readers)]
    if not files:
        raise UserError(f"import: nothing in {path} is a file of {', '.join(READERS)}; name the file itself")
    return files


def read_file(path: Path, format: str | None = None) -> ImportedFile:
    """The content of a file, by the reader that recognises it.

    Raises:
        UserError: no reader does, or the file is damaged.
    """
    if format is None:
        format = next((name for name, reader in READERS.items() if reader.recognises(path)), None)
    if format is None:
        raise UserError(f"{path}: no reader recognises it; name its format with format=<{'|'.join(READERS)}>")
    try:
        file: ImportedFile = READERS[format].read(path)
    except (LookupError, TypeError, AttributeError, ValueError, OSError, RecursionError) as error:
        raise damaged(path, "", f"is not as {format} writes it ({type(error).__name__}: {error})") from error
    return file


def import_file(path: Path, settings: ImportConfig, results: Path, data: Path) -> ImportedCell:
    """Read a file, match its rows to questions, write the imported cell and load it.

    Raises:
        UserError: as `main`.
    """
    file = read_file(path, settings.format)
    asked = named_split(settings.of or file.task or path.stem, str(path))
    spec = benchmark(asked.benchmark)
    protocol = next((name for name in (asked.protocol, file.protocol) if name in spec.protocols), None)
    known, source = known_questions(asked, data, results, protocol)
    matching = match_rows(file.rows, known, path)
    if not matching.matched:
        row, why = matching.unmatched[0]
        raise UserError(
            printable(
                f"{path}: none of its {len(file.rows)} rows is a question of {asked.benchmark} ({asked.split}); the "
                f"first, {row.place}: {why}. Known are the {source}. Use of=<benchmark or task setting> where the file "
                "asks other questions, or data.root=<folder> for other annotations."
            )
        )
    name = settings.name or _name(file, asked)
    record = {
        "name": name,
        "digest": file.digest[:16],
        "format": file.format,
        "files": [str(path) for path in file.paths],
        "benchmark": asked.benchmark,
        "split": asked.split,
        "protocol": protocol or NOT_SAID,
        "parser": _parser(file, protocol, spec),
        "declared": file.declared,
        "matching": _summary(file, matching, source),
        "imported": now(),
    }
    questions = [pair.record for pair in matching.matched]
    answers = [_answer(pair.row, pair.record) for pair in matching.matched]
    said = {
        pair.record.question_id: Said(pair.row.letter, pair.row.correct)
        for pair in matching.matched
        if pair.row.letter is not None or pair.row.correct is not None
    }
    write_imported(import_folder(results, name), record, questions, answers, said)
    return load_imported(results, [name])[0]


def _answer(row: ImportedRow, record: QuestionRecord) -> Answer:
    if row.text is None or row.error:
        error = {"type": "NoAnswer", "message": row.error or "the file has no answer"}
        return Answer(record.question_id, record.video_id, FAILED, text=row.text or "", error=error)
    return Answer(record.question_id, record.video_id, OK, text=row.text)


def _parser(file: ImportedFile, protocol: str | None, spec: Benchmark) -> str:
    """Of the protocol that the file declares, else the one nearest to its code base, else the benchmark's first."""
    if protocol is not None:
        return spec.protocols[protocol].parser
    if file.parser in spec.parsers:
        return file.parser
    of_format = spec.protocols.get(file.format)
    return (of_format or next(iter(spec.protocols.values()))).parser


def _name(file: ImportedFile, asked: BenchmarkSplit) -> str:
    said = file.declared.get("model", file.paths[0].parent.name or file.paths[0].stem)
    words = re.sub(r"[^A-Za-z0-9_.]+", "_", str(said)).strip("_.")[:40] or "file"
    return f"{asked.benchmark}-{file.format}-{words}-{file.digest[:8]}"


def _summary(file: ImportedFile, matching: Matching, source: str) -> dict[str, Any]:
    return {
        "source": source,
        "rows": len(file.rows),
        "matched": dict(Counter(pair.how for pair in matching.matched)),
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


def print_import(cell: ImportedCell, console: Console) -> None:
    """Print the matched and unmatched rows, the declared setting, and the score under every parser."""
    matching = cell.matching
    how = ", ".join(f"{n} by {name}" for name, n in matching["matched"].items())
    lines = [f"{cell.folder}: {cell.n} of {matching['rows']} rows are questions of {cell.benchmark} ({how})"]
    notes = {
        "repeated": "rows repeat an earlier row",
        "absent": "questions of the benchmark are not in the file",
        "reordered": "questions have their options in another order; letters are read in the file's order",
        "gold_differs": "questions have another right answer in the file; ours counts",
        "wording_differs": "questions are worded differently in the file",
    }
    for key, text in notes.items():
        if listed := matching[key]:
            lines.append(f"  {len(listed)} {text}: {', '.join(listed[:_LISTED])}{' ...' * (len(listed) > _LISTED)}")
    if unmatched := matching["unmatched"]:
        lines.append(f"  {len(unmatched)} rows are no question of it and were left out:")
        lines += [f"    {row['place']}: {row['why']}" for row in unmatched[:_LISTED]]
        lines += [f"    ... all in {cell.folder / 'manifest.json'}"] if len(unmatched) > _LISTED else []
    if cell.failed:
        lines.append(f"  {cell.failed} have no answer in the file and count as wrong")
    missing = [word for word in ("model", "frames", "fps", "context", "protocol") if cell.setting[word] == NOT_SAID]
    lines.append("  declared: " + (", ".join(f"{key}={value}" for key, value in cell.declared.items()) or "nothing"))
    lines.append(f"  not declared: {', '.join(missing) or 'nothing of importance'}")
    lines += _scores(cell)
    console.print(printable("\n".join(lines)), markup=False, highlight=False, soft_wrap=True)


def _scores(cell: ImportedCell) -> list[str]:
    if not cell.scores():
        return ["  no question has a right answer here"]
    said = cell.verdicts
    known, lines = ~np.isnan(said), []
    if known.any():
        lines.append(f"  the file's own verdicts: {100 * said[known].mean():.2f} % of {int(known.sum())} right")
    for parser in (cell.parser, *cell.other_parsers):
        right = cell.correct(parser)
        both = ~np.isnan(said) & ~np.isnan(right)
        agree = f"; the file's own verdict is the same for {int((said == right)[both].sum())} of {both.sum()}"
        score = f"{100 * np.nanmean(right):.2f} % of {int((~np.isnan(right)).sum())} right"
        lines.append(f"  parser {parser}: {score}{agree if both.any() else ''}")
    return lines


@dataclass(frozen=True)
class BenchmarkSplit:
    """The questions that an imported file asks.

    Attributes:
        benchmark: folder below ``tasks/``.
        split: of the benchmark.
        protocol: of a task setting of ours; None where the file names none.
    """

    benchmark: str
    split: str
    protocol: str | None = None


def named_split(said: str, title: str) -> BenchmarkSplit:
    """The benchmark and split of a name: a task setting of ours, or a name that contains a benchmark's.

    Args:
        said: ``adaretake_videomme``, ``mlvu_test``, ``Video-MME_64frame`` ...
        title: source of the name, for the message.

    Raises:
        UserError: it names no benchmark.
    """
    name = said.removeprefix("adaretake_")
    if name in options("task"):
        task = Recomposed([]).under(task=name).task
        return BenchmarkSplit(task.data, task.split, task.protocol if said != name else None)
    squashed = _squashed(said)
    fitting = [known for known in benchmark_names() if _squashed(known) in squashed]
    if not fitting:
        raise UserError(
            f"{title}: {said!r} names no benchmark; name the questions with "
            f"of=<{'|'.join(benchmark_names())}> or a task setting (of=mlvu_test)"
        )
    longest = max(fitting, key=len)
    words = set(re.split(r"[^a-z0-9]+", said.lower()))
    splits = list(benchmark(longest).counts)
    return BenchmarkSplit(longest, next((split for split in splits if split in words), splits[0]))


def _squashed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def known_questions(
    asked: BenchmarkSplit, data: Path, results: Path, protocol: str | None = None
) -> tuple[list[KnownQuestion], str]:
    """The questions of a split, only those that a protocol asks where one is given; and where they were read.

    They are those of the annotation below the data root, else those of stored cells. Stored cells hold no texts: rows
    are then matched by id, or by video and options.

    Raises:
        UserError: there is neither.
    """
    known = benchmark(asked.benchmark)
    folder = Folder(data, asked.benchmark, asked.benchmark)
    try:
        rows = known.load(folder, asked.split)
    except UserError as error:
        stored = _stored(asked, results)
        if stored:
            return stored, f"questions of stored cells below {results / 'runs'}"
        task = asked.benchmark if asked.benchmark in options("task") else known.name
        command = harness("prepare", ["profile=published", f"task={task}", f"data.root={data}"])
        raise UserError(
            f"the questions of {known.title} ({asked.split}) are neither below {data} nor in a stored cell: {error}\n"
            f"Set data.root to where they are, or get them: {command}"
        ) from error
    questions = []
    for row in rows if protocol is None else [row for row in rows if known.evaluated(row, protocol)]:
        item = known.item(row)
        record = QuestionRecord(item.question_id, item.video_id, item.options, item.answer, item.tags)
        questions.append(KnownQuestion(record, stem_of(str(row.get("question") or ""))))
    return questions, f"annotation below {data}"


def _stored(asked: BenchmarkSplit, results: Path) -> list[KnownQuestion]:
    questions: dict[str, KnownQuestion] = {}
    for folder in (results / "runs" / name for name in stored_names(results / "runs")):
        task = read_manifest(folder).cell["task"]
        if asked.benchmark in (task.get("data"), task["name"]) and task["split"] == asked.split:
            for record in read_questions(folder):
                questions.setdefault(record.question_id, KnownQuestion(record))
    return list(questions.values())
