"""Deviations of published code, each with a name, that can be switched one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from harness.compress.method import Method
from harness.errors import UserError


@dataclass(frozen=True)
class WithQuirks(Method):
    """A method whose published code deviates from what is meant, or from an exact budget.

    Attributes:
        QUIRKS: which there are, and whether they are on where nothing is said; explained in the method's module.
        quirks: those that are switched.
    """

    QUIRKS: ClassVar[Mapping[str, bool]] = {}

    quirks: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_quirks(self.quirks, self.QUIRKS, f"method {self.name}")

    def has(self, quirk: str) -> bool:
        """Whether a quirk is on."""
        return {**self.QUIRKS, **self.quirks}[quirk]


def checked_quirks(quirks: Mapping[str, bool], defaults: Mapping[str, bool], of: str) -> dict[str, bool]:
    """The quirks of a release with the user's switches applied; `of` names it in the error.

    Raises:
        UserError: a quirk that it does not have.
    """
    if unknown := sorted(set(quirks) - set(defaults)):
        allowed = ", ".join(sorted(defaults)) or "none"
        raise UserError(
            f"unknown quirk {', '.join(unknown)} for {of}: allowed are {allowed}; remove it from method.quirks"
        )
    return {**defaults, **{key: bool(value) for key, value in quirks.items()}}
