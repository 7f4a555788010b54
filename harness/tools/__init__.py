"""What looks into answers and differences; nothing outside this room imports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.settings.rules import setting
from harness.settings.verbs import Verb

FORMATS = ("lmms_eval", "openvlm", "release", "inspect", "official")
"""Files that `import` reads: lmms-eval's samples, VLMEvalKit's tables, the releases' results, Inspect's logs, files of
the benchmarks' own scripts."""
WRITTEN = ("lmms_eval", "openvlm", "inspect")
"""Those that `export` writes."""
DENOMINATORS = ("all", "answered", "parsed")
"""What a score is divided by: all questions, those not failed, those with a letter."""


@dataclass
class ImportConfig:
    """Other people's results, taken as cells of their own kind."""

    files: list[str] = setting([], positional=True, help="files or folders to read")
    format: str | None = setting(None, words=FORMATS, help="null: detected")
    of: str | None = setting(None, help="the questions: a task of conf/task/ or a benchmark; null: the file says it")
    name: str | None = setting(
        None, name=True, help="folder below <results>/foreign/; null: made of benchmark, format and file"
    )


@dataclass
class ExportConfig:
    """Stored cells, written in the formats of others."""

    formats: list[str] = setting([], positional=True, help=f"any of {', '.join(WRITTEN)}")
    cell: Any = setting(None, help="cells: ids, digests, patterns or [settings]; a list, or separated by commas")
    output: str | None = setting(None, help="folder; null: <results>/export/<format>")


@dataclass
class FitConfig:
    """The calibration of a method that needs one."""

    samples: str | None = setting(None, help='file of lines {"video": ..., "question": ...}; null: toy videos')
    toy_videos: int = setting(16, least=1, most=100_000, help="number of toy videos, on the toy profile")


@dataclass
class CompareConfig:
    """Two results folders against each other."""

    folders: list[str] = setting([], positional=True, help="the two results folders")
    exact: bool = setting(True, help="every answer must be the same, ties of tokens aside; false: scores within noise")
    limit: int = setting(20, least=0, flag=True, help="most flips to print and to list in the Markdown file")
    output: str | None = setting(None, flag=True, help="folder of the files; null: compare/ in the results folder")


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
        "import", "harness.tools.exchange.importing", "take other people's per-question results as imported cells",
        "imported", ImportConfig, reads=(),
    ),
    Verb(
        "export", "harness.tools.exchange.exporting",
        "write cells as lmms-eval's samples, VLMEvalKit's tables or Inspect's logs", "export", ExportConfig, reads=(),
    ),
    Verb("submit", "harness.tools.submit", "write a leaderboard file", "task", single=("task",)),
    Verb(
        "fit", "harness.tools.fit", "calibrate a method on videos of your own: the recipe of fitprune", "fit",
        FitConfig, single=("model", "method", "task"),
    ),
    Verb(
        "compare", "harness.tools.compare", "two results folders: settings, scores, flips, kept tokens",
        "compare", CompareConfig, reads=("report",),
    ),
    Verb(
        "bridge", "harness.tools.bridge.bridge", "why two results differ: one factor at a time", "bridge", BridgeConfig
    ),
]  # fmt: skip
