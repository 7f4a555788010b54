"""The verbs of single tools, and their settings."""

from __future__ import annotations

from dataclasses import dataclass

from harness.settings.rules import setting
from harness.settings.verbs import Verb


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


VERBS = [
    Verb("submit", "harness.tools.submit", "write a leaderboard file", "task"),
    Verb(
        "fit", "harness.tools.fit", "calibrate a method on videos of your own: the recipe of fitprune", "fit", FitConfig
    ),
    Verb(
        "compare", "harness.tools.compare", "two results folders: settings, scores, flips, kept tokens",
        "compare", CompareConfig, reads=("report",),
    ),
]  # fmt: skip
