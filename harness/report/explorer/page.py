"""Writing the explorer's folder: the page, its script, the table widget out of its package, and the data."""

from __future__ import annotations

import importlib.metadata
import json
import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.files import Folder
from harness.benchmarks.metrics import values
from harness.errors import UserError
from harness.evidence.cells import FAILED, MISSING, CellResult
from harness.records import StoreError, write_atomic
from harness.report.style import picture
from harness.store import QuestionRecord

CHUNK = 32
"""Questions of one piece."""
SEARCHED = 200
"""Characters of an answer that a search looks at."""
FIELDS = (
    "text", "error", "n_encoded", "n_video", "n_prompt", "prefilled", "cache_peak", "cache_length", "chunk_budget",
    "kept_margin", "evidence_seen", "seconds", "n_new", "peak_memory", "moved_bytes", "backend", "start", "time",
)  # fmt: skip
"""Of a stored answer, in this order."""
LABELLED = {"model": "{}", "frames": "{} frames", "fps": "{:g} fps", "context": "context {}"}
"""Settings that name a column where they differ."""


@dataclass(frozen=True)
class AnswerRow:
    """A question, however many cells were asked it.

    Args:
        group: the benchmark in print, with its split.
        source: name of the benchmark, and of the split.
        answers: place of the cell, and of the question among the cell's own.
    """

    group: str
    source: tuple[str, str]
    question: QuestionRecord
    answers: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Answers:
    """Cells and their questions, those that several cells were asked once."""

    cells: Sequence[CellResult]
    rows: list[AnswerRow]
    asked: list[list[int]]
    """Per cell the rows of its questions, in the order asked; cells that asked the same share the list."""

    @classmethod
    def of(cls, cells: Sequence[CellResult]) -> Answers:
        """Questions are the same where benchmark, split, id, video, options and right answer are."""
        places: dict[Any, int] = {}
        rows: list[AnswerRow] = []
        known: dict[tuple[str, int], list[int]] = {}
        asked = []
        for number, cell in enumerate(cells):
            group, source = group_title(cell), (cell.benchmark, str(cell.cell["task"]["split"]))
            if (own := known.get((group, id(cell.asked)))) is None:
                own = known[group, id(cell.asked)] = []
                for q in cell.questions:
                    key = (group, q.question_id, q.video_id, q.answer, *q.options.items())
                    if (place := places.setdefault(key, len(rows))) == len(rows):
                        rows.append(AnswerRow(group, source, q))
                    own.append(place)
            asked.append(own)
            for i, place in enumerate(own):
                rows[place].answers.append((number, i))
        return cls(cells, rows, asked)


def group_title(cell: CellResult) -> str:
    """The benchmark in print, with its split where that is not the first one: ``MLVU test``."""
    spec, split = benchmark(cell.benchmark), cell.cell["task"]["split"]
    words = [spec.title, *([] if split == next(iter(spec.counts)) else [split]), *(["(toy)"] if cell.toy else [])]
    return " ".join(words)


def index(found: Answers, data_root: Path) -> dict[str, Any]:
    """Everything that the table, the filters and the search need.

    ``rows`` are columns; ``cells`` have per question of theirs a state (r: right, w: wrong, u: unparsed, f: failed,
    m: missing, n: nobody knows the right answer), the letter that the cell's own parser found, and the place of the
    answer's beginning among the different ``said``.
    """
    texts, remarks = question_texts(found.rows, data_root)
    groups = list(dict.fromkeys(row.group for row in found.rows))
    categories: dict[str, int] = {}
    tags = {
        name: [tag for tag in benchmark(name).metrics.groups.values()] for name in {r.source[0] for r in found.rows}
    }
    listed = [
        [
            categories.setdefault(f"{tag.replace('_', ' ')}: {value}", len(categories))
            for tag in tags[row.source[0]]
            for value in values(row.question.tags.get(tag))
        ]
        for row in found.rows
    ]
    said: dict[str, int] = {}
    lists = list({id(own): own for own in found.asked}.values())
    place = {id(own): i for i, own in enumerate(lists)}
    columns = labels(found.cells)
    names = list(dict.fromkeys(columns))
    return {
        "chunk": CHUNK,
        "fields": ["letters", "frames", *FIELDS],
        "remarks": remarks,
        "groups": groups,
        "sources": [next(row.source[0] for row in found.rows if row.group == group) for group in groups],
        "categories": list(categories),
        "columns": names,
        "rows": {
            "id": [row.question.question_id for row in found.rows],
            "video": [row.question.video_id for row in found.rows],
            "group": [groups.index(row.group) for row in found.rows],
            "gold": [row.question.answer for row in found.rows],
            "options": [list(row.question.options.items()) for row in found.rows],
            "category": listed,
            "seconds": seconds(found),
            "text": [texts.get((*row.source, row.question.question_id), "") for row in found.rows],
        },
        "asked": lists,
        "cells": [
            {
                "id": cell.id,
                "column": names.index(column),
                "asked": place[id(own)],
                "parsers": [cell.parser, *cell.other_parsers],
                "setting": [[key, str(value)] for key, value in cell.setting.items() if value != "none"],
                "states": states(cell),
                "letters": "".join((letter or " ")[0] for letter in cell.letters()),
                "said": [said.setdefault(text, len(said)) for text in beginnings(cell)],
            }
            for cell, own, column in zip(found.cells, found.asked, columns, strict=True)
        ],
        "said": list(said),
    }  # fmt: skip


def states(cell: CellResult) -> str:
    """One letter per question, see `index`."""
    marks = {FAILED: "f", MISSING: "m"}
    rows = zip(cell.statuses, cell.questions, cell.letters(), cell.correct().tolist(), strict=True)
    return "".join(
        marks.get(status) or ("n" if question.answer is None else "u" if letter is None else "r" if right else "w")
        for status, question, letter, right in rows
    )


def beginnings(cell: CellResult) -> list[str]:
    """Per question the first characters of its answer; of a failed one those of the reason."""
    found = (cell.answers.get(question.question_id) for question in cell.questions)
    return ["" if a is None else (a.text if a.ok else a.reason)[:SEARCHED] for a in found]


def seconds(found: Answers) -> list[float | None]:
    """Per row how long its video is: when the last frame was that any cell saw; None where no answer says."""
    last: dict[str, float] = {}
    longest: dict[tuple[str, str], float] = defaultdict(float)
    videos = [(row.group, row.question.video_id) for row in found.rows]
    for row, video in zip(found.rows, videos, strict=True):
        for number, _ in row.answers:
            cell = found.cells[number]
            answer = cell.answers.get(row.question.question_id)
            if answer is not None and (digest := answer.frames) is not None:
                if digest not in last:
                    last[digest] = max(cell.frames.find(digest).timestamps, default=0.0)
                longest[video] = max(longest[video], last[digest])
    return [round(longest[video], 1) or None for video in videos]


def question_texts(rows: Sequence[AnswerRow], data_root: Path) -> tuple[dict[tuple[str, str, str], str], list[str]]:
    """(benchmark, split, question id) -> the question in words, from the annotations; and what could not be read.

    A cell keeps the digest of its prompts, not their words. A text is taken where the annotation's video, options and
    right answer are those that were asked.
    """
    texts: dict[tuple[str, str, str], str] = {}
    remarks: list[str] = []
    asked: dict[tuple[str, str], dict[str, QuestionRecord]] = defaultdict(dict)
    for row in rows:
        asked[row.source][row.question.question_id] = row.question
    for (name, split), records in asked.items():
        spec = benchmark(name)
        try:
            listed = [(row, spec.item(row)) for row in spec.load(Folder(data_root, name, name), split)]
        except UserError:
            remarks.append(f"No annotation of {spec.title} under {data_root}: its questions are without their words.")
            continue
        for annotated, item in listed:
            of = records.get(item.question_id)
            if of and (of.video_id, of.options, of.answer) == (item.video_id, item.options, item.answer):
                options = {f"({letter}){text}".replace(" ", "") for letter, text in item.options.items()}
                lines = str(annotated.get("question", "")).split("\n")
                kept = [line for line in lines if line.replace(" ", "") not in options]
                texts[name, split, item.question_id] = "\n".join(kept).strip()
    return texts, list(dict.fromkeys(remarks))


def labels(cells: Sequence[CellResult]) -> list[str]:
    """Per cell the name of its column: the method and what else differs. Of one benchmark, each has its own."""
    differ = [key for key in LABELLED if len({str(c.setting.get(key)) for c in cells}) > 1]
    names = [
        ", ".join([cell.method_title, *(LABELLED[key].format(cell.setting[key]) for key in differ)]) for cell in cells
    ]
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, cell in enumerate(cells):
        alike[group_title(cell), names[i]].append(i)
    for places in (of for of in alike.values() if len(of) > 1):
        settings = [{k: v for k, v in cells[i].setting.items() if k != "questions"} for i in places]
        keys = [k for k in dict.fromkeys(k for s in settings for k in s) if len({str(s.get(k)) for s in settings}) > 1]
        for i, own in zip(places, settings, strict=True):
            names[i] = ", ".join([names[i], *(f"{key} {own[key]}" for key in keys if key in own)])
        if len({names[i] for i in places}) < len(places):
            for i in places:
                names[i] += f", {cells[i].manifest.digest[:8]}"
    return names


def chunks(found: Answers) -> Iterator[list[list[list[Any]]]]:
    """Pieces of `CHUNK` rows: per row and cell the cell's place, the letters of its parsers (own one first), how many
    frames were seen, and `FIELDS` of the answer; nothing of a missing one."""
    take = attrgetter(*FIELDS)
    letters = [[cell.letters(name) for name in (cell.parser, *cell.other_parsers)] for cell in found.cells]
    n_frames: dict[str | None, int | None] = {None: None}
    piece: list[list[list[Any]]] = []
    for row in found.rows:
        listed = []
        for number, place in row.answers:
            cell = found.cells[number]
            answer = cell.answers.get(row.question.question_id)
            if answer is None:
                continue
            if answer.frames not in n_frames:
                n_frames[answer.frames] = len(cell.frames.find(str(answer.frames)).indices)
            listed.append([number, [of[place] for of in letters[number]], n_frames[answer.frames], *take(answer)])
        piece.append(listed)
        if len(piece) == CHUNK:
            yield piece
            piece = []
    if piece:
        yield piece


def script(name: str, value: Any) -> str:
    """A script that fills a variable; its text is ASCII and holds no ``<``, wherever it may be put."""
    return f"{name}={json.dumps(value, separators=(',', ':'))};\n".replace("<", "\\u003c")


HERE = Path(__file__).parent
FOLDER, PAGE, LIST = "explorer", "index.html", "data/pictures.js"


def write_explorer(cells: Sequence[CellResult], report: Path, data_root: Path) -> None:
    """Write the folder ``explorer`` anew, which then replaces the old one.

    Args:
        report: the report's folder, which it stands in.
        data_root: the benchmarks' annotations, for the questions in words.

    Raises:
        UserError: the package of the table widget is not what was expected.
        StoreError: the folder cannot be written.
    """
    found, folder = Answers.of(cells), report / FOLDER
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.tmp")
    try:
        (draft / "data").mkdir(parents=True)
        files = {
            PAGE: explorer_html(found),
            "explorer.js": (HERE / "explorer.js").read_text(encoding="utf-8"),
            **datatables(),
            "data/index.js": script("EXPLORER.index", index(found, data_root)),
            LIST: pictures(report),
        }
        for name, text in files.items():
            (draft / name).write_text(text, encoding="utf-8")
        for number, piece in enumerate(chunks(found)):
            (draft / "data" / f"{number}.js").write_text(script(f"EXPLORER.chunks[{number}]", piece), encoding="ascii")
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    except OSError as error:
        raise StoreError(
            f"cannot write {folder}: {error.strerror or error}. Free space there (df -h {folder.parent}), or leave the "
            "pages of answers out with report.explorer=false."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def explorer_html(found: Answers) -> str:
    """The page without its data."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((HERE / "page.html.j2").read_text(encoding="utf-8"))
    answers = sum(len(cell.answers) for cell in found.cells)
    return template.render(questions=len(found.rows), answers=answers, cells=len(found.cells))


def datatables() -> dict[str, str]:
    """The files of DataTables (MIT licence) as the package ``itables`` delivers them: name -> content.

    A page opened from a folder may not import modules, so the module becomes a plain script that defines `DataTable`.

    Raises:
        UserError: the package is absent, or its bundle exports no table.
    """
    try:
        package = importlib.metadata.distribution("itables")
        bundle, style = (
            Path(str(package.locate_file(f"itables/html/dt_bundle.{kind}"))).read_text(encoding="utf-8")
            for kind in ("js", "css")
        )
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        raise UserError(
            f"the pages of answers need the package itables ({error}): pip install -c constraints.txt itables; or "
            "leave them out with report.explorer=false"
        ) from error
    exported = re.search(r"export\s*\{[^}]*?([\w$]+) as default[^}]*\};?", bundle)
    if exported is None:
        raise UserError(
            f"the package itables {package.version} has no table as it was expected: "
            "pip install -c constraints.txt itables; or leave the pages of answers out with report.explorer=false"
        )
    body = f"{bundle[: exported.start()]}window.DataTable={exported[1]};{bundle[exported.end() :]}"
    return {"datatables.js": f"(()=>{{{body}\n}})();\n", "datatables.css": style}


def hang_pictures(report: Path) -> None:
    """Hang the pictures that there are now at their questions, where the report has an explorer.

    Raises:
        StoreError: the list cannot be written.
    """
    if (report / FOLDER / PAGE).is_file():
        write_atomic(report / FOLDER / LIST, pictures(report))


def pictures(report: Path) -> str:
    """A script that lists, per question id, addresses and names of the pictures that `show` has drawn."""
    listed = [
        [
            unquote(folder.name),
            [[quote(f"../{folder.parent.name}/{folder.name}/{path.name}"), path.stem] for path in of],
        ]
        for folder in sorted(picture(report, "q", "p").parent.parent.glob("*"))
        if (of := sorted(folder.glob("*.png")))
    ]
    return script("EXPLORER.pictures", listed)
