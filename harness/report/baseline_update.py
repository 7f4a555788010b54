"""Writing a baseline from the answers that are there, with where they come from."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.report.baseline import DIGESTS, Baseline, baseline_text, read_baseline, store_cell
from harness.report.cells import CellResult
from harness.store import write_atomic
from harness.store.answers import now


def update(path: Path, cells: Sequence[CellResult], absent: Mapping[str, str], exact: bool | None) -> int:
    """Write ``path`` from complete cells.

    Args:
        path: of the baseline; an old one there measures the flip rate when code, weights and prompts are the same.
        cells: the cells of the matrix.
        absent: ids of cells of the matrix that are not there, and why.
        exact: whether later runs must agree to the letter; None: yes when every cell ran on a CPU.

    Returns:
        0 when written, 2 when a cell is incomplete or has failed answers: such a baseline would hide what it misses.
    """
    problems = [f"{name}: {reason}" for name, reason in absent.items()]
    problems += [
        f"{cell.id}: {cell.missing} missing, {cell.failed} failed" for cell in cells if cell.missing or cell.failed
    ]
    if problems or not cells:
        print("no baseline written:", file=sys.stderr)
        print(
            "\n".join(f"  {line}" for line in problems or ["there is no cell: python -m harness run"]), file=sys.stderr
        )
        return 2
    if exact is None:
        exact = all(cell.manifest.device == "cpu" for cell in cells)
    rate, measured = _flip_rate(path, cells)
    baseline = Baseline(path.stem, exact, provenance(cells), [store_cell(cell) for cell in cells], rate, measured)
    write_atomic(path, baseline_text(baseline))
    flips = "" if rate is None else f", {measured['flips']} flips in {measured['n']} answers since the old one"
    print(f"{path}: {len(cells)} cells, {sum(cell.n for cell in cells)} answers{flips}")
    return 0


def provenance(cells: Sequence[CellResult]) -> dict[str, Any]:
    """Where the answers come from: versions, code, device, time. Where cells differ, the last one's."""
    last = max(cells, key=lambda cell: cell.manifest.created).manifest
    last_start = last.starts[-1] if last.starts else vars(last)
    commits = sorted({str(cell.manifest.git.get("commit")) for cell in cells})
    return {
        "written": now(),
        "answered": last.created,
        "commits": commits,
        "dirty": any(bool(cell.manifest.git.get("dirty")) for cell in cells),
        "versions": last_start["versions"],
        "device": last_start["device"],
        "attention_backend": last_start["attention_backend"],
    }


def _flip_rate(path: Path, cells: Sequence[CellResult]) -> tuple[float | None, dict[str, Any]]:
    """Flips between the old baseline and these cells where nothing but the run changed; (None, {}) when unknown."""
    if not path.is_file():
        return None, {}
    old = read_baseline(path)
    flips = n = 0
    for cell in cells:
        stored = old.find(cell)
        if stored is None or any(getattr(stored, name) != cell.cell.get(name, "") for name in DIGESTS):
            continue
        if cell.manifest.created == old.provenance.get("answered"):
            continue  # the very same run
        found = stored.compare(cell)
        flips, n = flips + found.flips, n + found.n
    if not n:
        return old.flip_rate, old.flips_measured
    return flips / n, {
        "flips": flips,
        "n": n,
        "between": [old.provenance.get("answered"), provenance(cells)["answered"]],
    }
