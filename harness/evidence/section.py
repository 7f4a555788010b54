"""A table as text, and how it is written on a terminal and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Characters that steer a terminal or a page instead of being seen."""


@dataclass(frozen=True)
class Section:
    """A table ready to print. All its values are text; columns named in ``left`` are words, the others numbers.

    notes: how to read it, for files. remarks: what must not be overlooked, everywhere.
    """

    title: str
    frame: pd.DataFrame
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", self.frame.map(lambda value: plain(str(value))))

    def markdown(self) -> str:
        """As a Markdown section."""
        cells = self.frame.map(lambda text: text.replace("|", r"\|").replace("\n", " "))
        align = ["left" if name in self.left else "right" for name in cells.columns]
        table = cells.to_markdown(index=False, disable_numparse=True, colalign=align) if len(cells) else ""
        notes = [f"- {note}" for note in (*self.remarks, *self.notes)]
        return "\n".join([f"## {self.title}", "", table, "", *notes, ""])

    def show(self, console: Any, leave_out: Sequence[str] = (), hoist: Sequence[str] = ()) -> None:
        """Print on a ``rich.console.Console``, without the columns `leave_out`.

        Columns of `hoist` go into the title where they have one value only.
        """
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        if len(self.frame):
            shown = self.frame.drop(columns=[name for name in leave_out if name in self.frame])
            common = {name: shown[name].iloc[0] for name in hoist if name in shown and shown[name].nunique() == 1}
            title = ", ".join([self.title, *(f"{name} {value}" for name, value in common.items() if value != "-")])
            table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, expand=False)
            shown = shown.drop(columns=list(common))
            for name in shown.columns:
                table.add_column(name, justify="left" if name in self.left else "right", overflow="fold")
            for row in shown.itertuples(index=False):
                table.add_row(*(escape(value) for value in row))
            console.print(table)
        for remark in self.remarks:
            console.print(remark, markup=False, highlight=False, soft_wrap=True)


def plain(text: str) -> str:
    """Text of unknown origin with its control codes written out (``\\x1b``); tabs and line ends stay."""
    return STEERING.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def interval_text(interval: tuple[float, float], sign: bool = False) -> str:
    """``61.2 to 68.4``."""
    low, high = interval
    return f"{low:+.1f} to {high:+.1f}" if sign else f"{low:.1f} to {high:.1f}"


def p_text(p: float) -> str:
    """A p value with three digits, never zero."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def number_text(value: float | None, form: str = ".0f") -> str:
    """A number in this format; a dash where there is none."""
    return "-" if value is None else format(value, form)
