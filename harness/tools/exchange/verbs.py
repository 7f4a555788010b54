"""The verbs of exchanging results with other code bases, and their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.settings.rules import setting
from harness.settings.verbs import Verb

FORMATS = ("lmms_eval", "openvlm", "release", "inspect")
"""Files that `import` reads: lmms-eval's samples, VLMEvalKit's tables, the releases' results, Inspect's logs."""
WRITTEN = ("lmms_eval", "openvlm", "inspect")
"""Those that `export` writes."""


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


VERBS = [
    Verb(
        "import", "harness.tools.exchange.importing", "take other people's per-question results as imported cells",
        "imported", ImportConfig, reads=(),
    ),
    Verb(
        "export", "harness.tools.exchange.exporting",
        "write cells as lmms-eval's samples, VLMEvalKit's tables or Inspect's logs", "export", ExportConfig, reads=(),
    ),
]  # fmt: skip
