"""Settings of `bridge`. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.setting import setting

DENOMINATORS = ("all", "answered", "parsed")
"""What a score is divided by: all questions, those not failed, those with a letter."""


@dataclass
class BridgeConfig:
    """Which two results are compared, and how; nothing here can change an answer."""

    cells: list[str] = field(default_factory=list)
    """A and B: names of cells (a beginning, the digest, or a pattern with ``*``), names of imports, ids of published
    numbers (``B.full.mlvu``, or ``B.4.mlvu`` by row), or settings in brackets
    (``[task=mlvu,frames=64,context=1000]``)."""
    order: list[str] = field(default_factory=list)
    """Factors to change first, in this order."""
    both: bool = False
    """Also the chain in the reverse order: what differs between the two is interaction."""
    plan: bool = False
    """Say what it costs, and run nothing."""
    candidates: list[str] = field(default_factory=list)
    """Settings that an import may have been made with, where it does not say (``frames=64``, ``video=stock``)."""
    search: bool = False
    """Take a candidate only if it brings our answers nearer to the import's, the best one first."""
    quirks: bool = False
    """Take another semantics apart: each quirk of the one off, then each of the other on."""
    subset: str | None = setting(None, name=True)
    """Subset that the twins answer; null: that of A and B."""
    parser: list[str] = field(default_factory=list)
    """Parser of A and of B; empty: each its own."""
    denominator: list[str] = field(default_factory=list)
    """What the scores of A and of B are divided by, of `DENOMINATORS`; empty: all questions."""
    output: str | None = None
    """Folder; null for ``<results>/bridge/<A>__<B>``."""
