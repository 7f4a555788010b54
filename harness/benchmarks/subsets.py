"""Fixed subsets of a task: ``task.subset=ci`` (about 150 questions) and ``task.subset=mini`` (about 30).

The rule needs nothing but the annotation and gives the same questions on every machine: questions fall into strata by
the tags in `STRATA`; every stratum gets its share of the subset by largest remainders; inside a stratum the questions
whose ids have the smallest hashes are taken. The questions are drawn from those of the benchmark's first protocol, so
that a subset is the same for all of them.

Files ``tasks/<benchmark>/subsets/<name>_<split>_<subset>.txt`` pin the outcome for one annotation, which their first
line names by a digest of all its ids; they are used for that annotation only. Write them with::

    python -m harness.benchmarks.subsets NAME task=lvbench data.root=DIR
"""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.benchmarks.root import TASKS
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
    if task.subset not in SIZES:
        raise UserError(f"task.subset={task.subset} is not known; allowed: null, {', '.join(SIZES)}")
    base = [row for row in rows if module.evaluated(row, module.PROTOCOLS[0])]
    chosen = pinned_ids(task, {module.question_id(row) for row in base})
    if chosen is None:
        chosen = set(subset_ids(base, task.data, SIZES[task.subset], module))
    return [row for row in rows if module.question_id(row) in chosen]


def subset_ids(rows: list[dict[str, Any]], benchmark: str, size: int, module: ModuleType) -> list[str]:
    """The ids that the rule takes, about `size` of them, sorted."""
    units: dict[str, list[str]] = defaultdict(list)  # what is taken together -> question ids
    strata: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in rows:
        name, tags = module.question_id(row), module.tags(row)
        unit = tags[WHOLE[benchmark]] if benchmark in WHOLE else name
        units[unit].append(name)
        # A question with several values of a tag belongs to the stratum of the first.
        strata[tuple(_first(tags.get(tag)) for tag in STRATA[benchmark])].add(unit)
    per_unit = max(len(names) for names in units.values())
    shares = largest_remainders({key: len(found) for key, found in strata.items()}, max(1, size // per_unit))
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


def pinned_ids(task: TaskConfig, known: set[str]) -> set[str] | None:
    """The ids in the file of this subset for the annotation whose ids are `known`; None without one."""
    for path in sorted((TASKS / task.data / "subsets").glob(f"*_{task.split}_{task.subset}.txt")):
        head, *ids = path.read_text(encoding="utf-8").splitlines()
        if head == heading(known):
            return set(ids)
    return None


def heading(known: set[str]) -> str:
    """First line of a subset's file."""
    digest = hashlib.sha256("\n".join(sorted(known)).encode()).hexdigest()[:16]
    return f"# of the annotation with {len(known)} questions, digest of their ids {digest}"


def write(name: str, task: TaskConfig, root: Path) -> list[Path]:
    """Write the files of both subsets for the annotation below `root`, under `name`."""
    from harness.benchmarks.questions import functions

    module = functions(task.data)
    rows = [row for row in module.load(root, task.split) if module.evaluated(row, module.PROTOCOLS[0])]
    paths = []
    for subset, size in SIZES.items():
        ids = subset_ids(rows, task.data, size, module)
        path = TASKS / task.data / "subsets" / f"{name}_{task.split}_{subset}.txt"
        path.parent.mkdir(exist_ok=True)
        lines = [heading({module.question_id(row) for row in rows}), *ids]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


if __name__ == "__main__":
    from harness.config import compose_config

    config = compose_config(sys.argv[2:])
    print(*write(sys.argv[1], config.task, Path(config.data.root)), sep="\n")
