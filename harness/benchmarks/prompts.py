"""What the prompts of several benchmarks share, and the two things that a task tells its prompt function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.benchmarks.root import data_root
from harness.errors import UserError

LETTERS = "ABCDEFGH"
ANSWER = "Answer with the option's letter from the given choices directly."


def protocol_of(kwargs: Mapping[str, Any] | None, protocols: Sequence[str]) -> str:
    """The protocol of ``lmms_eval_specific_kwargs``; the first of `protocols` where it names none.

    Raises:
        UserError: the protocol is not one of `protocols`.
    """
    protocol = (kwargs or {}).get("protocol", protocols[0])
    if protocol not in protocols:
        raise UserError(f"task.protocol={protocol} is not known here; allowed: {', '.join(protocols)}")
    return protocol


def shows_subtitles(protocol: str) -> bool:
    """Whether the prompt holds the video's subtitles: numbers with and without are not comparable."""
    return protocol.endswith("_subtitles")


def root_of(kwargs: Mapping[str, Any] | None) -> Path:
    """The folder of all benchmarks: the ``root`` of ``lmms_eval_specific_kwargs``, else the environment's."""
    root = (kwargs or {}).get("root")
    return Path(root) if root else data_root()


def lettered(texts: Sequence[str]) -> dict[str, str]:
    """``{"A": first, "B": second, ...}``."""
    return dict(zip(LETTERS, texts, strict=False))


def choice_prompt(question: str, options: Mapping[str, str], stop: str = ".") -> str:
    """The release's prompt: every option on its line and ended by `stop`."""
    listed = "\n".join(f"{letter}. {text}{stop}" for letter, text in options.items())
    return f"{question}\nOptions:\n{listed}\n{ANSWER}"
