"""Fixed subsets of a task: ``task.subset=ci`` (about 150 questions) and ``task.subset=mini`` (about 30).

The rule needs nothing but the annotation, and gives the same questions on every machine: questions fall into strata by
the tags of `STRATA`; every stratum gets its share of the subset by largest remainders; inside a stratum the questions
with the smallest hash of their id are taken. The id of a question decides alone whether it comes early in its stratum,
so that ``mini`` changes little when the annotation does. Files under ``tasks/<benchmark>/subsets/`` pin the outcome
for one annotation; they are used, and checked, where the annotation has all their ids.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.data.root import TASKS
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.config import TaskConfig

SIZES = {"ci": 150, "mini": 30}
STRATA = {
    "videomme": ("duration", "task_type"),
    "mlvu": ("question_type",),
    "longvideobench": ("duration_group", "question_category"),
    "lvbench": ("video_type", "question_type"),
    "vnbench": ("type",),
}
WHOLE = {"vnbench": "sample"}
"""Benchmarks whose questions are taken in groups: the four tries of a VNBench sample make one verdict."""


def select(rows: list[dict[str, Any]], task: TaskConfig, module: ModuleType) -> list[dict[str, Any]]:
    """The rows of `task.subset`, in the order of `rows`.

    Args:
        rows: all rows that the task asks.
        task: its setting; ``data`` decides the strata.
        module: the benchmark's ``functions``.

    Raises:
        UserError: the subset is not known.
    """
    ids = [module.question_id(row) for row in rows]
    pinned = pinned_ids(task)
    chosen = set(pinned) if pinned and set(pinned) <= set(ids) else set(subset_ids(rows, task, module))
    return [row for row, name in zip(rows, ids, strict=True) if name in chosen]


def subset_ids(rows: list[dict[str, Any]], task: TaskConfig, module: ModuleType) -> list[str]:
    """The ids that the rule takes, sorted."""
    if task.subset not in SIZES:
        raise UserError(f"task.subset={task.subset} is not known; allowed: null, {', '.join(SIZES)}")
    units: dict[str, list[str]] = defaultdict(list)  # what is taken together -> question ids
    strata: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in rows:
        name, tags = module.question_id(row), module.tags(row)
        unit = tags[WHOLE[task.data]] if task.data in WHOLE else name
        units[unit].append(name)
        # A question with several tags belongs to the stratum of its first one.
        strata[tuple(_first(tags.get(tag)) for tag in STRATA[task.data])].add(unit)
    per_unit = max(len(names) for names in units.values())
    shares = largest_remainders({key: len(s) for key, s in strata.items()}, max(1, SIZES[task.subset] // per_unit))
    taken = [unit for key, n in shares.items() for unit in sorted(strata[key], key=_rank)[:n]]
    return sorted(name for unit in taken for name in units[unit])


def largest_remainders(sizes: dict[tuple[str, ...], int], total: int) -> dict[tuple[str, ...], int]:
    """Shares of `total` in proportion to `sizes`, as integers that add up to it and exceed no size."""
    whole = sum(sizes.values())
    total = min(total, whole)
    shares = {key: total * n // whole for key, n in sizes.items()}
    rest = sorted(sizes, key=lambda key: (-(total * sizes[key] % whole), _rank("/".join(key))))
    for key in rest[: total - sum(shares.values())]:
        shares[key] += 1
    return shares


def _first(value: str | list[str] | None) -> str:
    return str(value[0] if isinstance(value, list) and value else value)


def _rank(name: str) -> str:
    return hashlib.sha256(f"subset 0 {name}".encode()).hexdigest()


def subset_file(task: TaskConfig) -> Path:
    return TASKS / task.data / "subsets" / f"{task.split}_{task.subset}.txt"


def pinned_ids(task: TaskConfig) -> list[str]:
    """The ids in the subset's file; none without a file."""
    path = subset_file(task)
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
