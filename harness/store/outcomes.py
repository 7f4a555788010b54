"""What became of a cell's questions: enough to say what is still to be asked, at a small part of the memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.store.answers import Answer, answer_files, read_answers

Files = tuple[tuple[str, int, int, int], ...]
"""Name, inode, bytes and time of the last change of every answers file of a cell."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a question, without what was said: all that decides whether it is asked."""

    ok: bool
    start: str | None
    reason: str = ""  # why it failed


@dataclass(frozen=True)
class Outcomes:
    """What a cell's answers files said when they were read."""

    of: Mapping[str, Outcome]  # by question id
    files: Files


def outcomes_of(answers: Mapping[str, Answer], files: Files) -> Outcomes:
    """The outcomes of answers that were read from files in that state; equal ones are one object."""
    one: dict[Outcome, Outcome] = {}
    found = {name: Outcome(answer.ok, answer.start, answer.reason) for name, answer in answers.items()}
    return Outcomes({name: one.setdefault(outcome, outcome) for name, outcome in found.items()}, files)


def files_now(cell_dir: Path | str) -> Files:
    """The state of a cell's answers files: equal to that of before where nothing was written since."""
    found = ((path.name, path.stat()) for path in answer_files(cell_dir))
    return tuple((name, of.st_ino, of.st_size, of.st_mtime_ns) for name, of in found)


def read_outcomes(cell_dir: Path | str, known: Outcomes | None = None) -> Outcomes:
    """The outcomes of a cell; `known` ones where its files are as they were. Raises as `read_answers`."""
    files = files_now(cell_dir)
    return known if known is not None and known.files == files else outcomes_of(read_answers(cell_dir), files)


def is_needed(answer: Answer | Outcome | None, retry: str, start: str | None = None) -> bool:
    """Whether a question must still be asked.

    Args:
        answer: what the store holds for it.
        retry: "none" leaves failed questions alone, "failed" asks them again.
        start: a failure of this start of a run counts as tried. Clocks are not compared: they differ and are set.
    """
    if answer is None:
        return True
    return not answer.ok and retry == "failed" and (start is None or answer.start != start)
