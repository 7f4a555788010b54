"""What an imported file holds, whatever its format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError, printable


@dataclass(frozen=True)
class ImportedRow:
    """One question and what was answered.

    Attributes:
        place: where in the file, for messages: ``line 3``.
        text: what the model said, unchanged; None where the file has no answer.
        ids: names under which the question may be known.
        video: name or path of the video; empty where the file does not say it.
        question: the question, or the whole prompt with it; may be empty.
        options: letter to text; empty where the file does not list them.
        gold: the right answer as the file has it: a letter or a text.
        tags: groups of the question that help to find it where it has neither id nor text.
        letter: what the file's own parser made of the text ("" for nothing); None where it does not say.
        correct: the file's own verdict.
        error: why there is no answer, in the file's words.
    """

    place: str
    text: str | None
    ids: tuple[str, ...] = ()
    video: str = ""
    question: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    gold: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    letter: str | None = None
    correct: bool | None = None
    error: str | None = None


@dataclass(frozen=True)
class ImportedFile:
    """A file of another code base, read.

    Attributes:
        format: one of `harness.tools.verbs.FORMATS`.
        paths: what was read; the first is the file of answers.
        task: what the file calls its task; empty where it does not.
        rows: in the file's order.
        declared: what it says of its setting: in the words of `CellResult.setting` what can be said in them
            (``model``, ``frames``, ``fps``, ``max_new_tokens`` ...), the rest under the file's own names.
        parser: of ours, the one whose rule is nearest to the file's own.
        protocol: of ours, where the file says that it was asked under it.
    """

    format: str
    paths: tuple[Path, ...]
    task: str
    rows: list[ImportedRow]
    declared: dict[str, Any]
    parser: str | None = None
    protocol: str | None = None

    @property
    def digest(self) -> str:
        """Of the content of all its files."""
        whole = hashlib.sha256()
        for path in self.paths:
            whole.update(hashlib.sha256(path.read_bytes()).digest())
        return whole.hexdigest()


def damaged(path: Path, place: str, what: str) -> UserError:
    """The error of a file that cannot be taken, with the row."""
    where = f"{path}, {place}" if place else str(path)
    return UserError(printable(f"{where}: {what}"))


def json_object(path: Path, text: str | None = None, place: str = "") -> dict[str, Any]:
    """A JSON object: of a text, else the whole file.

    Raises:
        UserError: no JSON, or something else than an object; with the place.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8") if text is None else text)
    except ValueError as error:
        raise damaged(path, place, f"is not JSON ({error})") from error
    return an_object(path, place, found)


def an_object(path: Path, place: str, found: Any) -> dict[str, Any]:
    """What was found in a file, where it is an object.

    Raises:
        UserError: it is something else; with the place.
    """
    if not isinstance(found, dict):
        raise damaged(path, place, f"is not an object but {str(found)[:60]!r}")
    return found


def scalar(value: Any) -> Any:
    """A value as it may stand in a manifest: numbers, texts, truth values and null as they are, the rest as text."""
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def taken(path: Path, place: str, make: Callable[[], ImportedRow]) -> ImportedRow:
    """A row, whatever stands in it.

    Raises:
        UserError: something in it is of another kind than its format has; with the row.
    """
    try:
        return make()
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise damaged(path, place, f"cannot be read ({type(error).__name__}: {error})") from error
