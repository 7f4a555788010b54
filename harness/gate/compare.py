"""The answers of a cell against those of a baseline: what changed, and what of it is numerics, noise or drift."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

from harness.evidence.cells import CellResult
from harness.evidence.loading import key_of
from harness.gate.baseline import Baseline, BaselineCell, Row, answer_rows, interval, rounded
from harness.settings.cell import key_differences

ALPHA = 0.01
"""Chance of a false alarm per check."""
ALL = "all"


@dataclass(frozen=True)
class Flips:
    """Flips of one cell: per question its video, and whether it was lost or gained. ``benchmark``: whose videos."""

    benchmark: str
    videos: Sequence[Hashable]
    lost: Sequence[bool]
    gained: Sequence[bool]

    @property
    def n_videos(self) -> int:
        """Videos of the cell."""
        return len(set(self.videos))

    @property
    def net(self) -> dict[Hashable, int]:
        """Video -> answers gained minus lost; videos without a flip are absent."""
        found: dict[Hashable, int] = defaultdict(int)
        for video, lost, gained in zip(self.videos, self.lost, self.gained, strict=True):
            if lost or gained:
                found[video] += int(gained) - int(lost)
        return dict(found)


@dataclass(frozen=True)
class Noise:
    """Videos with a flip among those of two runs of the same code (cells x videos)."""

    flipped: int
    videos: int

    @property
    def text(self) -> str:
        """In a few words."""
        return f"{self.flipped} of {self.videos} videos in two runs"

    def tail(self, flipped: int, videos: int, questions: int) -> float:
        """Chance of so many flipped videos or more."""
        if not flipped:
            return 1.0
        a, b = self.flipped + 0.5, self.videos - self.flipped + 0.5
        k = np.arange(flipped, videos + 1)  # the probabilities of the beta-binomial distribution, added up
        logs = special.betaln(k + a, videos - k + b) - special.betaln(a, b)
        logs -= np.log(videos + 1) + special.betaln(videos - k + 1, k + 1)
        return float(np.exp(logs).sum())


@dataclass(frozen=True)
class KnownNoise:
    """A share of answers that flips, given by hand and taken as known; those of a video flip by themselves."""

    rate: float

    @property
    def text(self) -> str:
        """In a few words."""
        return f"rate {self.rate:.3g}"

    def tail(self, flipped: int, videos: int, questions: int) -> float:
        """Chance of so many flipped videos or more, the questions shared out evenly."""
        if not flipped:
            return 1.0
        return float(special.bdtrc(flipped - 1, videos, 1 - (1 - self.rate) ** (questions / videos)))


def gate_p(cells: Mapping[str, Flips], noise: Noise | KnownNoise) -> dict[str, float]:
    """p values of every test: ``flips NAME`` and ``worse NAME`` per cell, and of all cells together (`ALL`)."""
    found, flipped, videos, questions = {}, 0, 0, 0
    together: dict[tuple[str, Hashable], int] = defaultdict(int)
    for name, cell in cells.items():
        net = cell.net
        found[f"flips {name}"] = noise.tail(len(net), cell.n_videos, len(cell.videos))
        found[f"worse {name}"] = _worse(list(net.values()))
        flipped, videos, questions = flipped + len(net), videos + cell.n_videos, questions + len(cell.videos)
        for video, change in net.items():
            together[cell.benchmark, video] += change
    found[f"flips {ALL}"] = noise.tail(flipped, videos, questions)
    found[f"worse {ALL}"] = _worse(list(together.values()))
    return found


def gate_fails(p: Mapping[str, float], n_cells: int | None = None, alpha: float = ALPHA) -> list[str]:
    """The tests that fail: a quarter of alpha for each test of all cells, a quarter for all cells' of each kind."""
    cells = n_cells or max(1, len(p) // 2 - 1)
    return [name for name, value in p.items() if value < alpha / (4 if name.endswith(f" {ALL}") else 4 * cells)]


def _worse(net: Sequence[int]) -> float:
    """One-sided exact sign test over videos: more lost than gained against more gained than lost."""
    lost, gained = int(np.sum(np.less(net, 0))), int(np.sum(np.greater(net, 0)))
    if not lost + gained:
        return 1.0
    return float(special.bdtrc(lost - 1, lost + gained, 0.5)) if lost else 1.0


PASS, REGRESSION, INCOMPLETE, DRIFT = "pass", "regression", "incomplete", "environment drift"
TIE = 1e-6
"""Scores closer than this share of the largest tie within rounding: which token is kept is then numerics. Measured on
the toy between instruction sets of one CPU: where a choice changed, the gap was 4e-7 at most."""
MANY_TIES = 0.1
"""Share of a cell's answers in which ties may be decided otherwise; more is a change of the rule. Measured: 3 %."""
OF_KEPT = {"shares", "indices"}
"""Columns that change when another of two tied tokens is kept."""
NEAR = ("model.name", "task.name", "method.name", "method.temporal", "method.layers")
"""Two cells that agree on these are the same row of a table; anything else that differs between them is a change."""
KINDS = ("flips", "worse")
"""Tests of the gate where answers may flip."""
LADDER = ("context", "video.fps", "video.max_frames")
"""Settings that make another cell of the same ladder, not the same one changed."""
READER = "video.backend"
"""What reads the videos. Not every machine has every reader: where answers must be equal, it is environment."""


@dataclass(frozen=True)
class Comparison:
    """A cell against its baseline, question by question. Lists hold question ids."""

    n: int
    changed: dict[str, list[str]]
    """Answers that are not the stored ones -> the columns in which they differ."""
    numerics: list[str]
    """Answers that differ only by tokens whose scores tie within rounding; they are not among the changed ones."""
    gained: list[str]
    lost: list[str]
    missing: list[str]
    newly_failed: list[str]
    unknown: list[str]
    """Questions that the baseline does not have."""

    @property
    def equal(self) -> bool:
        """Whether every stored answer came out the same, up to ties, and nothing else did."""
        return not (self.changed or self.missing or self.unknown)

    @property
    def many_ties(self) -> bool:
        """Whether more ties are decided otherwise than rounding explains."""
        return len(self.numerics) > max(1, MANY_TIES * self.n)

    @property
    def flips(self) -> int:
        """Answers that turned right or wrong."""
        return len(self.gained) + len(self.lost)

    @property
    def summary(self) -> str:
        """A few words for a table."""
        if self.missing:
            return f"incomplete: {len(self.missing)} of {self.n}"
        if self.unknown:
            return f"other questions: {len(self.unknown)} unknown"
        if self.changed:
            return f"{len(self.changed)} of {self.n} answers changed, {self.flips} flips"
        return "equals baseline" + (f" ({len(self.numerics)} ties decided otherwise)" if self.numerics else "")


@dataclass(frozen=True)
class CellCheck:
    """The gate's verdict on one cell of the baseline."""

    name: str
    verdict: str
    reason: str
    comparison: Comparison | None = None
    details: list[str] = field(default_factory=list)


def compare(stored: BaselineCell, cell: CellResult) -> Comparison:
    """Compare a cell with the baseline of its setting."""
    return compare_rows(stored, answer_rows(cell), [question.question_id for question in cell.questions])


def compare_rows(stored: BaselineCell, ours: Mapping[str, Row], asked: Iterable[str]) -> Comparison:
    """Compare answers with those of a baseline.

    Args:
        stored: the baseline's cell.
        ours: question id -> row, see `harness.gate.baseline.COLUMNS`.
        asked: ids of all questions.
    """
    changed: dict[str, list[str]] = {}
    numerics, gained, lost, missing, newly_failed = [], [], [], [], []
    for qid, then in stored.answers.items():
        row = ours.get(qid)
        if row is None:
            missing.append(qid)
            continue
        columns = [name for name in then if name != "margin" and row.get(name) != then[name]]
        if columns and set(columns) <= OF_KEPT and tied(then) and tied(row):
            numerics.append(qid)
        elif columns:
            changed[qid] = columns
        if row["right"] and not then["right"]:
            gained.append(qid)
        if then["right"] and not row["right"]:
            lost.append(qid)
        if row["text"] is None and then["text"] is not None:
            newly_failed.append(qid)
    unknown = sorted(set(asked) - set(stored.answers))
    return Comparison(len(stored.answers), changed, numerics, gained, lost, missing, newly_failed, unknown)


def tied(row: Row) -> bool:
    """Whether some token was kept over another of the same score, within rounding."""
    margin = row.get("margin")
    return margin is not None and 0 <= margin < TIE


def check_cells(
    baseline: Baseline, cells: Sequence[CellResult], *, noise: Noise | KnownNoise | None, run: str, update: str
) -> list[CellCheck]:
    """One verdict per cell of the baseline, and per cell that it does not have; one more where only all together fail.

    Args:
        baseline: the stored answers.
        cells: what is there now.
        noise: between two runs of unchanged code: answers may flip between right and wrong as often as it explains.
            None: every column of every answer must be the stored one, ties aside; only then, by whatever reader.
        run, update: the commands that answer what is missing, and that write the baseline.
    """
    checks: list[CellCheck] = []
    used: set[str] = set()
    pairs = [(stored, _cell_of(stored, cells, any_reader=noise is None)) for stored in baseline.cells]
    found = {cell.id: (compare(stored, cell), cell) for stored, cell in pairs if cell is not None}
    whole = {name: stored_flips(*pair) for name, pair in found.items() if not pair[0].missing and not pair[0].unknown}
    p = gate_p(whole, noise) if noise is not None else {}
    failing = {name: p[name] for name in gate_fails(p, len(baseline.cells))}
    for stored, cell in pairs:
        if cell is None:
            checks.append(_without_cell(stored, cells, used, run))
            continue
        used.add(cell.id)
        own = {kind: failing[name] for kind in KINDS if (name := f"{kind} {cell.id}") in failing}
        checks.append(_check_cell(baseline, stored, cell, found[cell.id][0], noise is None, own, run))
    for cell in cells:
        if cell.id not in used:
            checks.append(CellCheck(cell.id, INCOMPLETE, f"the baseline does not have it: {update}"))
    together = {kind: failing[name] for kind in KINDS if (name := f"{kind} {ALL}") in failing}
    if together and all(check.verdict == PASS for check in checks):
        comparisons = [found[name][0] for name in whole]
        lost, gained = (sum(len(getattr(c, way)) for c in comparisons) for way in ("lost", "gained"))
        drift = any(drifted(baseline, stored, cell)[0] for stored, cell in pairs if cell is not None)
        reason = "; ".join(_flip_problem(kind, value, lost, gained) for kind, value in together.items())
        checks.append(CellCheck(f"{ALL} cells", DRIFT if drift else REGRESSION, reason))
    return checks


def _cell_of(stored: BaselineCell, cells: Sequence[CellResult], *, any_reader: bool) -> CellResult | None:
    """The cell of the baseline's setting, else one that differs from it in the reader of its videos only."""
    for cell in cells:
        if key_of(cell) == stored.key:
            return cell
    lines = ((cell, key_differences(stored.key, key_of(cell))) for cell in cells if any_reader)
    return next((cell for cell, (first, *more) in lines if not more and first.startswith(f"{READER}: ")), None)


def stored_flips(found: Comparison, cell: CellResult) -> Flips:
    """Which questions of which videos were lost and gained."""
    lost, gained = set(found.lost), set(found.gained)
    names = [question.question_id for question in cell.questions]
    videos = [question.video_id for question in cell.questions]
    return Flips(cell.benchmark, videos, [name in lost for name in names], [name in gained for name in names])


def _flip_problem(kind: str, p: float, lost: int, gained: int) -> str:
    flips = f"{lost} answers lost and {gained} gained"
    if kind == "flips":
        return f"{flips}: in more videos than the flips between two runs explain (p = {p:.2g})"
    return f"{flips}: worse, not noise (p = {p:.2g})"


def _check_cell(
    baseline: Baseline,
    stored: BaselineCell,
    cell: CellResult,
    found: Comparison,
    exact: bool,
    failing: Mapping[str, float],
    run: str,
) -> CellCheck:
    drift, notes = drifted(baseline, stored, cell)
    details = [_change(question, stored, cell, columns) for question, columns in list(found.changed.items())[:5]]
    if found.missing:
        reason = f"{len(found.missing)} of {found.n} questions are not answered: {run}"
        return CellCheck(cell.id, INCOMPLETE, reason, found, details)
    problem = problem_of(found, exact, failing)
    if problem:
        verdict = DRIFT if drift and not found.unknown else REGRESSION
        return CellCheck(cell.id, verdict, "; ".join([problem, *drift, *notes]), found, details)
    if scored := _scored_otherwise(stored, cell, found):
        return CellCheck(cell.id, REGRESSION, scored, found, details)
    note = f"; although {'; '.join(drift + notes)}" if drift or notes else ""
    return CellCheck(cell.id, PASS, f"{found.summary}{note}", found, details)


def _scored_otherwise(stored: BaselineCell, cell: CellResult, found: Comparison) -> str:
    """How the scores of equal answers differ from the stored ones, in words; empty where they do not."""
    if found.changed or found.flips:
        return ""
    if (scores := rounded(cell.scores())) != stored.score:
        changed = {name: (stored.score.get(name), scores.get(name)) for name in {*stored.score, *scores}}
        shown = [f"{name} {then} -> {now}" for name, (then, now) in sorted(changed.items()) if then != now]
        return f"equal answers have other scores: {', '.join(shown[:3])}"
    if (ends := interval(cell)) != stored.interval:
        return f"equal answers have another interval: {stored.interval} -> {ends}"
    return ""


def problem_of(found: Comparison, exact: bool, failing: Mapping[str, float]) -> str:
    """Why a complete cell does not pass; empty when it does.

    Args:
        failing: where flips are allowed, the p values of its tests (`KINDS`) that are too small.
    """
    if found.unknown:
        return f"{len(found.unknown)} questions are unknown to the baseline, the first is {found.unknown[0]}"
    if found.newly_failed:
        return f"{len(found.newly_failed)} answers failed that had not, the first is {found.newly_failed[0]}"
    if exact and not found.equal:
        return f"{found.summary}; they must be equal"
    if exact:
        ties = len(found.numerics)
        return f"{ties} of {found.n} answers decide ties otherwise: too many for rounding" if found.many_ties else ""
    return "; ".join(_flip_problem(kind, p, len(found.lost), len(found.gained)) for kind, p in failing.items())


def drifted(baseline: Baseline, stored: BaselineCell, cell: CellResult) -> tuple[list[str], list[str]]:
    """What of the environment changed since the baseline.

    Returns:
        What may change answers unasked (reader, versions of libraries, device, attention, weights), and what explains
        or excuses nothing by itself: the instruction set, which decides ties only, and versions raised on purpose.
    """
    manifest, then = cell.manifest, baseline.provenance
    starts = [vars(manifest), *manifest.starts]
    changes = key_differences(stored.key, key_of(cell))
    for name, version in then.get("versions", {}).items():
        met = {start.get("versions", {}).get(name, version) for start in starts}
        changes += [f"{name} {version} -> {other}" for other in sorted(met - {version})]
    moved: dict[str, list[str]] = {}
    for key in ("device", "attention_backend", "instruction_set"):
        known = then.get(key)
        found = {str(start[key]) for start in starts if start.get(key) is not None} if known is not None else set()
        moved[key] = [f"{key} {known} -> {other}" for other in sorted(found - {known})]
    changes += moved["device"] + moved["attention_backend"]
    weights = stored.made_with.get("weights")
    if cell.cell.get("weights") != weights:
        changes.append(f"weights {weights} -> {cell.cell.get('weights')}")
    before, now = stored.made_with.get("versions", {}), cell.cell.get("versions", {})
    raised = [f"declared version of {n} {before[n]} -> {now[n]}" for n in before if n in now and before[n] != now[n]]
    return changes, moved["instruction_set"] + raised


def _without_cell(stored: BaselineCell, cells: Sequence[CellResult], used: set[str], run: str) -> CellCheck:
    """The baseline's cell is not there: another setting of the same row is a change, nothing at all is incomplete."""
    for cell in cells:
        key = key_of(cell)
        if cell.id not in used and all(_at(key, path) == _at(stored.key, path) for path in NEAR):
            changed = key_differences(stored.key, key)
            if all(line.startswith(LADDER) for line in changed):
                continue
            used.add(cell.id)
            found = compare(stored, cell)
            return CellCheck(cell.id, REGRESSION, f"setting changed: {', '.join(changed)}; {found.summary}", found)
    return CellCheck(stored.name, INCOMPLETE, f"was not run: {run}")


def _at(key: dict[str, Any], path: str) -> Any:
    group, name = path.split(".")
    return key.get(group, {}).get(name)


def _change(question: str, stored: BaselineCell, cell: CellResult, columns: Sequence[str]) -> str:
    then, now = stored.answers[question], answer_rows(cell)[question]
    return f"{question}: " + ", ".join(f"{name} {then.get(name)!r} -> {now[name]!r}" for name in columns)
