"""Pairs of cells that differ in one axis, what each axis is worth, and accuracy along the context."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from harness.evidence.cells import CellResult, mean_known
from harness.evidence.loading import newest
from harness.evidence.statistics import Difference, Estimate, mean_difference, mean_estimate
from harness.verdicts.context import Context

APART = {"task", "split", "subset"}
"""Cells that differ in one of these answered other questions and make no pair."""
OF_TASK = {
    "task", "split", "protocol", "subtitles", "questions", "max_new_tokens", "reforge", "max_guide_length",
}  # fmt: skip
"""What a benchmark brings along: cells of several benchmarks that agree on the rest are pooled."""
OF_SEMANTICS = {"positions", "reforge", "quirks"}
"""What a semantics brings along: no axis of its own where the semantics differ."""
TITLES = ("method", "semantics", "variant")
"""Axes whose values are part of a method's title."""
MANY = 6
REFERENCES = ("none", "random", "adaretake")
"""What many methods are compared with: no compression, luck, and the subject of the harness."""
EQUAL_BUDGET = 0.05
"""Measured KV cache entries may differ by this share before two cells are not at equal budget."""


@dataclass(frozen=True)
class Pair:
    """``a`` against ``b``, alike but for one axis, on one benchmark or pooled over several.

    cells: (a, b) per benchmark. difference: a - b; for several benchmarks the mean of their differences.
    """

    axis: str
    cells: tuple[tuple[CellResult, CellResult], ...]
    difference: Difference

    @property
    def pooled(self) -> bool:
        """Whether several benchmarks are in it."""
        return len(self.cells) > 1

    @property
    def benchmark(self) -> str:
        """Name of the benchmark, or of how many the mean is taken."""
        return benchmark_title([a for a, _ in self.cells])

    @property
    def setting(self) -> dict[str, Any]:
        """What a and b have in common, in the words of ``CellResult.setting``."""
        a, b = (cell.setting for cell in self.cells[0])
        common = {key: value for key, value in a.items() if b.get(key) == value}
        if self.axis == "context":
            return common
        return common | {"context": b["context"] if a["context"] == "full" else a["context"]}

    @property
    def names(self) -> tuple[str, str]:
        """The two sides in the words of their axis; what they share of a method's title is said once."""
        a, b = self.cells[0]
        if self.axis == "variant":
            return a.method_title, b.variant
        if self.axis in TITLES:
            return a.method_title, b.method_title
        return f"{self.axis} {a.setting[self.axis]}", f"{self.axis} {b.setting[self.axis]}"

    @property
    def slots(self) -> tuple[float | None, float | None]:
        """Measured KV cache entries of a and of b, mean over the benchmarks."""
        return mean_known([a.slots for a, _ in self.cells]), mean_known([b.slots for _, b in self.cells])

    @property
    def budget(self) -> str:
        """``equal``, ``not equal``, or ``-`` where nothing was measured."""
        if None in self.slots:
            return "-"
        return "not equal" if any(unequal_budget(a, b) for a, b in self.cells) else "equal"


def find_pairs(context: Context) -> list[Pair]:
    """Every two cells that differ in exactly one axis, then the same pooled over benchmarks.

    Of cells of one setting the newest counts. The later cell in the order of the tables is ``a``. Where more than
    `MANY` methods were run, each is compared with those of `REFERENCES` only.
    """
    singles: list[Pair] = []
    pools: dict[str, list[Pair]] = defaultdict(list)
    many = len({cell.setting["method"] for cell in context.cells}) > MANY
    for b, a in candidates(newest(context.cells)):
        if many and len({a.setting["method"], b.setting["method"], *REFERENCES}) > len(REFERENCES) + 1:
            continue
        if (axis := axis_of(a, b)) is None or (difference := context.paired(a, b)) is None:
            continue
        singles.append(Pair(axis, ((a, b),), difference))
        kept = [{k: v for k, v in cell.setting.items() if k not in OF_TASK - {axis}} for cell in (a, b)]
        pools[json.dumps([axis, kept], sort_keys=True)].append(singles[-1])
    pooled = []
    for group in pools.values():
        parts = list({pair.cells[0][0].benchmark: pair for pair in reversed(group)}.values())[::-1]
        if len(parts) > 1:
            difference = mean_difference([pair.difference for pair in parts])
            pooled.append(Pair(parts[0].axis, tuple(pair.cells[0] for pair in parts), difference))
    return [*singles, *pooled]


def candidates(cells: Sequence[CellResult]) -> list[tuple[CellResult, CellResult]]:
    """Every two cells that `axis_of` may find alike but for one axis, in the order of `combinations`.

    Cells that agree on all but one key meet under the rest. Cells of two methods meet under what every method has, and
    under the context where both have one.
    """
    settings = [{k: v for k, v in cell.setting.items() if k != "questions"} for cell in cells]
    keys = sorted(set().union(*settings))
    everywhere = {key for key in keys if all(key in setting for setting in settings)}
    of_methods = everywhere - {"method", "positions", "context"} - OF_SEMANTICS
    meeting: dict[str, list[int]] = defaultdict(list)
    methods: dict[str, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, setting in enumerate(settings):
        for axis in keys:
            apart = {axis} | (OF_SEMANTICS if axis == "semantics" else set())
            meeting[json.dumps([axis, {k: v for k, v in setting.items() if k not in apart}], sort_keys=True)].append(i)
        methods[json.dumps({k: setting[k] for k in of_methods}, sort_keys=True)][setting["context"]].append(i)
    places = {places for group in meeting.values() for places in combinations(group, 2)}
    for of_context in methods.values():
        whole = of_context.pop("full", [])
        joined = (sorted([*group, *whole]) for group in [*of_context.values(), []])
        pairs = (places for group in joined for places in combinations(group, 2))
        places |= {(i, j) for i, j in pairs if settings[i]["method"] != settings[j]["method"]}
    return [(cells[i], cells[j]) for i, j in sorted(places)]


def axis_of(a: CellResult, b: CellResult) -> str | None:
    """The one setting in which two cells differ; None where they differ in none or several.

    Options that only one of two methods has, and what follows from the semantics, are no axes of their own.
    """
    one, other = a.setting, b.setting
    found = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)} - {"questions"}
    if found & APART:
        return None
    if "method" in found:
        found -= {"positions", *(one.keys() ^ other.keys())}
        found -= {"context"} if "full" in (one["context"], other["context"]) else set()
    if "semantics" in found:
        found -= OF_SEMANTICS
    return found.pop() if len(found) == 1 else None


def unequal_budget(a: CellResult, b: CellResult) -> str:
    """Text for measured KV cache entries of two cells that differ too much; empty otherwise, or where unknown."""
    if not a.slots or not b.slots or abs(a.slots - b.slots) <= EQUAL_BUDGET * min(a.slots, b.slots):
        return ""
    return f"not at equal budget: {a.slots:.0f} against {b.slots:.0f} cache slots"


@dataclass(frozen=True)
class Rung:
    """One point of a sweep: cells of one method where an axis has the value ``at``, on one benchmark or on several."""

    axis: str
    cells: tuple[CellResult, ...]
    estimate: Estimate

    @property
    def at(self) -> int:
        """Value of the axis."""
        return int(self.cells[0].setting[self.axis])

    @property
    def benchmark(self) -> str:
        """Name of the benchmark, or of how many the mean is taken."""
        return benchmark_title(self.cells)

    @property
    def slots(self) -> float | None:
        """Measured KV cache entries."""
        return mean_known([cell.slots for cell in self.cells])

    @property
    def title(self) -> str:
        """The method, and what else is the same along the sweep."""
        forms = {"model": "{}", "frames": "{} frames", "fps": "{:g} fps", "context": "context {}"}
        rest = [form.format(self.cells[0].setting[key]) for key, form in forms.items() if key != self.axis]
        return ", ".join([self.cells[0].method_title, *rest])


def ladder(context: Context, axis: str) -> list[Rung]:
    """Scores along ``context`` or ``frames``, per benchmark and as the mean of several, of methods with two values."""
    rungs: list[Rung] = []
    pools: dict[str, list[Rung]] = defaultdict(list)
    for cell in newest(context.cells):
        if not isinstance(cell.setting[axis], int) or (estimate := context.estimate(cell)) is None:
            continue
        rungs.append(Rung(axis, (cell,), estimate))
        kept = {key: value for key, value in cell.setting.items() if key not in OF_TASK}
        pools[json.dumps(kept, sort_keys=True)].append(rungs[-1])
    for group in pools.values():
        parts = list({rung.cells[0].benchmark: rung for rung in reversed(group)}.values())[::-1]
        if len(parts) > 1:
            mean = mean_estimate([rung.estimate for rung in parts])
            rungs.append(Rung(axis, tuple(rung.cells[0] for rung in parts), mean))
    values = defaultdict(set)
    for rung in rungs:
        values[rung.title, rung.benchmark].add(rung.at)
    return [rung for rung in rungs if len(values[rung.title, rung.benchmark]) > 1]


def benchmark_title(cells: Sequence[CellResult]) -> str:
    """Name of the benchmark of these cells, or of how many a mean is taken; with the subset."""
    if len(cells) == 1:
        return cells[0].task
    subset = cells[0].cell["task"].get("subset")
    return f"mean of {len(cells)}{f' ({subset})' if subset else ''}"
