"""The text of a prompt in the style of each benchmark.

The task files under tasks/ write the prompts that are evaluated; these are the same texts from a
question's parts, for training. A test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.benchmarks.subtitles import ANSWER
from harness.toy.questions import LETTERS

STYLES = ("videomme", "mlvu", "longvideobench", "lvbench")


def prompt(style: str, question: str, options: Sequence[str], subtitles: str = "") -> str:
    """The user's text behind the video.

    The four differ in the full stop: LVBench has one behind its last option only; LongVideoBench
    puts the subtitles first.
    """
    stop = "\n" if style == "lvbench" else ".\n"
    listed = stop.join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    head = f"Subtitles: {subtitles}\n" if style == "longvideobench" else ""
    return f"{head}{question}\nOptions:\n{listed}.\n{ANSWER}"
