"""Settings of `import` and `export`. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.setting import setting

FORMATS = ("lmms_eval", "openvlm", "release", "inspect")
"""Files that `import` reads: lmms-eval's samples, VLMEvalKit's tables, the releases' results, Inspect's logs."""
WRITTEN = ("lmms_eval", "openvlm", "inspect")
"""Those that `export` writes."""


@dataclass
class ForeignConfig:
    """Other people's results, taken as cells of their own kind."""

    files: list[str] = field(default_factory=list)
    """Files or folders to read."""
    format: str | None = setting(None, words=FORMATS)
    """Null: the file says it."""
    of: str | None = None
    """Which questions were asked: a task setting (``conf/task/``) or a benchmark; null: the file says it."""
    name: str | None = setting(None, name=True)
    """Folder below ``<results>/foreign/``; null: made of benchmark, format and file."""


@dataclass
class ExportConfig:
    """Stored cells, written in the formats of others."""

    formats: list[str] = field(default_factory=list)
    """Of `WRITTEN`."""
    cell: Any = None
    """Cells: ids, or patterns with ``*``; a list, or separated by commas. Null: all."""
    output: str | None = None
    """Folder; null for ``<results>/export/<format>``."""
