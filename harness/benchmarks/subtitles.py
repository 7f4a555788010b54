"""Subtitles as the releases put them into the prompt."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import QuestionError, UserError

LETTERS = "ABCDEFGH"
ANSWER = "Answer with the option's letter from the given choices directly."


def lettered(texts: Sequence[str]) -> dict[str, str]:
    """``{"A": first, "B": second, ...}``."""
    return dict(zip(LETTERS, texts, strict=False))


def choice_prompt(question: str, options: Mapping[str, str], stop: str = ".") -> str:
    """The release's prompt: every option on its line and ended by `stop`."""
    listed = "\n".join(f"{letter}. {text}{stop}" for letter, text in options.items())
    return f"{question}\nOptions:\n{listed}\n{ANSWER}"


def without_placeholder(prompt: str) -> str:
    """The prompt as the releases ask it: ``<video>`` marks the video in their files and is taken out of any text."""
    return prompt.replace("<video>", "")


LONGVIDEOBENCH_WORDS = 8000
VIDEOMME_TOKENS = 10_000


class TokenizerMissingError(UserError):
    """Subtitles have to be cut to so many tokens, and the model's tokenizer is not at hand."""


def srt_text(path: Path) -> str:
    """All lines of an srt file, one per line, without empty ones (read with pysubs2).

    Raises:
        QuestionError: the file is damaged.
    """
    import pysubs2

    try:
        lines = [line.text.replace("\\N", " ") for line in pysubs2.load(str(path), encoding="utf-8")]
    except (pysubs2.exceptions.Pysubs2Error, ValueError) as error:
        raise QuestionError(f"the subtitles {path} cannot be read: {error}; get the file again") from error
    return "\n".join(line for line in lines if line.strip())


def json_text(path: Path, words: int = LONGVIDEOBENCH_WORDS) -> str:
    """All lines of a LongVideoBench subtitle file joined by spaces, the first `words` words.

    The files come in two schemas, ``line`` and ``text``; one that mixes them gives no text, as in the release. A line
    that is null has no text.

    Raises:
        QuestionError: the file is damaged.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise TypeError(f"they are no list but {type(rows).__name__}")
        key = next((key for key in ("line", "text") if all(key in row for row in rows)), None)
        joined = " ".join("" if row[key] is None else row[key] for row in rows) if key else ""
    except (ValueError, TypeError) as error:
        raise QuestionError(f"the subtitles {path} cannot be read: {error}; get the file again") from error
    return " ".join(joined.split(" ")[:words])


def cut_to_tokens(text: str, question: str, limit: int = VIDEOMME_TOKENS) -> str:
    """`text` without the tail that takes question and text over `limit` tokens of the model's tokenizer.

    A token is at least one byte, so a text of few bytes needs no tokenizer.

    Raises:
        TokenizerMissingError: the text may be too long, and there is no tokenizer on this machine.
    """
    if len(text.encode()) + len(question.encode()) <= limit:
        return text
    encode, decode = _tokenizer()
    tokens = encode(text)
    over = len(encode(question)) + len(tokens) - limit
    return decode(tokens[:-over]) if over > 0 else text


def _tokenizer() -> tuple[Callable[[str], list[int]], Callable[[list[int]], str]]:
    path = os.environ.get("ADARETAKE_TOKENIZER", "")
    try:
        return _load_tokenizer(path)
    except (OSError, ValueError) as error:
        raise TokenizerMissingError(
            f"subtitles are cut to {VIDEOMME_TOKENS} tokens of the model's tokenizer, and there is none on this machine"
            f"{f' at {path}' if path else ''}: give the folder of a Qwen2-VL or Qwen2.5-VL checkpoint as "
            "model.path=DIR, under lmms-eval as ADARETAKE_TOKENIZER=DIR"
        ) from error


@lru_cache(maxsize=1)
def _load_tokenizer(path: str) -> tuple[Callable[[str], list[int]], Callable[[list[int]], str]]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return (
        lambda text: list(tokenizer(text).input_ids),
        lambda tokens: str(tokenizer.decode(tokens, skip_special_tokens=True)),
    )
