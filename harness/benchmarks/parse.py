"""The letter that a model's answer means, by the rules of the code bases whose numbers are compared with.

None of them guesses: an answer without a letter is None, counted as wrong and as unparsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

OPENING = r"[\s(\[*\"'`（【]*"
CLOSING = r"[)\].:,;!?*\"'`）】。，：；！]"
REASON = r"(?:[,，]\s*|\s+)(?:because|since|as|for|due to|given|based on|which)\b|[,，]?\s*(?:因为|由于)"
JUDGED = r"(?:the\s+|most\s+)*(?i:correct|right|best|true|answer|accurate|appropriate|likely)\b"
AND = r"\s*(?:,?\s*\b(?:and|or|nor)\b|[,，、&/+]|和|或|与|及)\s*(?:option\s+)?"

BARE = re.compile(rf"{OPENING}([A-Za-z])(?:{CLOSING}|\s)*")
FIRST_LINE = re.compile(rf"{OPENING}([A-Z])(?:{CLOSING}|[^\S\n])*\n(?P<rest>.+)", re.DOTALL)
STARTING = re.compile(
    rf"{OPENING}([A-Za-z])(?:[)\].:）】。：、](?:{CLOSING})*\s*|[*\"'`]*\s+[-–—]\s+|(?={REASON}),\s*)(?P<rest>.+)",
    re.DOTALL,
)
STARTING_BARE = re.compile(r"\s*([A-Z]),?\s+(?P<rest>.+)", re.DOTALL)
NUMBERED = re.compile(r"\A\s*\d{1,2}\s*[).:、]\s+(?=\S)")
THOUGHT = re.compile(r"</think(?:ing)?>|◁/think▷", re.IGNORECASE)
THINKING = re.compile(r"<think(?:ing)?>|◁think▷", re.IGNORECASE)
CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>|</s>|<eos>|<end_of_turn>")
MARKED = re.compile(
    r"<answer>((?:(?!<answer>).)*?)(?:</answer>|$)|\\boxed\{(?:\\(?:text|mathrm|mathbf)\{)?([^{}]*)\}"
    r"|<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|$)|\"(?:final_)?(?:answer|choice|option)\"\s*:\s*\"([^\"]*)\"",
    re.DOTALL,
)
STATEMENT = re.compile(
    r"\b(?:answer|option|choice)\b[*_`]*(?P<says>\s+(?:is|would be|should be)\b\s*:?|\s*:)?[\s*_`]*"
    r"(?:(?:the\s+)?(?:option|choice|letter)\s+)?"
    r"|\bI(?:\s+would|'d|\s+will|'ll)?\s+(?P<chooses>choose|select|pick|go with)\s+"
    r"|(?P<chinese>答案(?:是|为|应为|应该是)?|选项|选择|应选|选)\s*(?P<colon>[:：])?\s*(?:选项)?",
    re.IGNORECASE,
)
# Behind "answer is" a letter may go on into a reason; "A" and "I" before another word are no letters.
STATED = re.compile(rf"[(\[*\"'`（]*([A-Za-z])(?=$|{CLOSING}|\n|{REASON})|([B-HJ-Z])(?=\s)")
NAMED = re.compile(rf"[(\[*\"'`（]*([A-Za-z])(?=$|[)\].*\n）。]|{REASON}|\s*(?:是正确|正确))")
IT_IS = re.compile(
    rf"(?:^|[.!?;,\n]\s*|\b(?i:so|thus|think|believe)\s+)(?i:it(?:'s|\s+is))\s+{OPENING}([A-Z])(?=$|{CLOSING}|\n)"
)
CORRECT = re.compile(
    r"(?:^|[.!?;:,\n]|\b(?i:option|choice|answer|letter|think|believe|that|so|thus|therefore|hence)\s)"
    rf"{OPENING}([A-Z])[)\]*\"'`]*\s+is\s+{JUDGED}"
)
ENDING = re.compile(rf"(?:[,:;\n，：；]\s*|[(\[（]\s*)([A-Z])(?:{CLOSING}|\s)*$")
LISTED = re.compile(rf"[)\]*）]*{AND}[(\[（]*[A-Z](?![A-Za-z'])")
LISTING = re.compile(rf"(?<![A-Za-z'])[A-Z][)\]）]*{AND}$")
LETTERS_ONLY = re.compile(
    r"\s*(?:(?:and|or)\b|[(\[]*[A-Z][)\].:,]*\s+(?:[(\[]*[A-Z][)\].:,]|and\b|or\b)|[(\[]*(?P<only>[A-Z])[)\].:,]*\s*$)"
)
LONE_LETTER = re.compile(r"(?<![A-Za-z'])[A-Z][)\]]*\s*$")
DENIED = re.compile(r"\b(?:not|neither|never|isn't)\s+(?:the\s+)?$", re.IGNORECASE)
NEAR = 60
"""Characters before a letter that can make it one of a list, or denied; and those of an ending."""


def parse_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of `options` that `text` gives, by the first rule that applies.

    Reasoning is left out first: what stands before the last ``</think>``; a text that only thinks has no answer.

    1. The whole text is one letter, in either case, with or without brackets and stops: ``b``, ``(B)``, ``B.``; or it
       is one option's text, whatever its case and final stop.
    2. The last ``<answer>...</answer>``, ``\\boxed{...}``, ``<|begin_of_box|>...`` or JSON's ``"answer": "..."``, read
       by these rules.
    3. It starts with a letter on a line of its own, or with a letter and a stop, bracket, dash or reason
       (``B. Dogs are running``, ``B - Dogs``, ``B, because ...``), or with a letter and that option's text.
    4. A letter, or one option's text, directly behind "answer", "option" or "choice" (``Answer: B``,
       ``The best answer is B. Dogs are running``, ``答案是B``), or a letter that is said to be right (``Option B is
       correct``, ``It's B.``) or chosen (``I would choose B``); the last such statement counts.
    5. It ends with a capital behind a comma, colon, bracket or line break (``Based on the video, C``).

    A text that lists the options gives none by rule 3. A number as of a list in front (``1) B``) is left out. A letter
    in a list (``A and B``, ``A, B``) is no answer.

    Args:
        text: the model's raw answer.
        options: letter to the option's text.

    Returns:
        A key of `options`, or None: unparsed.
    """
    text = THOUGHT.split(text)[-1]
    text = THINKING.split(text, maxsplit=1)[0]
    if letter := _whole(CONTROL.sub("", text), options):
        return letter
    if marked := ["".join(found) for found in MARKED.findall(text)]:
        text = marked[-1]
    text = CONTROL.sub("", text)
    text = NUMBERED.sub("", text, count=1).strip()
    if letter := _whole(text, options) or _starting(text, options):
        return letter
    stated = sorted([*_statements(text, options), *_judged(text, options)])
    if stated:
        return stated[-1][1]
    text = text[-NEAR:]
    match = ENDING.search(text)
    return _alone(match, 1, options) if match and not LONE_LETTER.search(text[: match.start()]) else None


def _whole(text: str, options: Mapping[str, str]) -> str | None:
    match = BARE.fullmatch(text)
    return _known(match[1], options) if match else _letter_of_text(text, options)


def _lists_options(text: str, options: Mapping[str, str]) -> bool:
    """Whether a text repeats options with their letters, most of them."""
    squeezed = " ".join(text.split()).casefold()
    shown = [
        re.search(rf"(?<![a-z]){letter.lower()}[).:]\s*{re.escape(_plain(option))}", squeezed)
        for letter, option in options.items()
        if _plain(option)
    ]
    return sum(found is not None for found in shown) >= max(2, len(shown) / 2)


def _starting(text: str, options: Mapping[str, str]) -> str | None:
    if _lists_options(text, options):
        return None
    for form in (FIRST_LINE, STARTING):
        match = form.fullmatch(text)
        if match and (letter := _alone(match, 1, options)):
            others = LETTERS_ONLY.match(match["rest"])
            if not others or others["only"] == letter:
                return letter
    match = STARTING_BARE.fullmatch(text)
    return match[1] if match and _letter_of_text(match["rest"], options) == match[1] else None


def _statements(text: str, options: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Place and letter of every "answer is ..." and "option ..."."""
    longest = max(map(len, options.values()), default=0) + NEAR
    for statement in STATEMENT.finditer(text):
        says = (
            statement["says"]
            or statement["colon"]
            or statement["chooses"]
            or (statement["chinese"] or "").startswith("答案")
        )
        match = (STATED if says else NAMED).match(text, statement.end())
        letter = _alone(match, match.lastindex or 1, options) if match else None
        line = text[statement.end() : statement.end() + longest].partition("\n")[0]
        if letter := letter or _letter_of_text(line, options):
            yield statement.start(), letter


def _judged(text: str, options: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Place and letter of every "B is correct" and "It is B"."""
    for match in (*CORRECT.finditer(text), *IT_IS.finditer(text)):
        if letter := _alone(match, 1, options):
            yield match.start(), letter


def _alone(match: re.Match[str], group: int, options: Mapping[str, str]) -> str | None:
    """The letter, unless it is one of a list or denied."""
    place, after = match.start(group), match.end(group)
    before = match.string[max(0, place - NEAR) : place]
    listed = LISTED.match(match.string, after) or LISTING.search(before) or DENIED.search(before)
    return None if listed else _known(match[group], options)


def _known(letter: str, options: Mapping[str, str]) -> str | None:
    return letter.upper() if letter.upper() in options else None


def _letter_of_text(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the only option whose text is `text`."""
    found = [letter for letter, option in options.items() if _plain(option) and _plain(option) == _plain(text)]
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(" .,:;!?*\"'`").casefold()


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
