"""The verb `bridge`, and its settings."""

from __future__ import annotations

from dataclasses import dataclass

from harness.settings.rules import setting
from harness.settings.verbs import Verb

DENOMINATORS = ("all", "answered", "parsed")
"""What a score is divided by: all questions, those not failed, those with a letter."""


@dataclass
class BridgeConfig:
    """Which two results are compared, and how; nothing here can change an answer."""

    cells: list[str] = setting(
        [], positional=True,
        help="A and B: a stored or imported cell, a published number (B.full.mlvu, or B.4.mlvu by row), or a setting "
        "in brackets ([task=mlvu,frames=64,context=1000])",
    )  # fmt: skip
    order: list[str] = setting([], flag=True, help="factors to change first, in this order")
    both: bool = setting(False, flag=True, help="also the reverse order: the difference is interaction")
    plan: bool = setting(False, flag=True, help="print the cost and stop")
    candidates: list[str] = setting(
        [], flag=True, of_cells=True,
        help="settings that an import may have been made with, where it does not say: frames=64 video=stock",
    )  # fmt: skip
    search: bool = setting(
        False, flag=True, help="take a candidate only if it brings our answers closer to the import's, best first"
    )
    quirks: bool = setting(False, flag=True, help="change each quirk of a semantics as a factor of its own")
    subset: str | None = setting(None, name=True, help="subset that is answered; null: that of A and B")
    parser: list[str] = setting([], help="parsers of A and of B; empty: each its own")
    denominator: list[str] = setting([], help=f"denominators of A and of B, of {', '.join(DENOMINATORS)}; empty: all")
    output: str | None = setting(None, help="folder; null: <results>/bridge/<A>__<B>")


VERBS = [
    Verb(
        "bridge", "harness.tools.bridge.bridge", "why two results differ: one factor at a time", "bridge", BridgeConfig
    ),
]
