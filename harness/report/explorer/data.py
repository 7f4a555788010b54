"""What the explorer's page reads: the questions with one letter and one state per cell, and the answers in pieces.

A page opened from a folder may not read files, so the data are scripts that fill variables. `index` is read at once
and is columnar; `chunk` holds all that is stored about `CHUNK` questions and is read when one of them is looked at.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.files import Folder
from harness.benchmarks.metrics import values
from harness.errors import UserError
from harness.evidence.cells import FAILED, MISSING, CellResult
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
