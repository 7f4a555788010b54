"""What the prompts of several benchmarks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
