"""Finding and reading the cells of a results folder."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.advice import aside
from harness.benchmarks.questions import as_published
from harness.errors import UserError
from harness.evidence.cells import SCORE, Asked, CellResult
from harness.records import EditedError, NotRecordError, unseal
from harness.settings.cell import VARIANTS, Cell, setting_key
from harness.store import FrameRecords, read_answers, read_manifest, read_questions
from harness.store.manifest import FILE as MANIFEST
from harness.store.manifest import QUESTIONS_FILE as QUESTIONS
from harness.store.manifest import written_anew

DIGEST = re.compile(r"[0-9a-f]{4,16}")
Ids = Callable[[Sequence[str]], list[str]]
"""The ids of the cells that settings make: `harness.settings.matrix.ids_under` with the words of a command."""


def load_cells(results: Path | str, references: Sequence[str] = (), ids_under: Ids | None = None) -> list[CellResult]:
    """All cells below ``results/runs``, in the order of the tables; arguments and errors as of `cell_names`."""
    return sorted(each_cell(results, cell_names(results, references, ids_under)), key=_place)


def cell_names(results: Path | str, references: Sequence[str] = (), ids_under: Ids | None = None) -> list[str]:
    """Ids of the cells below ``results/runs``, sorted; no file is read. Arguments and errors as of `find_names`."""
    names = stored_names(Path(results) / "runs")
    matched = {name for text in references for name in find_names(text, names, f"{results}/runs", ids_under)}
    return [name for name in names if name in matched or not references]


def stored_names(folder: Path) -> list[str]:
    """Names of the cells in ``runs`` or ``foreign``, sorted: the folders with a manifest."""
    return sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))


def is_stored(results: Path | str, name: str) -> bool:
    """Whether a cell of ours has been started."""
    return (Path(results) / "runs" / name / MANIFEST).is_file()


def matching(reference: str, names: Sequence[str], ids_under: Ids | None = None) -> list[str]:
    """The names that a reference means. This is the one rule, for our own and for imported cells.

    Args:
        reference: an id, else every name that it is the beginning of, whose digest it is (at least four digits of it),
            or whose pattern it is (``*``); or a setting in brackets, ``[task=mlvu,frames=64]``: every cell that the
            command makes under it. Raises UserError where the brackets hold no setting.
        ids_under: what a setting in brackets means.
    """
    if reference.startswith("[") and "=" in reference:
        ids = {*ids_under(bracketed(reference))} if ids_under is not None else set()
        return [name for name in names if name in ids]
    if reference in names:
        return [reference]
    return [
        name
        for name in names
        if name.startswith(reference)
        or fnmatch.fnmatchcase(name, reference)
        or (DIGEST.fullmatch(reference) is not None and name.rpartition("-")[2].startswith(reference))
    ]


def find_names(reference: str, names: Sequence[str], place: str, ids_under: Ids | None = None) -> list[str]:
    """As :func:`matching`; raises UserError with the closest names where nothing matches."""
    if found := matching(reference, names, ids_under):
        return found
    near = difflib.get_close_matches(reference, names, n=5, cutoff=0.3) or names[:5]
    listed = "\n  ".join(near) or "none: nothing is stored there (python -m harness run)"
    raise UserError(
        f"{reference!r} matches no cell of {place}; allowed are an id, a digest, the beginning of an id, a pattern "
        f"with *, or a setting in brackets such as '[task=mlvu,frames=64]'. The closest ids:\n  {listed}"
    )


def find_name(reference: str, names: Sequence[str], place: str, ids_under: Ids | None = None) -> str:
    """The one name that a reference means; raises UserError where there is none, or there are several."""
    name, *others = find_names(reference, names, place, ids_under)
    if others:
        listed = "\n  ".join([name, *others])
        raise UserError(f"{reference!r} means {len(others) + 1} cells of {place}; name one of them:\n  {listed}")
    return name


def references_of(text: Any) -> list[str]:
    """The references of a setting that is null, a list, or a text with commas; commas inside brackets part nothing."""
    listed = re.split(r",(?![^\[]*\])", text) if isinstance(text, str) else map(str, text or [])
    return [reference.strip() for reference in listed if reference.strip()]


def bracketed(reference: str) -> list[str]:
    """The settings of ``[task=mlvu,frames=64]``; raises UserError where the reference is not of that form."""
    pairs = [part.partition("=") for part in reference.strip("[] ").split(",")]
    if not reference.endswith("]") or not all(key.strip() and equals and value for key, equals, value in pairs):
        raise UserError(f"{reference} is no setting; write '[task=mlvu,frames=64,context=1000]'")
    return [f"{key.strip()}={value.strip()}" for key, _, value in pairs]


def each_cell(results: Path | str, names: Iterable[str]) -> Iterator[CellResult]:
    """The cells of these ids, each read when it is asked for. Raises UserError for a folder that is damaged."""
    frames, asked = FrameRecords(results), dict[bytes, Asked]()
    return (_load(Path(results) / "runs" / name, frames, asked) for name in names)


def _load(folder: Path, frames: FrameRecords, asked: dict[bytes, Asked]) -> CellResult:
    """A cell; `asked` keeps one `Asked` for all cells whose files of questions have this content."""
    answers, manifest, path = read_answers(folder), read_manifest(folder), folder / QUESTIONS
    content = path.read_bytes() if path.is_file() else b""
    if content not in asked:
        asked[content] = Asked(read_questions(folder))
    if lost := sorted(answers.keys() - asked[content].ids):
        raise UserError(
            f"{path} lacks {len(lost)} questions that are answered (the first: {lost[0]}): it was cut "
            f"short; {written_anew(folder)}\nWhere the annotations have lost them, move it away: {aside(folder)}"
        )
    frames.check(answers.values())
    asked_as = {question.question_id: question.prompt_digest for question in asked[content].questions}
    if changed := [name for name, answer in answers.items() if answer.prompt_digest != asked_as[name]]:
        raise UserError(
            f"{path} has another prompt for {len(changed)} answered questions (the first: {changed[0]}): annotations "
            f"changed after the answers. Put the data back and the file: {written_anew(folder)}"
        )
    score = None  # so too where it is not as it was written; then it is made again
    with contextlib.suppress(OSError, NotRecordError, EditedError):
        score = unseal((folder / SCORE).read_bytes())
    return CellResult(folder, manifest, asked[content], answers, frames, score)


def _place(cell: CellResult) -> tuple[Any, ...]:
    """The order of the tables: toy first, then model, benchmark, frames, context (uncompressed first), variant."""
    setting, order = cell.setting, (*VARIANTS, "")
    context = setting["context"] if isinstance(setting["context"], int) else 0
    where = (not cell.toy, setting["model"], cell.benchmark, cell.task, setting["frames"], setting["fps"], context)
    method = (setting.get("semantics", ""), setting["method"], order.index(cell.variant))
    return (*where, *method, cell.id)


@dataclass(frozen=True)
class Chosen:
    """The cells of one command.

    stored: all of the results folder that ``report.cells`` matches. wanted: ids of the configured matrix; empty where
    ``report.cells`` names the cells, or where the ids are not known because the weights are not on this machine;
    unknown: then what is missing.
    """

    stored: list[CellResult]
    wanted: list[str]
    unknown: tuple[str, ...] = ()

    @property
    def cells(self) -> list[CellResult]:
        """The wanted ones that are stored, in the order of the matrix."""
        by_id = {cell.id: cell for cell in self.stored}
        return [by_id[name] for name in self.wanted if name in by_id]

    @property
    def absent(self) -> list[str]:
        """Ids that are wanted and not stored."""
        stored = {cell.id for cell in self.stored}
        return [name for name in self.wanted if name not in stored]


def choose(
    results: str, references: Sequence[str], matrix: Callable[[list[str]], Sequence[Cell]], ids_under: Ids
) -> Chosen:
    """The cells that a command asks for. Raises UserError where the matrix cannot be built or a cell cannot be read.

    `references` are ``report.cells``. `matrix` makes the configured cells, and notes missing weights in its argument.
    """
    return Chosen(load_cells(results, references, ids_under), *wanted(references, matrix))


def wanted(
    references: Sequence[str], matrix: Callable[[list[str]], Sequence[Cell]]
) -> tuple[list[str], tuple[str, ...]]:
    """Ids of the cells that a command asks for, and the problems that leave them unknown; see `choose`, `Chosen`."""
    problems: list[str] = []
    names = [] if references else [cell.id for cell in matrix(problems)]
    return ([] if problems else names), tuple(dict.fromkeys(problems))


def newest(cells: Sequence[CellResult]) -> list[CellResult]:
    """The latest cell of each setting: older ones stem from other code, weights or prompts."""
    latest: dict[str, CellResult] = {}
    for cell in cells:
        key = cell.once("key text", partial(json.dumps, key_of(cell), sort_keys=True))
        if key not in latest or cell.manifest.created > latest[key].manifest.created:
            latest[key] = cell
    return list(latest.values())


def key_of(cell: CellResult) -> dict[str, Any]:
    """The `setting_key` of a cell."""
    return cell.once("key", lambda: setting_key(cell.cell))


RANDOM: dict[str, tuple[str, ...]] = {
    "replicate": ("task.replicate", "method.seed"),
    "numerics": ("model.dtype", "model.numerics"),
    "prompt": ("task.name", "task.protocol"),
}
"""What a reproduction may draw again -> the settings in which such cells differ."""


@dataclass(frozen=True)
class Replicates:
    """Cells alike but for one kind of chance, in the order of the tables; ``kind`` is a key of `RANDOM`."""

    kind: str
    cells: tuple[CellResult, ...]


def replicates(cells: Sequence[CellResult]) -> list[Replicates]:
    """Every set of two cells or more that differ in one kind of chance only; of cells of one setting the newest."""
    sets: dict[tuple[str, str], list[CellResult]] = defaultdict(list)
    for kind in RANDOM:
        for cell in newest(cells):
            sets[kind, family(cell, kind)].append(cell)
    return [Replicates(kind, tuple(alike)) for (kind, _), alike in sets.items() if len(alike) > 1]


def family(cell: CellResult, kind: str) -> str:
    """The cell's setting without what this kind of chance draws: equal for replicates of one another."""

    def text() -> str:
        groups = ((group, values) for group, values in key_of(cell).items() if isinstance(values, dict))
        kept = {f"{group}.{name}": value for group, values in groups for name, value in values.items()}
        left = {path: value for path, value in kept.items() if path not in RANDOM[kind]}
        return json.dumps([cell.benchmark, key_of(cell)["context"], left], sort_keys=True)

    return cell.once(("family", kind), text)


def published_letters(cell: CellResult, parser: str | None = None) -> list[str | None]:
    """`CellResult.letters` as letters of the published order of the options."""
    asked = [(question.question_id, question.options) for question in cell.questions]
    return as_published(cell.letters(parser), asked, cell.cell["task"].get("replicate", 0))
