"""Which of a benchmark's questions an imported row answers: by id, else by video and text."""

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
"""How a question was found; ``order``: several are alike, as many as rows, and the right answers agree in order."""

_OPTION = re.compile(r"\(?([A-Z])[).:]\s?")
_VIDEO = re.compile(r"\.(mp4|mkv|webm|avi|mov|flv|m4v)$", re.IGNORECASE)
_OPTION_LINE = re.compile(r"^\s*(\([A-H]\)|[A-H][.):])\s", re.MULTILINE)


@dataclass(frozen=True)
class Known:
    """A question of the benchmark; `text` is what is asked, without the options (empty where it is not known)."""

    record: QuestionRecord
    text: str = ""


@dataclass(frozen=True)
class Found:
    """A row and its question. `record` has the row's options where they stand in another order than ours."""

    row: ImportedRow
    record: QuestionRecord
    how: str


@dataclass
class Matching:
    """What became of a file's rows."""

    found: list[Found] = field(default_factory=list)
    """In the benchmark's order."""
    unmatched: list[tuple[ImportedRow, str]] = field(default_factory=list)
    """With the reason."""
    repeated: list[ImportedRow] = field(default_factory=list)
    """Rows that say again what a row before them says."""
    absent: list[str] = field(default_factory=list)
    """Questions of the benchmark that no row answers."""
    reordered: list[str] = field(default_factory=list)
    """Questions whose options the file has in another order; its letters are read in its own order."""
    gold_differs: list[str] = field(default_factory=list)
    """Questions whose right answer is another one in the file; ours counts."""
    wording_differs: list[str] = field(default_factory=list)
    """Questions found by id whose text, or some of whose options, read otherwise in the file; ours count."""


def plain(text: str) -> str:
    """A text for comparison: case, spaces and line ends do not count."""
    return " ".join(text.casefold().split())


def plain_option(text: str) -> str:
    """An option for comparison: without its letter and a final full stop."""
    return plain(_OPTION.sub("", text, count=1) if _OPTION.match(text) else text).rstrip(". ")


def plain_video(name: str) -> str:
    """A video for comparison: the file's name without its folder and suffix."""
    return _VIDEO.sub("", PurePosixPath(name.replace("\\", "/")).name)


def stem_of(question: str) -> str:
    """What is asked, without the options below it and what follows them."""
    first = _OPTION_LINE.search(question)
    return question[: first.start()] if first and first.start() else question


def asked_options(row: ImportedRow) -> Mapping[str, str]:
    """The options of a row, else the last list of them that its prompt has: lines from "A" on in order."""
    if row.options:
        return row.options
    found: dict[str, str] = {}
    for line in row.question.splitlines():
        mark = _OPTION.match(line.strip())
        if mark and mark[1] == "A":
            found = {}
        if mark and mark[1] == chr(ord("A") + len(found)):
            found[mark[1]] = line.strip()[mark.end() :].strip()
    return found if len(found) > 1 else {}


def options_of(listed: Iterable[object]) -> dict[str, str]:
    """Letter to text, of options with or without their letters; "N/A" stands for none."""
    texts = [str(each) for each in listed]
    lettered = all((m := _OPTION.match(text)) and m[1] == chr(ord("A") + i) for i, text in enumerate(texts))
    found = {}
    for i, text in enumerate(texts):
        if text != "N/A":
            found[chr(ord("A") + i)] = _OPTION.sub("", text, count=1).strip() if lettered else text
    return found


def match(rows: Sequence[ImportedRow], known: Sequence[Known], path: object) -> Matching:
    """Find the question of every row.

    Raises:
        UserError: two rows give different answers to one question.
    """
    made = Matching()
    index = _Index(known)
    found: list[Found] = []
    alike: dict[tuple[int, ...], list[ImportedRow]] = defaultdict(list)
    for row in rows:
        named = next((index.by_id[name] for name in row.ids if name in index.by_id), None)
        if named is not None:
            if _another(row, known[named].record):
                made.unmatched.append((row, f"the question {known[named].record.question_id} has other options"))
            else:
                found.append(Found(row, known[named].record, BY_ID))
                if row.question and plain(known[named].text) not in plain(row.question):
                    made.wording_differs.append(known[named].record.question_id)
            continue
        places = index.candidates(row)
        if not places:
            made.unmatched.append((row, "no question with this id, or with this video and text"))
        elif len(places) == 1:
            found.append(Found(row, known[places[0]].record, BY_TEXT))
        else:
            alike[places].append(row)
    for places, group in alike.items():
        records = [known[place].record for place in places]
        agree = all(_letter(row, record) in (None, record.answer) for row, record in zip(group, records, strict=False))
        if len(group) == len(places) and agree:
            found += [Found(row, record, BY_ORDER) for row, record in zip(group, records, strict=True)]
        else:
            made.unmatched += [(row, f"may be any of {len(places)} questions") for row in group]
    _settle(found, known, made, path)
    return made


def _settle(found: list[Found], known: Sequence[Known], made: Matching, path: object) -> None:
    """One row per question, in the benchmark's order; what differs between file and benchmark is noted."""
    first: dict[str, Found] = {}
    for each in found:
        held = first.setdefault(each.record.question_id, each)
        if held is each:
            continue
        if (held.row.text, held.row.error) != (each.row.text, each.row.error):
            raise UserError(
                printable(
                    f"{path}: {held.row.place} and {each.row.place} answer the same question "
                    f"{each.record.question_id} differently; nobody can say which counts. Remove one of them."
                )
            )
        made.repeated.append(each.row)
    for asked in known:
        name = asked.record.question_id
        if name not in first:
            made.absent.append(name)
            continue
        one = first[name]
        made.found.append(Found(one.row, _as_asked(one.row, asked.record, made), one.how))


def _as_asked(row: ImportedRow, ours: QuestionRecord, made: Matching) -> QuestionRecord:
    record = ours
    listed = asked_options(row)
    if listed and ours.options:
        theirs = {letter: plain_option(text) for letter, text in listed.items()}
        own = {letter: plain_option(text) for letter, text in ours.options.items()}
        if theirs != own and sorted(theirs.values()) == sorted(own.values()):
            made.reordered.append(ours.question_id)
            right = None if ours.answer is None else own.get(ours.answer)
            answer = next((letter for letter, text in theirs.items() if text == right), None)
            record = QuestionRecord(ours.question_id, ours.video_id, dict(listed), answer, ours.tags)
        elif row.options and theirs != own and ours.question_id not in made.wording_differs:
            made.wording_differs.append(ours.question_id)
    gold = _letter(row, record)
    if gold is not None and record.answer is not None and gold != record.answer:
        made.gold_differs.append(ours.question_id)
    return record


def _letter(row: ImportedRow, record: QuestionRecord) -> str | None:
    """The row's right answer as a letter; None where it has none, or one that is no option."""
    if row.gold is None:
        return None
    for options in filter(None, (row.options, record.options)):
        wanted = plain_option(row.gold)
        texts = [letter for letter, text in options.items() if plain_option(text) == wanted]
        if row.gold.strip() in options and not texts:
            return row.gold.strip()
        if texts:
            return record.answer if record.answer in texts else texts[0]
    return None


def _another(row: ImportedRow, record: QuestionRecord) -> bool:
    """Whether a row with a question's id asks something else: no option is the same."""
    if not row.options or not record.options:
        return False
    theirs = {plain_option(text) for text in row.options.values()}
    return theirs.isdisjoint(plain_option(text) for text in record.options.values())


class _Index:
    """A benchmark's questions by what rows say of them."""

    def __init__(self, known: Sequence[Known]) -> None:
        self._known = known
        self.by_id = {each.record.question_id: place for place, each in enumerate(known)}
        self._texts = [plain(each.text) for each in known]
        self._videos = [plain_video(each.record.video_id) for each in known]
        self._options = [Counter(map(plain_option, each.record.options.values())) for each in known]
        self._lines: dict[str, list[int]] = defaultdict(list)
        self._of_video: dict[str, list[int]] = defaultdict(list)
        for place, each in enumerate(known):
            if self._texts[place]:
                self._lines[plain(each.text.strip().splitlines()[0])].append(place)
            self._of_video[self._videos[place]].append(place)

    def candidates(self, row: ImportedRow) -> tuple[int, ...]:
        """The questions that a row may be, in the benchmark's order."""
        video = plain_video(row.video)
        places: list[int]
        if row.question and self._lines:
            lines = {plain(line.removeprefix("Question:")) for line in row.question.splitlines()}
            places = sorted({place for line in lines for place in self._lines.get(line, ())})
            whole = plain(row.question)
            places = [place for place in places if self._texts[place] in whole]
            places = _narrow(places, lambda place: not video or self._videos[place] == video, strict=True)
        elif video and (row.options or row.tags):
            places = list(self._of_video.get(video, ()))
            if row.gold is not None:  # the releases ask no question without a right option
                places = _narrow(places, lambda place: self._known[place].record.answer is not None)
        else:
            return ()
        if listed := asked_options(row):
            asked = Counter(map(plain_option, listed.values()))
            places = _narrow(places, lambda place: self._options[place] == asked, strict=bool(row.options))
        return tuple(_narrow(places, lambda place: _tagged(self._known[place].record, row.tags), strict=True))


def _narrow(places: list[int], fits: Callable[[int], bool], strict: bool = False) -> list[int]:
    kept = [place for place in places if fits(place)]
    return kept if kept or strict else places


def _tagged(record: QuestionRecord, tags: Mapping[str, str]) -> bool:
    return all(record.tags.get(name) == value for name, value in tags.items())
