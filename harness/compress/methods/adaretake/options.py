"""The options of AdaReTaKe, whatever the semantics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.compress.evict import ChunkEvictor
from harness.compress.method import Method
from harness.errors import UserError

SEMANTICS = ("paper", "release_2025", "release_2026")


@dataclass(frozen=True)
class AdaReTaKe(ChunkEvictor):
    """What a configuration says; `for_family` gives the implementation of the semantics.

    Attributes:
        semantics: one of `SEMANTICS`.
        temporal: chunks share the budget by how much changes in them; otherwise by their length.
        layers: layers share a chunk's budget by their scores; otherwise evenly.
        max_guide_length: at most so many of the last prompt tokens score a chunk; `None` = all text after the video.
        reforge: temporal ids are squeezed; releases only. `None` leaves it to the task.
        quirks: deviations of a release from the paper, each to be switched off alone.
    """

    semantics: str = "paper"
    temporal: bool = True
    layers: bool = True
    reforge: bool | None = None
    quirks: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.semantics not in SEMANTICS:
            allowed = ", ".join(SEMANTICS)
            raise UserError(f"unknown semantics {self.semantics!r}: allowed are {allowed}; set method.semantics=paper")

    @property
    def position_rule(self) -> str:
        return self.positions or self.implementations()[self.semantics].default_positions

    @classmethod
    def implementations(cls) -> Mapping[str, type[AdaReTaKe]]:
        """The class of each semantics."""
        from harness.compress.methods.adaretake import Paper, Release2025, Release2026

        return dict(zip(SEMANTICS, (Paper, Release2025, Release2026), strict=True))

    def for_family(self, family: str) -> Method:
        """The implementation of the semantics.

        Raises:
            UserError: the semantics does not exist for the family, or does not know a quirk or reforge.
        """
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(AdaReTaKe)}
        return self.implementations()[self.semantics](**values).for_family(family)
