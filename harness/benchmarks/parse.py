"""The letter that a model's answer means, by the rules of the code bases whose numbers are compared with.

None of them guesses: an answer without a letter is None, counted as wrong and as unparsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from harness.benchmarks.anchored import parse_letter

Parser = Callable[[str, Mapping[str, str]], str | None]
"""From an answer's text and the options (letter to text) to a letter, or None."""

RELEASE_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)


def parse_release(text: str, options: Mapping[str, str]) -> str | None:
    """The releases' rule: without some prefixes, the first capital A to G anywhere."""
    return first_capital(text, "ABCDEFG")


def first_capital(text: str, letters: str) -> str | None:
    """The first of `letters` anywhere in `text`, without some prefixes."""
    for prefix in RELEASE_PREFIXES:
        text = text.replace(prefix, "")
    match = re.search(f"[{letters}]", text)
    return match[0] if match else None


LMMS_EVAL_PHRASES = (
    *(f"{before}answer is" for before in ("", "the ", "correct ", "the correct ", "best ", "the best ", "my ")),
    *(f"{before}option is" for before in ("correct ", "the correct ", "best ", "the best ")),
    *(f"{before}choice is" for before in ("", "the ", "correct ", "the correct ", "my ")),
    *("i choose", "i select", "i pick", "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
LMMS_EVAL_FORMATS = ((6, "({})"), (5, "{}."), (4, "{}:"), (3, "{})"), (2, "{} "))
LMMS_EVAL_CHOICES = "ABCD"


def parse_lmms_eval(text: str, options: Mapping[str, str]) -> str | None:
    """lmms-eval 0.7.3 on Video-MME, MLVU and LVBench: capitals A to D, whatever the options are.

    Every occurrence in a known format is a candidate with that format's priority; the highest priority wins, then
    the latest position.
    """
    text = text.strip()
    for stop in ",.!?;:'\"":
        text = text.strip(stop)
    bare, text = text.strip(), f" {text} "
    lower = text.lower()
    behind = [start + len(phrase) for phrase in LMMS_EVAL_PHRASES if (start := lower.find(phrase)) >= 0]
    found: list[tuple[int, int, str]] = []  # priority, position, letter
    for letter in LMMS_EVAL_CHOICES:
        for priority, form in LMMS_EVAL_FORMATS:
            if (place := text.rfind(form.format(letter))) >= 0:
                found.append((priority, place, letter))
        found += [(7, place, letter) for start in behind if (place := text.find(letter, start)) >= 0]
        if bare.startswith(letter) and not bare[1:2].isalpha():
            found.append((10, 0, letter))
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            found.append((9, len(text) - 1, letter))
    if not found:
        found = [(0, text.rfind(letter), letter) for letter in LMMS_EVAL_CHOICES if letter in text]
    return max(found, key=lambda candidate: candidate[:2])[2] if found else None


PARSERS: dict[str, Parser] = {"anchored": parse_letter, "release": parse_release, "lmms_eval": parse_lmms_eval}
"""By the names that ``facts.yaml`` uses; a benchmark may have more of its own (`Benchmark.parsers`)."""
