"""What the mains of verbs are given: the configuration, and the verb's own settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.evidence.imported import ImportedCell
from harness.settings.compose import compose_verb
from harness.settings.groups import Config
from harness.settings.verbs import all_verbs
from harness.tools.exchange.importing import import_file


def composed(verb: str, *words: str) -> tuple[Config, Any]:
    """The configuration of a verb and its own settings."""
    return compose_verb(all_verbs()[verb], words)


def imported(path: Path, *words: str) -> ImportedCell:
    """A file as `import` takes it."""
    config, given = composed("import", *words)
    return import_file(path, given, Path(config.results), Path(config.data.root))
