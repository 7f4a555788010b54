"""Matching imported rows to the questions of a benchmark: by id, else by video and text."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from harness.errors import UserError, printable
from harness.store import QuestionRecord
from harness.tools.exchange.rows import ImportedRow

BY_ID, BY_TEXT, BY_ORDER = "id", "video and text", "order"
"""How a row was matched. ``order``: as many rows as questions that are equal in options, their order, and answer."""

_OPTION = re.compile(r"\(?([A-Z])[).:]\s?")
_VIDEO = re.compile(r"\.(mp4|mkv|webm|avi|mov|flv|m4v)$", re.IGNORECASE)
_OPTION_LINE = re.compile(r"^\s*(\([A-H]\)|[A-H][.):])\s", re.MULTILINE)


@dataclass(frozen=True)
class KnownQuestion:
    """A question of the benchmark. `text` is the question without its options; empty where it is not known."""

    record: QuestionRecord
    text: str = ""


@dataclass(frozen=True)
class MatchedRow:
    """A row and its question. `record` has the options in the row's order where it differs from ours."""

    row: ImportedRow
    record: QuestionRecord
    how: str


@dataclass
class Matching:
    """The rows of a file, matched.

    Attributes:
        matched: in the benchmark's order.
        unmatched: rows without a question, with the reason.
        repeated: rows that repeat an earlier row.
        absent: questions of the benchmark that no row answers.
        reordered: questions with their options in another order in the file; its letters are read in that order.
        gold_differs: questions with another right answer in the file; ours counts.
        wording_differs: questions matched by id whose text or options read differently in the file; ours count.
    """

    matched: list[MatchedRow] = field(default_factory=list)
    unmatched: list[tuple[ImportedRow, str]] = field(default_factory=list)
    repeated: list[ImportedRow] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    gold_differs: list[str] = field(default_factory=list)
    wording_differs: list[str] = field(default_factory=list)


def comparable(text: str) -> str:
    """A text without differences of case, spaces and line ends."""
    return " ".join(text.casefold().split())


def comparable_option(text: str) -> str:
    """An option as :func:`comparable`, without its letter and a final full stop."""
    return comparable(_OPTION.sub("", text, count=1) if _OPTION.match(text) else text).rstrip(". ")


def comparable_video(name: str) -> str:
    """The name of a video without folder and suffix."""
    return _VIDEO.sub("", PurePosixPath(name.replace("\\", "/")).name)


def stem_of(question: str) -> str:
    """A question without its options and the text after them."""
    first = _OPTION_LINE.search(question)
    return question[: first.start()] if first and first.start() else question


def asked_options(row: ImportedRow) -> Mapping[str, str]:
    """The options of a row, else the last list of lettered lines in its prompt that starts with "A"."""
    if row.options:
        return row.options
    options: dict[str, str] = {}
    for line in row.question.splitlines():
        mark = _OPTION.match(line.strip())
        if mark and mark[1] == "A":
            options = {}
        if mark and mark[1] == chr(ord("A") + len(options)):
            options[mark[1]] = line.strip()[mark.end() :].strip()
    return options if len(options) > 1 else {}


def options_of(listed: Iterable[object]) -> dict[str, str]:
    """Letter -> text of options with or without their letters; "N/A" is no option."""
    texts = [str(text) for text in listed]
    lettered = all((m := _OPTION.match(text)) and m[1] == chr(ord("A") + i) for i, text in enumerate(texts))
    options = {}
    for i, text in enumerate(texts):
        if text != "N/A":
            options[chr(ord("A") + i)] = _OPTION.sub("", text, count=1).strip() if lettered else text
    return options


def match_rows(rows: Sequence[ImportedRow], known: Sequence[KnownQuestion], path: object) -> Matching:
    """Find the question of every row.

    Raises:
        UserError: two rows give different answers to one question.
    """
    matching = Matching()
    index = _Index(known)
    pairs: list[MatchedRow] = []
    alike: dict[tuple[int, ...], list[ImportedRow]] = defaultdict(list)
    for row in rows:
        named = next((known[index.by_id[name]] for name in row.ids if name in index.by_id), None)
        if named is not None and _other_question(row, named.record):
            matching.unmatched.append((row, f"the question {named.record.question_id} has other options"))
        elif named is not None:
            pairs.append(MatchedRow(row, named.record, BY_ID))
            if row.question and comparable(named.text) not in comparable(row.question):
                matching.wording_differs.append(named.record.question_id)
        elif not (places := index.candidates(row)):
            matching.unmatched.append((row, "no question with this id, or with this video and text"))
        elif len(places) == 1:
            pairs.append(MatchedRow(row, known[places[0]].record, BY_TEXT))
        else:
            alike[places].append(row)
    for places, group in alike.items():
        records = [known[place].record for place in places]
        contents = {(*record.options.items(), record.answer) for record in records}
        if len(contents) == 1 and len(group) == len(places):
            pairs += [MatchedRow(row, record, BY_ORDER) for row, record in zip(group, records, strict=True)]
        else:
            matching.unmatched += [(row, f"may be any of {len(places)} questions") for row in group]
    first: dict[str, MatchedRow] = {}
    for pair in pairs:
        before = first.setdefault(pair.record.question_id, pair)
        if (before.row.text, before.row.error) != (pair.row.text, pair.row.error):
            raise UserError(
                printable(
                    f"{path}: {before.row.place} and {pair.row.place} answer the same question "
                    f"{pair.record.question_id} differently; nobody can say which counts. Remove one of them."
                )
            )
        if before is not pair:
            matching.repeated.append(pair.row)
    for question in known:
        name = question.record.question_id
        if name not in first:
            matching.absent.append(name)
            continue
        pair = first[name]
        matching.matched.append(MatchedRow(pair.row, _as_asked(pair.row, question.record, matching), pair.how))
    wrong, judged = len(matching.gold_differs), sum(pair.row.gold is not None for pair in matching.matched)
    if 2 * wrong > judged:
        raise UserError(
            f"{path}: {wrong} of {judged} questions have another right answer than in the annotation (the first: "
            f"{matching.gold_differs[0]}): these are not the same questions, or options in another order that the file "
            "does not show. Name the questions with of=, or leave the file out."
        )
    return matching


def _as_asked(row: ImportedRow, ours: QuestionRecord, matching: Matching) -> QuestionRecord:
    """The question with the options in the row's order; differences between file and benchmark are noted."""
    record = ours
    listed = asked_options(row)
    if listed and ours.options:
        in_file = {letter: comparable_option(text) for letter, text in listed.items()}
        here = {letter: comparable_option(text) for letter, text in ours.options.items()}
        if in_file != here and sorted(in_file.values()) == sorted(here.values()):
            matching.reordered.append(ours.question_id)
            right = None if ours.answer is None else here.get(ours.answer)
            answer = next((letter for letter, text in in_file.items() if text == right), None)
            record = QuestionRecord(ours.question_id, ours.video_id, dict(listed), answer, ours.tags)
        elif row.options and in_file != here and ours.question_id not in matching.wording_differs:
            matching.wording_differs.append(ours.question_id)
    gold = _letter(row, record)
    if gold is not None and record.answer is not None and gold != record.answer:
        matching.gold_differs.append(ours.question_id)
    return record


def _letter(row: ImportedRow, record: QuestionRecord) -> str | None:
    """The row's right answer as a letter; None where it has none, or one that is no option."""
    if row.gold is None:
        return None
    for options in filter(None, (row.options, record.options)):
        wanted = comparable_option(row.gold)
        texts = [letter for letter, text in options.items() if comparable_option(text) == wanted]
        if row.gold.strip() in options and not texts:
            return row.gold.strip()
        if texts:
            return record.answer if record.answer in texts else texts[0]
    return None


def _other_question(row: ImportedRow, record: QuestionRecord) -> bool:
    """Whether a row with a question's id has none of its options."""
    if not row.options or not record.options:
        return False
    in_file = {comparable_option(text) for text in row.options.values()}
    return in_file.isdisjoint(comparable_option(text) for text in record.options.values())


class _Index:
    """The questions of a benchmark by id, text, video and options."""

    def __init__(self, known: Sequence[KnownQuestion]) -> None:
        self._known = known
        self.by_id = {question.record.question_id: place for place, question in enumerate(known)}
        self._texts = [comparable(question.text) for question in known]
        self._videos = [comparable_video(question.record.video_id) for question in known]
        self._options = [Counter(map(comparable_option, question.record.options.values())) for question in known]
        self._lines: dict[str, list[int]] = defaultdict(list)
        self._of_video: dict[str, list[int]] = defaultdict(list)
        for place, question in enumerate(known):
            if self._texts[place]:
                self._lines[comparable(question.text.strip().splitlines()[0])].append(place)
            self._of_video[self._videos[place]].append(place)

    def _lettered(self, place: int) -> dict[str, str]:
        options = self._known[place].record.options
        return {letter: comparable_option(text) for letter, text in options.items()}

    def candidates(self, row: ImportedRow) -> tuple[int, ...]:
        """The questions that a row may be, in the benchmark's order."""
        video = comparable_video(row.video)
        places: list[int]
        if row.question and self._lines:
            lines = {comparable(line.removeprefix("Question:")) for line in row.question.splitlines()}
            places = sorted({place for line in lines for place in self._lines.get(line, ())})
            whole = comparable(row.question)
            places = [place for place in places if self._texts[place] in whole]
            places = _narrow(places, lambda place: not video or self._videos[place] == video, strict=True)
        elif video and (row.options or row.tags):
            places = list(self._of_video.get(video, ()))
            if row.gold is not None:  # the releases ask no question without a right option
                places = _narrow(places, lambda place: self._known[place].record.answer is not None)
        else:
            return ()
        if listed := asked_options(row):
            asked = Counter(map(comparable_option, listed.values()))
            places = _narrow(places, lambda place: self._options[place] == asked, strict=bool(row.options))
            # Questions may differ in the order of their options alone. Rows of several ranks come in any order.
            lettered = {letter: comparable_option(text) for letter, text in listed.items()}
            places = _narrow(places, lambda place: self._lettered(place) == lettered)
        places = _narrow(places, lambda place: _tagged(self._known[place].record, row.tags), strict=True)
        if len(places) > 1:
            records = [self._known[place].record for place in places]
            right = [_letter(row, record) == record.answer is not None for record in records]
            places = [place for place, is_right in zip(places, right, strict=True) if is_right] or places
        return tuple(places)


def _narrow(places: list[int], fits: Callable[[int], bool], strict: bool = False) -> list[int]:
    kept = [place for place in places if fits(place)]
    return kept if kept or strict else places


def _tagged(record: QuestionRecord, tags: Mapping[str, str]) -> bool:
    return all(record.tags.get(name) == value for name, value in tags.items())
