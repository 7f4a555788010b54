"""Fixed subsets of a task: ``task.subset=ci`` (about 150 questions) and ``task.subset=mini`` (about 30).

The rule needs nothing but the annotation and gives the same questions on every machine: questions fall into strata by
the tags that the benchmark names; every stratum gets its share of the subset by largest remainders; inside a stratum
the questions whose ids have the smallest hashes are taken. The questions are drawn from those of the benchmark's first
protocol, so that a subset is the same for all of them.

Files ``tasks/<benchmark>/subsets/<name>_<split>_<subset>.txt`` pin the outcome for one annotation, which their first
line names by a digest of all its ids; they are used for that annotation only. Write them with::

    python scripts/write_subsets.py NAME task=lvbench data.root=DIR
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from harness.benchmarks.benchmark import Benchmark, Item, benchmark
from harness.benchmarks.files import TASKS, Folder
from harness.benchmarks.metrics import values
from harness.errors import UserError
from harness.settings.groups import TaskConfig

SIZES = {"ci": 150, "mini": 30}


def select(items: Sequence[Item], task: TaskConfig, asked: Benchmark) -> set[str]:
    """The ids of `task.subset`.

    Args:
        items: all questions of the benchmark's first protocol.
        task: its setting.
        asked: its benchmark.

    Raises:
        UserError: the subset is not known.
    """
    if task.subset not in SIZES:
        raise UserError(f"task.subset={task.subset} is not known; allowed: null, {', '.join(SIZES)}")
    pinned = pinned_ids(task, {item.question_id for item in items})
    return set(subset_ids(items, asked, SIZES[task.subset])) if pinned is None else pinned


def subset_ids(items: Sequence[Item], asked: Benchmark, size: int) -> list[str]:
    """The ids that the rule takes, sorted: about `size` of them, and at most half of all."""
    units: dict[str, list[str]] = defaultdict(list)  # what is taken together -> question ids
    strata: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for item in items:
        unit = str(item.tags[asked.together]) if asked.together else item.question_id
        units[unit].append(item.question_id)
        # A question with several values of a tag belongs to the stratum of the first.
        strata[tuple((values(item.tags.get(tag)) or ["None"])[0] for tag in asked.strata)].add(unit)
    per_unit = max(len(names) for names in units.values())
    shares = largest_remainders(
        {key: len(found) for key, found in strata.items()}, max(1, min(size, len(items) // 2) // per_unit)
    )
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


def _rank(name: str) -> str:
    return hashlib.sha256(f"subset 0 {name}".encode(errors="replace")).hexdigest()


def pinned_ids(task: TaskConfig, known: set[str]) -> set[str] | None:
    """The ids in the file of this subset for the annotation whose ids are `known`; None without one."""
    for path in sorted((TASKS / task.data / "subsets").glob(f"*_{task.split}_{task.subset}.txt")):
        head, *ids = path.read_text(encoding="utf-8").splitlines()
        if head == heading(known):
            return set(ids)
    return None


def heading(known: set[str]) -> str:
    """First line of a subset's file."""
    digest = hashlib.sha256("\n".join(sorted(known)).encode(errors="replace")).hexdigest()[:16]
    return f"# of the annotation with {len(known)} questions, digest of their ids {digest}"


def write(name: str, task: TaskConfig, root: Path) -> list[Path]:
    """Write the files of both subsets for the annotation below `root`, under `name`."""
    asked = benchmark(task.data)
    rows = asked.load(Folder(root, task.data, task.name), task.split)
    items = [asked.item(row) for row in rows if asked.evaluated(row, next(iter(asked.protocols)))]
    paths = []
    for subset, size in SIZES.items():
        path = TASKS / task.data / "subsets" / f"{name}_{task.split}_{subset}.txt"
        path.parent.mkdir(exist_ok=True)
        lines = [heading({item.question_id for item in items}), *subset_ids(items, asked, size)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths.append(path)
    return paths
