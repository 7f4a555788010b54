"""AdaReTaKe (arXiv 2503.12559): score by the question, budget by change over time, share by layer.

Three semantics, each in the module named after it: the equations, and what the two public releases do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from harness.compress.method import Method
from harness.compress.methods.adaretake.paper import Paper
from harness.compress.methods.adaretake.release import SEMANTICS, Options
from harness.compress.methods.adaretake.release_2025 import Release2025
from harness.compress.methods.adaretake.release_2026 import Release2026


@dataclass(frozen=True)
class AdaReTaKe(Options):
    """The method as it is configured; `for_family` gives the implementation of its semantics."""

    @property
    def position_rule(self) -> str:
        return self.positions or self.implementations()[self.semantics].default_positions

    @classmethod
    def implementations(cls) -> Mapping[str, type[Options]]:
        """The class of each semantics."""
        return dict(zip(SEMANTICS, (Paper, Release2025, Release2026), strict=True))

    def for_family(self, family: str) -> Method:
        """The implementation of the semantics.

        Raises:
            UserError: the semantics does not exist for the family, or does not know a quirk or reforge.
        """
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(Options)}
        return self.implementations()[self.semantics](**values).for_family(family)


METHOD = AdaReTaKe

__all__ = ["METHOD", "SEMANTICS", "AdaReTaKe", "Options", "Paper", "Release2025", "Release2026"]
