"""``compare``: the cells of two results folders side by side: settings, scores, flips, drift of kept tokens.

The rule of the status. Both ways every cell of one folder needs a partner of the same setting in the other, with the
same questions answered. Then, with ``compare.exact`` (the default), every answer has to be the same: text, right or
wrong, tokens, frames, positions, kept tokens; only where two scores tie within rounding may another token be kept, and
only in as many answers as rounding explains (the gate's rule, `harness.gate.compare`). Without it no paired
difference of scores may be told from zero, with a chance of 1 % of a false alarm shared by all cells. What answered
the cells (libraries, commit, device, declared versions) is listed and decides nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from harness.console import open_console
from harness.errors import UserError
from harness.evidence.cells import CellResult
from harness.evidence.choose import key_of, newest
from harness.evidence.loading import Ids, load_cells, stored_names
from harness.evidence.samples import main_metric
from harness.evidence.section import Section, interval_text, number_text, p_text
from harness.evidence.statistics import Difference, Estimate, score
from harness.gate.baseline import BaselineCell, answer_rows
from harness.gate.compare import Comparison, compare_rows
from harness.gate.gate import ALPHA
from harness.gate.partners import Partners, match
from harness.settings.groups import Config
from harness.settings.matrix import ids_under
from harness.store import write_atomic
from harness.store.records import made_folder
from harness.tools.verbs import CompareConfig
from harness.verdicts.context import Context
from harness.verdicts.noise import Runs

SAME, DIFFERS = 0, 1
RULES = {
    True: "same = the same cells, settings and questions, and every answer the same, but for tokens kept that tie",
    False: "same = the same cells, settings and questions, and no score told apart (1 % of false alarms in all)",
}


@dataclass(frozen=True)
class Side:
    """Two cells side by side, on the questions that both answered. ``difference`` is B - A; None: there are none."""

    pair: Partners
    scores: tuple[Estimate | None, Estimate | None]
    difference: Difference | None

    @cached_property
    def answers(self) -> Comparison:
        """The answers of B against those of A."""
        a, rows = self.pair.a, answer_rows(self.pair.b)
        stored = BaselineCell(a.id, key_of(a), {}, {}, answer_rows(a))
        return compare_rows(stored, rows, list(rows))

    @property
    def kept_drift(self) -> int:
        """Answers whose kept tokens differ, and not by ties."""
        return sum("indices" in columns for columns in self.answers.changed.values())

    @cached_property
    def flips(self) -> list[dict[str, str | None]]:
        """Questions that only one of both answers right, with what both said."""
        a, b = self.pair.a, self.pair.b
        letters = [dict(zip((q.question_id for q in c.questions), c.letters(), strict=True)) for c in (a, b)]
        asked, turned = {q.question_id: q for q in a.questions}, {*self.answers.gained, *self.answers.lost}
        return [
            {"question": name, "video": asked[name].video_id, "gold": asked[name].answer}
            | {"right": "b" if name in self.answers.gained else "a"}
            | {"letter_a": letters[0][name], "letter_b": letters[1][name]}
            | {f"text_{side}": _said(cell, name) for side, cell in (("a", a), ("b", b))}
            for name in asked
            if name in turned
        ]

    def reason(self, exact: bool, alpha: float) -> str:
        """Why the two are not the same by the rule; empty where they are."""
        found = self.answers
        if self.pair.settings:
            return f"settings differ: {'; '.join(self.pair.settings)}"
        if found.missing or found.unknown:
            return f"{len(found.missing)} questions are answered in A only, {len(found.unknown)} in B only"
        if exact and found.changed:
            return f"{len(found.changed)} of {found.n} answers differ, {found.flips} flips"
        if exact and found.many_ties:
            return f"{len(found.numerics)} of {found.n} answers decide ties otherwise: too many for rounding"
        if not exact and self.difference is not None and self.difference.p < alpha:
            return f"scores differ by {self.difference.value:+.2f} points (p = {p_text(self.difference.p)})"
        return ""


def _said(cell: CellResult, question: str) -> str | None:
    answer = cell.answers[question]
    return answer.text if answer.ok else f"(failed: {answer.reason})"


@dataclass(frozen=True)
class Found:
    """Two folders side by side."""

    folders: tuple[str, str]
    sides: list[Side]
    only: tuple[list[str], list[str]]
    exact: bool

    @cached_property
    def reasons(self) -> list[str]:
        """Why they are not the same by the rule; empty where they are."""
        lacking = [f"only in {side}: {name}" for side, names in zip("AB", self.only, strict=True) for name in names]
        said = [(side.pair.name, side.reason(self.exact, ALPHA / len(self.sides))) for side in self.sides]
        return [*lacking, *(f"{name}: {reason}" for name, reason in said if reason)]


def main(config: Config, settings: CompareConfig) -> int:
    """Print what differs, and write ``compare.md`` and ``compare.json``.

    Returns:
        0 when both folders are the same by the rule, 1 when not.

    Raises:
        UserError: not two folders, or one without cells.
    """
    console = open_console()
    found = find(settings.folders, config.report.cells, settings.exact, ids_under(config.words))
    output = made_folder(
        Path(settings.output) if settings.output else Path(config.results) / "compare", "output=<folder>"
    )
    confidence = config.report.confidence
    sections = sections_of(found, confidence, settings.limit)
    for section in sections:
        section.show(console, leave_out=("text A", "text B") if not console.is_terminal else ())
    lines = verdict(found)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    head = f"# {found.folders[0]} (A) and {found.folders[1]} (B)\n\n" + "\n".join(f"- {line}" for line in lines)
    write_atomic(output / "compare.md", "\n\n".join([head, *(section.markdown() for section in sections)]))
    write_atomic(output / "compare.json", json.dumps(record(found, confidence), indent=1) + "\n")
    console.print(f"written: {output}/compare.md, compare.json", markup=False, soft_wrap=True)
    return DIFFERS if found.reasons else SAME


def find(folders: Sequence[str], references: Sequence[str], exact: bool, ids_under: Ids | None = None) -> Found:
    """Compare two results folders; of cells with the same setting the newest counts.

    Raises:
        UserError: see `main`.
    """
    if len(folders) != 2:
        raise UserError(f"compare takes two results folders, {len(folders)} given: python -m harness compare A B")
    cells = []
    for folder in folders:
        root = Path(folder).parent if Path(folder).name == "runs" else Path(folder)
        if not stored_names(root / "runs"):
            raise UserError(f"{folder} holds no cells: a results folder has runs/<cell>/manifest.json in it")
        cells.append(newest(load_cells(root, references, ids_under)))
    pairs, only_a, only_b = match(*cells)
    context = Context([cell for of in cells for cell in of])
    sides = []
    for pair in pairs:
        shared = context.runs(pair.a, pair.b, main_metric(pair.a.benchmark))
        sides.append(Side(pair, _scores(shared), context.paired(pair.b, pair.a)))
    return Found((folders[0], folders[1]), sides, ([c.id for c in only_a], [c.id for c in only_b]), exact)


def _scores(shared: Runs | None) -> tuple[Estimate | None, Estimate | None]:
    if shared is None:
        return None, None
    return score(shared.a, shared.clusters, shared.groups), score(shared.b, shared.clusters, shared.groups)


def verdict(found: Found) -> list[str]:
    """The outcome in words."""
    if not found.reasons:
        return [f"same ({len(found.sides)} cells). {RULES[found.exact]}"]
    more = [f"and {len(found.reasons) - 10} more reasons"] if len(found.reasons) > 10 else []
    return [f"differs. {RULES[found.exact]}", *found.reasons[:10], *more]


def sections_of(found: Found, confidence: float, limit: int) -> list[Section]:
    """Scores, what differs in settings and environment, and flips."""
    lines = Counter(("setting", line) for side in found.sides for line in side.pair.settings)
    lines.update(("answered with", line) for side in found.sides for line in side.pair.environment)
    differs = [{"what": kind, "A -> B": line, "cells": str(count)} for (kind, line), count in lines.items()]
    flips = [{"cell": side.pair.name, **flip} for side in found.sides for flip in side.flips]
    rows = [
        {"cell": flip["cell"], "question": flip["question"], "gold": flip["gold"] or "-"}
        | {"A": flip["letter_a"] or "-", "B": flip["letter_b"] or "-"}
        | {"text A": flip["text_a"], "text B": flip["text_b"]}
        for flip in flips[:limit]
    ]
    shown = f" (the first {limit} of {len(flips)}; all in compare.json)" if len(flips) > limit else ""
    return [
        Section("Scores", pd.DataFrame([_score_row(side, confidence) for side in found.sides]), ("cell",), NOTES),
        Section("What differs", pd.DataFrame(differs), ("what", "A -> B")),
        Section(f"Flips{shown}", pd.DataFrame(rows), ("cell", "question", "text A", "text B")),
    ]


NOTES = (
    "A, B: scores on the n questions that both answered. B - A: paired by question, interval clustered by video. "
    "changed: answers that differ in anything; ties: those in which only a token of equal score was kept instead, not "
    "among the changed. kept: answers with other tokens kept, ties aside.",
)


def _score_row(side: Side, confidence: float) -> dict[str, str]:
    found, gap = side.answers, side.difference
    return {
        "cell": side.pair.name,
        **{name: number_text(s.value if s else None, ".1f") for name, s in zip("AB", side.scores, strict=True)},
        "B - A": number_text(gap.value if gap else None, "+.2f"),
        f"{100 * confidence:g} % interval": "-" if gap is None else interval_text(gap.interval(confidence), sign=True),
        "p": "-" if gap is None else p_text(gap.p),
        "n": str(gap.n if gap else 0),
        "gained": str(len(found.gained)),
        "lost": str(len(found.lost)),
        "changed": str(len(found.changed)),
        "ties": str(len(found.numerics)),
        "kept": str(side.kept_drift),
    }


def record(found: Found, confidence: float) -> dict[str, Any]:
    """Everything, for the JSON file. Scores in percent, differences in points."""
    cells = [
        {
            "a": side.pair.a.id,
            "b": side.pair.b.id,
            "settings": side.pair.settings,
            "environment": side.pair.environment,
            "score_a": side.scores[0] and side.scores[0].value,
            "score_b": side.scores[1] and side.scores[1].value,
            "difference": side.difference and side.difference.value,
            "interval": side.difference and side.difference.interval(confidence),
            "p": side.difference and side.difference.p,
            "n": side.difference.n if side.difference else 0,
            "changed": side.answers.changed,
            "ties": side.answers.numerics,
            "kept_drift": side.kept_drift,
            "only_a": side.answers.missing,
            "only_b": side.answers.unknown,
            "flips": side.flips,
        }
        for side in found.sides
    ]
    outcome = {"same": not found.reasons, "rule": RULES[found.exact], "reasons": found.reasons}
    only = {"only_a": found.only[0], "only_b": found.only[1], "confidence": confidence}
    return {"a": found.folders[0], "b": found.folders[1], **outcome, **only, "cells": cells}
