"""The verb ``compare``: the cells of two results folders next to each other.

The rule of the status:

- Every cell of one folder needs a partner of the same setting in the other, with the same questions answered.
- With ``compare.exact`` (the default) every answer has to be the same: text, verdict, tokens, frames, positions, kept
  tokens. Another token may be kept only where two scores tie within rounding, and only in as many answers as rounding
  explains (`harness.gate.compare`).
- Without it no paired difference of scores may be significant, at a family-wise error rate of 1 % over all cells.
- Differences of the environment (libraries, commit, device, declared versions) are listed and do not count.
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

from harness.advice import open_console
from harness.errors import UserError
from harness.evidence.cells import CellResult
from harness.evidence.loading import Ids, key_of, load_cells, newest, stored_names
from harness.evidence.section import Section, interval_text, number_text, p_text
from harness.evidence.statistics import Difference, Estimate, main_metric, score
from harness.gate.baseline import BaselineCell, answer_rows
from harness.gate.compare import ALPHA, LADDER, NEAR, Comparison, compare_rows
from harness.records import made_folder
from harness.settings.cell import key_differences
from harness.settings.groups import Config
from harness.settings.matrix import ids_under
from harness.store import Answer, write_atomic
from harness.tools import CompareConfig
from harness.verdicts.context import Context

SAME, DIFFERS = 0, 1
_RULES = {
    True: "same = the same cells, settings and questions, and every answer the same, except for kept tokens that tie",
    False: "same = the same cells, settings and questions, and no significant difference of scores (1 % over all)",
}


_OF_START = ("device", "attention_backend", "instruction_set")


@dataclass(frozen=True)
class CellPair:
    """A cell of folder A and its partner in folder B.

    Attributes:
        a: the cell of A.
        b: the cell of B.
        settings: differences of their settings.
    """

    a: CellResult
    b: CellResult
    settings: list[str]

    @property
    def name(self) -> str:
        """The id in A; with the id in B where they differ."""
        return self.a.id if self.a.id == self.b.id else f"{self.a.id} / {self.b.id}"

    @cached_property
    def environment(self) -> list[str]:
        """Differences of what answered them: ``torch: 2.11.0 -> 2.12.0``; several values where a cell has several."""
        return key_differences(_environment(self.a), _environment(self.b))

    @cached_property
    def answers(self) -> Comparison:
        """The answers of B compared with those of A."""
        rows = answer_rows(self.b)
        stored = BaselineCell(self.a.id, key_of(self.a), {}, {}, [], answer_rows(self.a))
        return compare_rows(stored, rows, list(rows))

    @property
    def kept_drift(self) -> int:
        """Number of answers whose kept tokens differ by more than ties."""
        return sum("indices" in columns for columns in self.answers.changed.values())

    @cached_property
    def flips(self) -> list[dict[str, str | None]]:
        """Questions that only one of the two answered right, with both answers."""
        cells = {"a": self.a, "b": self.b}
        letters = {
            f"letter_{side}": dict(zip((q.question_id for q in cell.questions), cell.letters(), strict=True))
            for side, cell in cells.items()
        }
        asked, turned = {q.question_id: q for q in self.a.questions}, {*self.answers.gained, *self.answers.lost}
        return [
            {"question": name, "video": asked[name].video_id, "gold": asked[name].answer}
            | {"right": "b" if name in self.answers.gained else "a"}
            | {key: of_cell[name] for key, of_cell in letters.items()}
            | {f"text_{side}": _text(cell.answers[name]) for side, cell in cells.items()}
            for name in asked
            if name in turned
        ]

    @cached_property
    def scores(self) -> tuple[Estimate | None, Estimate | None]:
        """The scores of A and B on the questions that both answered; None where there are none."""
        runs = Context([self.a, self.b]).runs(self.a, self.b, main_metric(self.a.benchmark))
        if runs is None:
            return None, None
        return score(runs.a, runs.clusters, runs.groups), score(runs.b, runs.clusters, runs.groups)

    @cached_property
    def difference(self) -> Difference | None:
        """B - A, paired by question."""
        return Context([self.a, self.b]).paired(self.b, self.a)

    def reason(self, exact: bool, alpha: float) -> str:
        """Why the two are not the same by the rule; empty where they are."""
        answers = self.answers
        if self.settings:
            return f"settings differ: {'; '.join(self.settings)}"
        if answers.missing or answers.unknown:
            return f"{len(answers.missing)} questions are answered in A only, {len(answers.unknown)} in B only"
        if exact and answers.changed:
            return f"{len(answers.changed)} of {answers.n} answers differ, {answers.flips} flips"
        if exact and answers.many_ties:
            return f"{len(answers.numerics)} of {answers.n} answers resolve ties differently: too many for rounding"
        if not exact and self.difference is not None and self.difference.p < alpha:
            return f"scores differ by {self.difference.value:+.2f} points (p = {p_text(self.difference.p)})"
        return ""


def _environment(cell: CellResult) -> dict[str, str]:
    """Libraries, commit, device, weights and declared versions of all starts of a cell."""
    manifest = cell.manifest
    values: dict[str, set[str]] = {}
    for start in (vars(manifest), *manifest.starts):
        commit = (start.get("git") or {}).get("commit")
        of_start = {**(start.get("versions") or {}), "commit": commit, **{name: start.get(name) for name in _OF_START}}
        for name, value in of_start.items():
            values.setdefault(name, set()).add(str(value))
    of_cell = {f"declared {name}": str(version) for name, version in cell.cell.get("versions", {}).items()}
    of_cell |= {"weights": str(cell.cell.get("weights"))}
    return {name: ", ".join(sorted(texts)) for name, texts in values.items()} | of_cell


def _text(answer: Answer) -> str:
    return answer.text if answer.ok else f"(failed: {answer.reason})"


@dataclass(frozen=True)
class FolderComparison:
    """Two results folders, compared.

    Attributes:
        folders: A and B.
        pairs: cells of A with their partners in B.
        only: ids of the cells without a partner, of A and of B.
        exact: whether every answer has to be the same.
    """

    folders: tuple[str, str]
    pairs: list[CellPair]
    only: tuple[list[str], list[str]]
    exact: bool

    @cached_property
    def reasons(self) -> list[str]:
        """Why they are not the same by the rule; empty where they are."""
        lacking = [f"only in {side}: {name}" for side, names in zip("AB", self.only, strict=True) for name in names]
        differing = [(pair.name, pair.reason(self.exact, ALPHA / len(self.pairs))) for pair in self.pairs]
        return [*lacking, *(f"{name}: {reason}" for name, reason in differing if reason)]

    @property
    def outcome(self) -> list[str]:
        """The outcome in words."""
        if not self.reasons:
            return [f"same ({len(self.pairs)} cells). {_RULES[self.exact]}"]
        more = [f"and {len(self.reasons) - 10} more reasons"] if len(self.reasons) > 10 else []
        return [f"differs. {_RULES[self.exact]}", *self.reasons[:10], *more]


def main(config: Config, settings: CompareConfig) -> int:
    """Print what differs, and write ``compare.md`` and ``compare.json``.

    Returns:
        0 when both folders are the same by the rule, 1 when not.

    Raises:
        UserError: not two folders, or one without cells.
    """
    console = open_console()
    comparison = compare_folders(settings.folders, config.report.cells, settings.exact, ids_under(config.words))
    output = made_folder(
        Path(settings.output) if settings.output else Path(config.results) / "compare", "output=<folder>"
    )
    confidence = config.report.confidence
    sections = _sections(comparison, confidence, settings.limit)
    for section in sections:
        section.show(console, leave_out=("text A", "text B") if not console.is_terminal else ())
    for line in comparison.outcome:
        console.print(line, markup=False, soft_wrap=True)
    a, b = comparison.folders
    head = f"# {a} (A) and {b} (B)\n\n" + "\n".join(f"- {line}" for line in comparison.outcome)
    write_atomic(output / "compare.md", "\n\n".join([head, *(section.markdown() for section in sections)]))
    write_atomic(output / "compare.json", json.dumps(_numbers(comparison, confidence), indent=1) + "\n")
    console.print(f"written: {output}/compare.md, compare.json", markup=False, soft_wrap=True)
    return DIFFERS if comparison.reasons else SAME


def compare_folders(
    folders: Sequence[str], references: Sequence[str], exact: bool, ids_under: Ids | None = None
) -> FolderComparison:
    """Compare two results folders; of several cells with one setting the newest counts.

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
    pairs, only_a, only_b = _paired_cells(*cells)
    only = ([cell.id for cell in only_a], [cell.id for cell in only_b])
    return FolderComparison((folders[0], folders[1]), pairs, only, exact)


def _paired_cells(
    a: Sequence[CellResult], b: Sequence[CellResult]
) -> tuple[list[CellPair], list[CellResult], list[CellResult]]:
    """Cells of the same setting; then cells of the same row of a table, those with the fewest differences first.

    Another context or number of frames is another row.

    Returns:
        The pairs in the order of `a`, and the cells of `a` and of `b` without a partner.
    """
    of_setting = {repr(key_of(cell)): cell for cell in b}
    pairs = [CellPair(x, y, []) for x in a if (y := of_setting.get(repr(key_of(x)))) is not None]
    rest_a = [cell for cell in a if all(cell is not pair.a for pair in pairs)]
    rest_b = [cell for cell in b if all(cell is not pair.b for pair in pairs)]
    near = []
    for x in rest_a:
        for y in rest_b:
            lines = key_differences(key_of(x), key_of(y)) if _row(x) == _row(y) else [LADDER[0]]
            if not any(line.startswith(LADDER) for line in lines):
                near.append((len(lines), x.id, y.id, CellPair(x, y, lines)))
    for *_, pair in sorted(near, key=lambda entry: entry[:3]):
        if any(cell is pair.a for cell in rest_a) and any(cell is pair.b for cell in rest_b):
            pairs.append(pair)
            rest_a = [cell for cell in rest_a if cell is not pair.a]
            rest_b = [cell for cell in rest_b if cell is not pair.b]
    order = {cell.id: place for place, cell in enumerate(a)}
    return sorted(pairs, key=lambda pair: order[pair.a.id]), rest_a, rest_b


def _row(cell: CellResult) -> tuple[Any, ...]:
    key = key_of(cell)
    return tuple(key.get(group, {}).get(name) for group, name in (path.split(".") for path in NEAR))


def _sections(comparison: FolderComparison, confidence: float, limit: int) -> list[Section]:
    """Scores, differences of settings and environment, and flips."""
    pairs = comparison.pairs
    lines = Counter(("setting", line) for pair in pairs for line in pair.settings)
    lines.update(("answered with", line) for pair in pairs for line in pair.environment)
    differences = [{"what": kind, "A -> B": line, "cells": str(count)} for (kind, line), count in lines.items()]
    flips = [{"cell": pair.name, **flip} for pair in pairs for flip in pair.flips]
    rows = [
        {"cell": flip["cell"], "question": flip["question"], "gold": flip["gold"] or "-"}
        | {"A": flip["letter_a"] or "-", "B": flip["letter_b"] or "-"}
        | {"text A": flip["text_a"], "text B": flip["text_b"]}
        for flip in flips[:limit]
    ]
    part = f" (the first {limit} of {len(flips)}; all in compare.json)" if len(flips) > limit else ""
    return [
        Section("Scores", pd.DataFrame([_score_row(pair, confidence) for pair in pairs]), ("cell",), _NOTES),
        Section("What differs", pd.DataFrame(differences), ("what", "A -> B")),
        Section(f"Flips{part}", pd.DataFrame(rows), ("cell", "question", "text A", "text B")),
    ]


_NOTES = (
    "A, B: scores on the n questions that both answered. B - A: paired by question, interval clustered by video. "
    "changed: answers that differ in anything but ties. ties: answers that differ only in a kept token of equal score. "
    "kept: answers with other kept tokens, without ties.",
)


def _score_row(pair: CellPair, confidence: float) -> dict[str, str]:
    answers, gap = pair.answers, pair.difference
    return {
        "cell": pair.name,
        **{name: number_text(s.value if s else None, ".1f") for name, s in zip("AB", pair.scores, strict=True)},
        "B - A": number_text(gap.value if gap else None, "+.2f"),
        f"{100 * confidence:g} % interval": "-" if gap is None else interval_text(gap.interval(confidence), sign=True),
        "p": "-" if gap is None else p_text(gap.p),
        "n": str(gap.n if gap else 0),
        "gained": str(len(answers.gained)),
        "lost": str(len(answers.lost)),
        "changed": str(len(answers.changed)),
        "ties": str(len(answers.numerics)),
        "kept": str(pair.kept_drift),
    }


def _numbers(comparison: FolderComparison, confidence: float) -> dict[str, Any]:
    """``compare.json``: everything, scores in percent and differences in points."""
    cells = [
        {
            "a": pair.a.id,
            "b": pair.b.id,
            "settings": pair.settings,
            "environment": pair.environment,
            "score_a": pair.scores[0] and pair.scores[0].value,
            "score_b": pair.scores[1] and pair.scores[1].value,
            "difference": pair.difference and pair.difference.value,
            "interval": pair.difference and pair.difference.interval(confidence),
            "p": pair.difference and pair.difference.p,
            "n": pair.difference.n if pair.difference else 0,
            "changed": pair.answers.changed,
            "ties": pair.answers.numerics,
            "kept_drift": pair.kept_drift,
            "only_a": pair.answers.missing,
            "only_b": pair.answers.unknown,
            "flips": pair.flips,
        }
        for pair in comparison.pairs
    ]
    outcome = {"same": not comparison.reasons, "rule": _RULES[comparison.exact], "reasons": comparison.reasons}
    only = {"only_a": comparison.only[0], "only_b": comparison.only[1], "confidence": confidence}
    return {"a": comparison.folders[0], "b": comparison.folders[1], **outcome, **only, "cells": cells}
