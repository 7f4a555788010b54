"""Subtitles as the releases put them into the prompt."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from harness.errors import UserError

LONGVIDEOBENCH_WORDS = 8000
VIDEOMME_TOKENS = 10_000


def srt_text(path: Path) -> str:
    """All lines of an srt file, one per line, without empty ones (read with pysubs2)."""
    import pysubs2

    lines = [line.text.replace("\\N", " ") for line in pysubs2.load(str(path), encoding="utf-8")]
    return "\n".join(line for line in lines if line.strip())


def json_text(path: Path, words: int = LONGVIDEOBENCH_WORDS) -> str:
    """All lines of a LongVideoBench subtitle file joined by spaces, the first `words` words.

    The files come in two schemas, ``line`` and ``text``; one that mixes them gives no text, as in the release.
    """
    rows = json.loads(path.read_text(encoding="utf-8"))
    for key in ("line", "text"):
        if all(key in row for row in rows):
            joined = " ".join(row[key] for row in rows)
            break
    else:
        joined = ""
    return " ".join(joined.split(" ")[:words])


def cut_to_tokens(text: str, question: str, limit: int = VIDEOMME_TOKENS) -> str:
    """`text` without the tail that takes question and text over `limit` tokens of the model's tokenizer.

    A token is at least one byte, so a text of few bytes needs no tokenizer.

    Raises:
        UserError: the text may be too long and no tokenizer is set.
    """
    if len(text.encode()) + len(question.encode()) <= limit:
        return text
    encode, decode = _tokenizer()
    tokens = encode(text)
    over = len(encode(question)) + len(tokens) - limit
    return decode(tokens[:-over]) if over > 0 else text


def _tokenizer() -> tuple[Callable[[str], list[int]], Callable[[list[int]], str]]:
    path = os.environ.get("ADARETAKE_TOKENIZER")
    if not path:
        raise UserError(
            f"subtitles are cut to {VIDEOMME_TOKENS} tokens of the model's tokenizer, and none is set: "
            "give the folder of a Qwen2-VL or Qwen2.5-VL checkpoint in the environment variable ADARETAKE_TOKENIZER"
        )
    return _load_tokenizer(path)


@lru_cache(maxsize=1)
def _load_tokenizer(path: str) -> tuple[Callable[[str], list[int]], Callable[[list[int]], str]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    return (
        lambda text: tokenizer(text).input_ids,
        lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True),
    )
