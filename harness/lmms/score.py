"""The verb ``score``: lmms-eval scores every complete cell by a replay of its answers, and our metrics must agree."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

from harness.benchmarks.metrics import metrics
from harness.errors import UserError
from harness.report.cells import CellResult, load_cells
from harness.report.current import current_ids
from harness.report.measures import main_metric
from harness.store import write_atomic
from harness.store.answers import now

SCHEMA = 1
REPO = Path(__file__).resolve().parents[2]
FILE = "score.json"


def main(config: Any) -> int:
    """Score the configured matrix's cells, or all cells where those are unknown; write ``score.json`` beside each.

    lmms-eval is imported once for all cells, and not at all when every score is up to date.

    Returns:
        0, or 1 when there is no cell. An incomplete cell is marked in its line and its record.

    Raises:
        UserError: lmms-eval and our own metrics disagree; the message holds both numbers.
    """
    cells = load_cells(config.results, config.report.cells)
    wanted = [] if config.report.cells else current_ids(config)
    chosen = [cell for cell in cells if cell.id in set(wanted)] or cells
    if not chosen:
        print(f"{config.results}/runs holds no cell yet: python -m harness run", file=sys.stderr)
        return 1
    for cell in chosen:
        record, fresh = score_cell(cell)
        print(f"{cell.id}: {_line(cell, record)}{'' if fresh else ' (unchanged)'}", flush=True)
    return 0


def score_cell(cell: CellResult) -> tuple[dict[str, Any], bool]:
    """The content of the cell's ``score.json``, and whether it had to be made.

    Raises:
        UserError: lmms-eval disagrees with our metrics.
    """
    digest = inputs_digest(cell)
    if cell.score is not None and cell.score.get("inputs") == digest:
        return cell.score, False
    own = metrics(cell.benchmark, cell.items())
    record = {
        "schema": SCHEMA,
        "cell_id": cell.id,
        "inputs": digest,
        "n": cell.n,
        "failed": cell.failed,
        "unparsed": cell.unparsed,
        "missing": cell.missing,
        "complete": cell.complete,
        "scored_by": "harness",
        "metrics": own,
        "time": now(),
    }
    if cell.complete:
        from harness.lmms.replay import LMMS_EVAL_VERSION, lmms_eval_metrics  # a slow import

        theirs = lmms_eval_metrics(cell)
        compare(cell, own | {"unparsed": unparsed_percent(cell)}, theirs)
        record |= {"scored_by": f"lmms-eval {LMMS_EVAL_VERSION}", "metrics": theirs}
    write_atomic(cell.folder / FILE, json.dumps(record, indent=1) + "\n")
    return record, True


def compare(cell: CellResult, own: dict[str, float], theirs: dict[str, float]) -> None:
    """Both sets of metrics have the same names and, to the last digit, the same values.

    Raises:
        UserError: naming the cell and, for every metric in question, both numbers.
    """
    wrong = []
    for name in sorted(set(own) | set(theirs)):
        ours, other = own.get(name, math.nan), theirs.get(name, math.nan)
        if ours != other:
            wrong.append(f"  {name}: ours {ours!r}, lmms-eval {other!r}")
    if wrong:
        lines = "\n".join(wrong)
        raise UserError(
            f"cell {cell.id}: our metrics and lmms-eval's disagree\n{lines}\n"
            "The answers are unchanged; one of harness/benchmarks/metrics.py and the task's yaml is wrong. "
            "Check them with: python -m pytest tests/benchmarks tests/lmms/test_score.py"
        )


def unparsed_percent(cell: CellResult) -> float:
    """Share of answers without a letter in percent, failed ones included: lmms-eval sees those as empty texts."""
    return 100 * (cell.unparsed + cell.failed) / cell.n


def inputs_digest(cell: CellResult) -> str:
    """Changes when an answer, a question, or the code that scores them does."""
    digest = hashlib.sha256()
    for question in cell.questions:
        answer = cell.answers.get(question.question_id)
        said = None if answer is None else (answer.status, answer.text)
        digest.update(repr((question.question_id, question.answer, sorted(question.options.items()), said)).encode())
    task = cell.cell["task"].get("data", cell.benchmark)
    rooms = {"benchmarks": ("metrics.py", "parse.py", "scoring.py"), "lmms": ("task.py",)}
    code = [REPO / "harness" / room / name for room, names in rooms.items() for name in names]
    for path in [*code, *sorted((REPO / "tasks" / task).glob("*.py")), *sorted((REPO / "tasks" / task).glob("*.yaml"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _line(cell: CellResult, record: dict[str, Any]) -> str:
    main = main_metric(cell.benchmark)
    value = record["metrics"].get(main)
    unscored = "nothing answered" if cell.missing == cell.n else "the right answers are not public"
    score = unscored if value is None else f"{main} {value:.2f}"
    counts = [f"{record[name]} {name}" for name in ("failed", "unparsed", "missing") if record[name]]
    state = "" if record["complete"] else ", INCOMPLETE: not compared with anything published"
    return f"{score}, n {record['n']}{', ' if counts else ''}{', '.join(counts)}, {record['scored_by']}{state}"
