"""The verbs of the command line. Each is declared in the ``__init__.py`` of its room, with the settings of its own."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from harness.settings.rules import rule_of

ROOMS = ("plan", "fetch", "run", "lmms", "report", "gate", "tools", "tools.show", "tools.analysis")
"""Packages with verbs, in the order of use."""


@dataclass(frozen=True)
class Verb:
    """One verb.

    name: the word of the command line.
    module: where ``main(config)`` is, or ``main(config, own)`` for a verb with settings of its own.
    help: what the verb does, in one line.
    section: the group with the settings that concern this verb most; they may be written without the name of the group
    (``cell=...`` for ``show.cell=...``) where no group has that name.
    schema: the dataclass of a section that no other verb reads; None for a section that every verb takes.
    reads: groups that it obeys besides its section, profile, results and data. None means all groups, so that every
    step of a reproduction takes the same settings.
    single: axes of which it takes one value: ``task=[a,b]`` is refused.
    """

    name: str
    module: str
    help: str
    section: str = ""
    schema: type[Any] | None = None
    reads: tuple[str, ...] | None = None
    single: tuple[str, ...] = ()

    @property
    def flags(self) -> list[str]:
        """Settings of its own that may be written as options too."""
        return [field.name for field in self._own if rule_of(field).flag]

    @property
    def words(self) -> str:
        """The setting of its own that takes the words without ``=``; empty: there is none."""
        return next((field.name for field in self._own if rule_of(field).positional), "")

    @property
    def _own(self) -> tuple[dataclasses.Field[Any], ...]:
        return dataclasses.fields(self.schema) if self.schema is not None else ()


@cache
def all_verbs() -> dict[str, Verb]:
    """Every verb by name, in the order of use."""
    return {verb.name: verb for room in ROOMS for verb in importlib.import_module(f"harness.{room}").VERBS}
