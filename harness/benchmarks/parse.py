"""The letter that a model's answer means.

`parse_letter` is the harness's own rule; the others are those of code bases whose numbers are compared with, under
their names in `PARSERS`. None of them guesses: an answer without a letter is None, counted as wrong and as unparsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Parser = Callable[[str, Mapping[str, str]], str | None]

OPENING = r"[\s(\[*\"'`]*"
CLOSING = r"[)\].:,;!?*\"'`]"
BARE = re.compile(rf"{OPENING}([A-Za-z])(?:{CLOSING}|\s)*")
STARTING = re.compile(rf"{OPENING}([A-Za-z])[)\].:](?:{CLOSING})*\s+(?P<rest>.+)", re.DOTALL)
STARTING_BARE = re.compile(r"\s*([A-Z])\s+(?P<rest>.+)", re.DOTALL)
STATEMENT = re.compile(
    r"\b(?:answer|option|choice)\b[*_`]*(?P<says>\s+(?:is|would be|should be)\b\s*:?|\s*:)?[\s*_`]*"
    r"(?:(?:the\s+)?(?:option|choice|letter)\s+)?",
    re.IGNORECASE,
)
# Behind "answer is" a letter may go on into a reason; "A" and "I" before another word are no letters.
STATED = re.compile(
    rf"[(\[*\"'`]*([A-Za-z])(?=$|{CLOSING}|\n|\s+(?:because|since|as|and|which|for)\b)|([B-HJ-Z])(?=\s)"
)
NAMED = re.compile(r"[(\[*\"'`]*([A-Za-z])(?=$|[)\].*\n])")
ENDING = re.compile(rf"(?:[,:;\n]\s*|[(\[]\s*)([A-Z])(?:{CLOSING}|\s)*$")


def parse_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of `options` that `text` gives, by the first rule that applies.

    1. The whole text is one letter, in either case, with or without brackets and stops: ``b``, ``(B)``, ``B.``
    2. The whole text is one option's text, whatever its case and final stop.
    3. It starts with a letter and a stop or bracket (``B. Dogs are running``), or with a letter and that option's text.
    4. A letter, or one option's text, directly behind "answer", "option" or "choice" (``Answer: B``,
       ``The best answer is B. Dogs are running``); the last such statement counts.
    5. It ends with a capital behind a comma, colon, bracket or line break (``Based on the video, C``).

    Args:
        text: the model's raw answer.
        options: letter to the option's text.

    Returns:
        A key of `options`, or None: unparsed.
    """
    text = text.strip()
    if match := BARE.fullmatch(text):
        return _known(match[1], options)
    if letter := _letter_of_text(text, options):
        return letter
    if (match := STARTING.fullmatch(text)) and (letter := _known(match[1], options)):
        return letter
    if (match := STARTING_BARE.fullmatch(text)) and _letter_of_text(match["rest"], options) == match[1]:
        return match[1]
    stated = [letter for match in STATEMENT.finditer(text) if (letter := _stated(match, options))]
    if stated:
        return stated[-1]
    match = ENDING.search(text)
    return _known(match[1], options) if match else None


def _known(letter: str, options: Mapping[str, str]) -> str | None:
    return letter.upper() if letter.upper() in options else None


def _stated(statement: re.Match[str], options: Mapping[str, str]) -> str | None:
    rest = statement.string[statement.end() :]
    match = (STATED if statement["says"] else NAMED).match(rest)
    if match and (letter := _known(match[match.lastindex], options)):
        return letter
    return _letter_of_text(rest.partition("\n")[0], options)


def _letter_of_text(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the only option whose text is `text`."""
    found = [letter for letter, option in options.items() if _plain(option) and _plain(option) == _plain(text)]
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(" .,:;!?*\"'`").casefold()


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
    return _first_capital(text, "ABCDEFG")


def parse_lmms_eval_longvideobench(text: str, options: Mapping[str, str]) -> str | None:
    """lmms-eval 0.7.3 on LongVideoBench; where it draws a random letter, this is None."""
    return _first_capital(text, "ABCDE")


def _first_capital(text: str, letters: str) -> str | None:
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
    found: list[tuple[int, int, str]] = []  # priority, position, letter
    for letter in LMMS_EVAL_CHOICES:
        for priority, form in LMMS_EVAL_FORMATS:
            if (place := text.rfind(form.format(letter))) >= 0:
                found.append((priority, place, letter))
        for phrase in LMMS_EVAL_PHRASES:
            start = text.lower().find(phrase)
            if start >= 0 and (place := text.find(letter, start + len(phrase))) >= 0:
                found.append((7, place, letter))
        if bare.startswith(letter) and not bare[1:2].isalpha():
            found.append((10, 0, letter))
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            found.append((9, len(text) - 1, letter))
    if not found:
        found = [(0, text.rfind(letter), letter) for letter in LMMS_EVAL_CHOICES if letter in text]
    return max(found, key=lambda candidate: candidate[:2])[2] if found else None


def parser_name(benchmark: str, protocol: str) -> str:
    """Key in `PARSERS` of the parser that scores a benchmark under a protocol, as its lmms-eval task does."""
    if protocol != "lmms_eval":
        return "anchored"
    return "lmms_eval_longvideobench" if benchmark == "longvideobench" else "lmms_eval"


PARSERS: dict[str, Parser] = {
    "anchored": parse_letter,
    "release": parse_release,
    "lmms_eval": parse_lmms_eval,
    "lmms_eval_longvideobench": parse_lmms_eval_longvideobench,
}
