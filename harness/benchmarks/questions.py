"""The questions of a task, read from its annotation, without lmms-eval."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypedDict

from harness.advice import aside
from harness.benchmarks.benchmark import Benchmark, Item, Row, benchmark
from harness.benchmarks.files import TASKS, Folder, is_toy
from harness.benchmarks.metrics import values
from harness.benchmarks.parse import Parser
from harness.errors import QuestionError, UserError
from harness.settings.groups import TaskConfig

SIZES = {"ci": 150, "mini": 30}


def select(items: Sequence[Item], task: TaskConfig, asked: Benchmark) -> set[str]:
    """The ids of `task.subset`.

    Args:
        items: all questions of the benchmark's first protocol.
        task: its setting.
        asked: its benchmark.

    Raises:
        UserError: the subset is not known.
    """
    if task.subset not in SIZES:
        raise UserError(f"task.subset={task.subset} is not known; allowed: null, {', '.join(SIZES)}")
    pinned = pinned_ids(task, {item.question_id for item in items})
    return set(subset_ids(items, asked, SIZES[task.subset])) if pinned is None else pinned


def subset_ids(items: Sequence[Item], asked: Benchmark, size: int) -> list[str]:
    """The ids that the rule takes, sorted: about `size` of them, and at most half of all."""
    units: dict[str, list[str]] = defaultdict(list)  # what is taken together -> question ids
    strata: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for item in items:
        unit = str(item.tags[asked.together]) if asked.together else item.question_id
        units[unit].append(item.question_id)
        # A question with several values of a tag belongs to the stratum of the first.
        strata[tuple((values(item.tags.get(tag)) or ["None"])[0] for tag in asked.strata)].add(unit)
    per_unit = max(len(names) for names in units.values())
    shares = largest_remainders(
        {key: len(found) for key, found in strata.items()}, max(1, min(size, len(items) // 2) // per_unit)
    )
    taken = [unit for key, n in shares.items() for unit in sorted(strata[key], key=_rank)[:n]]
    return sorted(name for unit in taken for name in units[unit])


def largest_remainders(sizes: dict[tuple[str, ...], int], total: int) -> dict[tuple[str, ...], int]:
    """Shares of `total` in proportion to `sizes`, as integers that add up to it and exceed no size."""
    whole = sum(sizes.values())
    total = min(total, whole)
    shares = {key: total * n // whole for key, n in sizes.items()}
    rest = sorted(sizes, key=lambda key: (-(total * sizes[key] % whole), _rank("/".join(key))))
    for key in rest[: total - sum(shares.values())]:
        shares[key] += 1
    return shares


def _rank(name: str) -> str:
    return hashlib.sha256(f"subset 0 {name}".encode(errors="replace")).hexdigest()


def pinned_ids(task: TaskConfig, known: set[str]) -> set[str] | None:
    """The ids in the file of this subset for the annotation whose ids are `known`; None without one."""
    for path in sorted((TASKS / task.data / "subsets").glob(f"*_{task.split}_{task.subset}.txt")):
        head, *ids = path.read_text(encoding="utf-8").splitlines()
        if head == heading(known):
            return set(ids)
    return None


def heading(known: set[str]) -> str:
    """First line of a subset's file."""
    digest = hashlib.sha256("\n".join(sorted(known)).encode(errors="replace")).hexdigest()[:16]
    return f"# of the annotation with {len(known)} questions, digest of their ids {digest}"


def write(name: str, task: TaskConfig, root: Path) -> list[Path]:
    """Write the files of both subsets for the annotation below `root`, under `name`."""
    asked = benchmark(task.data)
    rows = asked.load(Folder(root, task.data, task.name), task.split)
    items = [asked.item(row) for row in rows if asked.evaluated(row, next(iter(asked.protocols)))]
    paths = []
    for subset, size in SIZES.items():
        path = TASKS / task.data / "subsets" / f"{name}_{task.split}_{subset}.txt"
        path.parent.mkdir(exist_ok=True)
        lines = [heading({item.question_id for item in items}), *subset_ids(items, asked, size)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def order_of(question_id: str, letters: Iterable[str], replicate: int) -> dict[str, str]:
    """Letter as shown -> letter of the same text as published.

    Args:
        question_id: of the question.
        letters: of its options.
        replicate: 0 is the published order; any other is a uniform draw from the orders that are not.
    """
    published = sorted(letters)
    drawn = list(published)
    seed = hashlib.sha256(f"order {replicate} {question_id}".encode(errors="replace")).digest()
    source = random.Random(int.from_bytes(seed[:8], "big"))
    while replicate and drawn == published and len(published) > 1:
        source.shuffle(drawn)
    return dict(zip(published, drawn, strict=True))


def reordered(question: Question, replicate: int) -> Question:
    """The question with its options in the order of a replicate; the right letter is that of the same text.

    Raises:
        QuestionError: the prompt does not list the options as ``A. text`` or ``(A) text``, each on its line.
    """
    order = order_of(question.question_id, question.options, replicate)
    moved = {shown: letter for shown, letter in order.items() if shown != letter}
    if not moved:
        return question
    prompt, end = question.prompt, len(question.prompt)
    for shown in sorted(moved, reverse=True):  # from the last, so that the places before stay
        place = _place(prompt[:end], shown, question.options[shown])
        if place is None:
            raise QuestionError(
                f"question {question.question_id} does not list option {shown} on a line of its own, so its options "
                "have no other order; ask it with task.replicate=0"
            )
        start, stop = place
        prompt, end = prompt[:start] + question.options[moved[shown]] + prompt[stop:], start
    back = {letter: shown for shown, letter in order.items()}
    return dataclasses.replace(
        question,
        prompt=prompt,
        options={shown: question.options[letter] for shown, letter in order.items()},
        answer=None if question.answer is None else back.get(question.answer, question.answer),
    )


def as_published(
    letters: Iterable[str | None], questions: Iterable[tuple[str, Mapping[str, str]]], replicate: int
) -> list[str | None]:
    """Answered letters as letters of the published order, so that replicates can be compared question by question.

    Args:
        letters: as shown; None stays None.
        questions: id and options of each.
        replicate: under which they were asked.
    """
    pairs = zip(letters, questions, strict=True)
    return [letter and order_of(name, options, replicate).get(letter, letter) for letter, (name, options) in pairs]


def _place(prompt: str, letter: str, text: str) -> tuple[int, int] | None:
    """Where the text of an option stands in a prompt: the last place that lists it."""
    mark = rf"^(?:{letter}\.|\({letter}\))[ ]*({re.escape(text)})[ ]*\.?[ ]*$"
    found = list(re.finditer(mark, prompt, flags=re.MULTILINE))
    return found[-1].span(1) if found else None


LONGEST_PROMPT = 100_000
"""Characters; the longest of the benchmarks' prompts, with 8000 words of subtitles, has about half."""


@dataclass(frozen=True)
class Question:
    """One question as a model gets it.

    ``prompt`` is the text behind the video; ``video`` may not exist on disk. ``problem`` says why the question cannot
    be asked: it is stored as failed with this reason. The rest is that of `Item`. Several questions share a ``video``.
    """

    question_id: str
    video_id: str
    video: Path
    prompt: str
    options: dict[str, str]
    answer: str | None
    tags: dict[str, str | list[str]]
    video_s: float | None = None
    evidence: tuple[tuple[float, float], ...] = ()
    problem: str | None = None

    @cached_property
    def digest(self) -> str:
        """Of the text that is asked, prompt and options; answers carry it, so that a changed annotation shows."""
        text = repr((self.prompt, sorted(self.options.items())))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def check_prompts(folder: Path, questions: Iterable[Question], digests: Mapping[str, str | None]) -> None:
    """Every answer was given to the text that its question asks now.

    Args:
        folder: of the cell.
        digests: of the prompts that were answered, by question id.

    Raises:
        UserError: annotations or prompts have changed since.
    """
    changed = [
        question.question_id
        for question in questions
        if question.question_id in digests and digests[question.question_id] != question.digest
    ]
    if changed:
        raise UserError(
            f"question {changed[0]} of {folder.name} reads differently from when it was answered ({len(changed)} do): "
            f"annotations or prompts have changed. Put the data back, or move the old answers away ({aside(folder)}) "
            "and start the same command again."
        )


@dataclass(frozen=True)
class Answered:
    """A row, its question and what was answered: the text, and the letter in it ("" where there is none)."""

    row: Row
    question: Question
    text: str
    letter: str


def load_rows(task: TaskConfig, root: Path) -> list[tuple[Row, Item]]:
    """What the task asks of its annotation: its split without the protocol's omissions, its subset, in order.

    Raises:
        UserError: the split is not known; the annotation is missing, damaged, empty, or names two questions alike.
    """
    asked = benchmark(task.data)
    folder = Folder(Path(root), task.data, task.name)
    rows = [row for row in asked.load(folder, task.split) if asked.evaluated(row, task.protocol)]
    if not rows:
        raise UserError(f"task={task.name}: the annotation of split {task.split} under {root} has no question")
    items = [asked.item(row) for row in rows]
    choices = task.split != "generation"
    wrong = [found for row, item in zip(rows, items, strict=True) if (found := _unusable(row, item, choices))]
    if wrong:
        more = f" ({len(wrong)} such questions)" if len(wrong) > 1 else ""
        raise UserError(f"task={task.name}: the annotation below {folder.root}: {wrong[0]}{more}; get it again")
    twice = [name for name, n in Counter(item.question_id for item in items).items() if n > 1]
    if twice:
        raise UserError(f"task={task.name}: {len(twice)} question ids occur more than once, the first is {twice[0]!r}")
    listed = list(zip(rows, items, strict=True))
    if task.subset is None:
        return listed
    chosen = select([item for row, item in listed if asked.evaluated(row, next(iter(asked.protocols)))], task, asked)
    return [(row, item) for row, item in listed if item.question_id in chosen]


def _unusable(row: Row, item: Item, choices: bool) -> str:
    """Why a row can be neither asked nor stored, in words; empty where it can."""
    name, raw = item.question_id, row.get("candidates", row.get("options"))
    if not isinstance(name, str) or not name.strip():
        return f"a question_id is {name!r} and no text, in the row {str(row)[:200]}"
    texts = list(item.options.values())
    if choices and raw is not None and len(texts) < 2:
        return f"question {name} has {len(texts)} options: {raw!r}"
    if isinstance(raw, str) and texts and all(len(text) == 1 for text in texts):
        return f"question {name} has one text for its options: {raw!r}"
    if choices and not isinstance(raw, str | None) and len(texts) != sum(str(text) != "N/A" for text in raw):
        return f"question {name} has {len(raw)} options under {len(texts)} letters: {list(raw)!r}"
    if choices and texts and item.answer is not None and item.answer not in item.options:
        return f"question {name} has the right answer {item.answer!r}, which is no option of {sorted(item.options)}"
    return ""


def in_part(task: TaskConfig, count: int, root: Path) -> str:
    """That an annotation is not the published benchmark in full, though no subset is asked for; empty where it is.

    Args:
        count: its questions.
        root: the data root.
    """
    whole = benchmark(task.data).counts.get(task.split, {}).get("questions")
    if task.subset is not None or not whole or count >= whole or is_toy(root):
        return ""
    return (
        f"the annotation of {task.name} below {root} has {count:,} of {whole:,} questions: its score is not one of the "
        "published benchmark"
    )


def load_asked(task: TaskConfig, root: Path) -> list[tuple[Row, Question]]:
    """The rows of `load_rows` with their questions.

    Raises:
        UserError: as `load_rows`; or a file is missing that a prompt needs.
    """
    asked, folder = benchmark(task.data), Folder(Path(root), task.data, task.name)
    found = [(row, question_of(asked, row, item, task.protocol, folder)) for row, item in load_rows(task, root)]
    return [(row, _replicated(question, task.replicate)) for row, question in found] if task.replicate else found


def load_questions(task: TaskConfig, root: Path) -> list[Question]:
    """The questions of `task` below the data root `root`, in the annotation's order. Raises as `load_asked`."""
    return [question for _, question in load_asked(task, root)]


def question_of(asked: Benchmark, row: Row, item: Item, protocol: str, folder: Folder) -> Question:
    """A row of an annotation as a question under a protocol.

    Raises:
        UserError: the protocol is not known, a file is missing, or the row names a video outside of `folder`.
    """
    prompt, problem = "", None
    try:
        prompt = asked.prompt(row, protocol, folder)
        prompt.encode()
    except QuestionError as error:
        problem = str(error)
    except UnicodeEncodeError as error:
        problem = f"question {item.question_id} holds a character that is none: {error}"
    if len(prompt) > LONGEST_PROMPT:
        problem = f"question {item.question_id} has {len(prompt):,} characters; allowed: up to {LONGEST_PROMPT:,}"
    return Question(
        question_id=item.question_id,
        video_id=item.video_id,
        video=folder.video(item.video),
        prompt=prompt,
        options=item.options,
        answer=item.answer,
        tags=item.tags,
        video_s=item.video_s,
        evidence=item.evidence,
        problem=problem,
    )


def _replicated(question: Question, replicate: int) -> Question:
    """The question in the order of a replicate; one that has no other order cannot be asked."""
    try:
        return question if question.problem else reordered(question, replicate)
    except QuestionError as error:
        return replace(question, problem=str(error))


class Scored(TypedDict):
    """One question's outcome. ``score`` is 1.0 or 0.0; ``letter`` is None where no letter could be parsed."""

    question_id: str
    video_id: str
    score: float
    letter: str | None
    answer: str | None
    tags: dict[str, str | list[str]]


def score_choice(text: str, asked: Item | Question, parser: Parser) -> Scored:
    """Parse one answer and compare it with the right letter; unparsed counts as wrong."""
    letter = parser(text, asked.options)
    right = letter is not None and letter == asked.answer
    return Scored(
        question_id=asked.question_id,
        video_id=asked.video_id,
        score=float(right),
        letter=letter,
        answer=asked.answer,
        tags=asked.tags,
    )
