"""Questions and answers between this harness and the files of other code bases: rows read, and rows to write."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError, printable
from harness.store import Answer, QuestionRecord

_OUR_WORDS = {
    "pretrained": "model", "model_version": "model", "max_num_frames": "frames", "max_frames_num": "frames",
    "max_frames": "frames", "num_frames": "frames", "nframes": "frames", "torch_dtype": "dtype",
    "attn_implementation": "attention",
}  # fmt: skip
"""Arguments of models and of generation that have another name here, see `harness.settings.rules.label_of`."""
_NO_SETTINGS = ("until", "image_aspect_ratio")


@dataclass(frozen=True)
class ImportedRow:
    """One question of a file, and its answer.

    Attributes:
        place: where in the file, for messages: ``line 3``.
        text: the model's answer, unchanged; None where the file has no answer.
        ids: names under which the question may be known.
        video: name or path of the video; may be empty.
        question: the question, or the whole prompt; may be empty.
        options: letter -> text; empty where the file does not list them.
        gold: the right answer in the file: a letter or a text.
        tags: groups of the question, to match one that has neither id nor text.
        letter: the letter that the file's own parser found ("" for none); None where the file has no letter.
        correct: the file's own verdict.
        error: the file's reason for a missing answer.
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
    """The content of a file of another code base.

    Attributes:
        format: one of `harness.tools.FORMATS`.
        paths: the files read; the first is the file of answers.
        task: the file's name of its task; may be empty.
        rows: in the file's order.
        declared: the file's settings, in the words of `CellResult.setting` where there is one (``model``, ``frames``,
            ``fps``, ``max_new_tokens`` ...), else under the file's own names.
        parser: our parser that is nearest to the file's own.
        protocol: our protocol, where the file names one.
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
        """Digest of the content of all files."""
        whole = hashlib.sha256()
        for path in self.paths:
            whole.update(hashlib.sha256(path.read_bytes()).digest())
        return whole.hexdigest()


@dataclass(frozen=True)
class Exported:
    """One question of a cell, and its answer.

    Attributes:
        record: the stored question.
        answer: the stored answer.
        letter: by the cell's parser.
        correct: by the cell's parser; None where the question has no right answer.
        prompt: the text asked, of the annotation; empty where that is not on this disk.
        question: the question without options; empty where the annotation is not on this disk.
    """

    record: QuestionRecord
    answer: Answer
    letter: str | None
    correct: bool | None
    prompt: str = ""
    question: str = ""


def damaged(path: Path, place: str, what: str) -> UserError:
    """The error of a file that cannot be read, with the row."""
    where = f"{path}, {place}" if place else str(path)
    return UserError(printable(f"{where}: {what}"))


def text_of(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        UserError: it is in neither, naming the line.
    """
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig", "strict" if is_utf16 else "surrogatepass")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(10) + 1
        what = f"is not UTF-8, nor UTF-16 with a byte order mark ({error.reason})"
        raise damaged(path, f"line {line}", what) from error


def json_object(path: Path, text: str | None = None, place: str = "") -> dict[str, Any]:
    """The JSON object of a text, else of the whole file.

    Raises:
        UserError: no JSON, or no object; with the place.
    """
    try:
        content = json.loads(text_of(path) if text is None else text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, place, f"is not JSON ({error})") from error
    return checked_object(path, place, content)


def checked_object(path: Path, place: str, content: Any) -> dict[str, Any]:
    """Content of a file that has to be an object.

    Raises:
        UserError: it is none; with the place.
    """
    if not isinstance(content, dict):
        raise damaged(path, place, f"is not an object but {str(content)[:60]!r}")
    return content


def scalar(value: Any) -> Any:
    """A value for a manifest: numbers, texts, booleans and null as they are, anything else as text."""
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def read_row(path: Path, place: str, make: Callable[[], ImportedRow]) -> ImportedRow:
    """A row of a file, with any error of its content as one that names the row.

    Raises:
        UserError: a value in it has another type than its format prescribes.
    """
    try:
        return make()
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise damaged(path, place, f"cannot be read ({type(error).__name__}: {error})") from error


def as_declared(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Declared settings for a manifest, without those that are null."""
    known = {key: value for key, value in declared.items() if value is not None}
    return {key: value if key == "harness_setting" else scalar(value) for key, value in known.items()}


def in_our_words(said: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a code base in our words; a path of weights becomes the model's name and `model_path`."""
    ours = {_OUR_WORDS.get(key, key): value for key, value in said.items() if key not in _NO_SETTINGS}
    model = ours.get("model")
    if isinstance(model, str):
        ours |= {"model": model.rstrip("/").split("/")[-1], "model_path": model}
    return ours


def parse_arguments(arguments: Any) -> dict[str, Any]:
    """Arguments written as ``a=1,b=x`` or as an object."""
    if isinstance(arguments, dict):
        return dict(arguments)
    if not isinstance(arguments, str):
        return {}
    pairs = (word.partition("=") for word in arguments.split(",") if "=" in word)
    return {key.strip(): _number(value.strip()) for key, _, value in pairs}


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
