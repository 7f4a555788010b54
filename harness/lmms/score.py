"""The verb ``score``: lmms-eval scores every complete cell by a replay of its answers, and our metrics must agree."""

from __future__ import annotations

import contextlib
import hashlib
import math
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from harness.advice import harness
from harness.benchmarks.files import TASKS
from harness.errors import UserError
from harness.evidence.cells import SCORE, CellResult
from harness.evidence.loading import cell_names, each_cell, wanted
from harness.evidence.statistics import main_metric
from harness.places import PACKAGE
from harness.records import seal
from harness.settings.groups import Config, TaskConfig
from harness.settings.matrix import build_cells, ids_under
from harness.store import write_atomic
from harness.store.answers import now

if TYPE_CHECKING:
    from harness.lmms.task import Scorer

SCHEMA = 2


def main(config: Config) -> int:
    """Score the configured matrix's cells, or all cells where those are unknown; write the ``score.json`` of each.

    lmms-eval is imported once for all cells, and not at all when every score is up to date. An incomplete cell is
    marked in its line and its record. The exit status is 1 when there is no cell. Raises as `compare_metrics`.
    """
    stored = cell_names(config.results, config.report.cells, ids_under(config.words))
    asked, _ = wanted(config.report.cells, partial(build_cells, config))
    names = [name for name in asked if name in stored] or stored
    if not names:
        print(f"{config.results}/runs holds no cell yet: {harness('run', config.words)}", file=sys.stderr)
        return 1
    with lmms_eval() as scorer:
        for cell in each_cell(config.results, names):
            record, fresh = score_cell(cell, scorer)
            part = f"; {cell.part}" if cell.part else ""
            print(f"{cell.id}: {_line(cell, record)}{part}{'' if fresh else ' (unchanged)'}", flush=True)
    return 0


@contextlib.contextmanager
def lmms_eval() -> Iterator[Callable[[], Scorer]]:
    """Yields a function that returns the scorer; lmms-eval is imported, slowly, when it is first called."""
    with contextlib.ExitStack() as stack:

        @cache
        def scorer() -> Scorer:
            from harness.lmms.task import Scorer

            return stack.enter_context(Scorer())

        yield scorer


def score_cell(cell: CellResult, scorer: Callable[[], Scorer]) -> tuple[dict[str, Any], bool]:
    """The content of the cell's ``score.json``, and whether it had to be made; `scorer` is from `lmms_eval`."""
    digest = inputs_digest(cell)
    if cell.score is not None and (cell.score.get("schema"), cell.score.get("inputs")) == (SCHEMA, digest):
        return cell.score, False
    own, main = cell.scores(), main_metric(cell.benchmark)
    others = {name: cell.main_score(main, name) for name in cell.other_parsers}
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
        "parser": cell.parser,
        "metrics": own,
        "other_parsers": {name: {main: score} for name, score in others.items() if score is not None},
        "time": now(),
    }
    if cell.complete:
        answers = {question.question_id: cell.answers[question.question_id] for question in cell.questions}
        texts = {name: answer.text if answer.ok else "" for name, answer in answers.items()}
        theirs = scorer().metrics(TaskConfig(**cell.cell["task"]), texts, cell.id)
        # For lmms-eval a failed answer is an empty text, which has no letter.
        compare_metrics(cell, own | {"unparsed": 100 * (cell.unparsed + cell.failed) / cell.n}, theirs)
        record |= {"scored_by": f"lmms-eval {scorer().version}", "metrics": theirs}
    write_atomic(cell.folder / SCORE, seal(record, indent=1))
    return record, True


def compare_metrics(cell: CellResult, own: dict[str, float], theirs: dict[str, float]) -> None:
    """Raises UserError, with both numbers, where the metrics differ in a name or in the last digit of a value."""
    pairs = {name: (own.get(name, math.nan), theirs.get(name, math.nan)) for name in sorted(set(own) | set(theirs))}
    wrong = [f"  {name}: ours {a!r}, lmms-eval {b!r}" for name, (a, b) in pairs.items() if a != b]
    if wrong:
        lines = "\n".join(wrong)
        raise UserError(
            f"cell {cell.id}: our metrics and lmms-eval's disagree\n{lines}\n"
            "The answers are unchanged; one of harness/benchmarks/metrics.py and harness/lmms/task.py is wrong. "
            "Check them with: python -m pytest tests/benchmarks tests/report/test_score.py"
        )


def inputs_digest(cell: CellResult) -> str:
    """Changes when an answer, a question, or the code that scores them does."""
    digest = hashlib.sha256()
    for question in cell.questions:
        answer = cell.answers.get(question.question_id)
        said = None if answer is None else (answer.status, answer.text)
        digest.update(repr((question.question_id, question.answer, sorted(question.options.items()), said)).encode())
    task = TASKS / str(cell.cell["task"].get("data", cell.benchmark))
    code = [*sorted((PACKAGE / "benchmarks").glob("*.py")), PACKAGE / "lmms" / "task.py"]
    for path in [*code, *sorted(task.glob("*.py")), *sorted(task.glob("*.yaml"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _line(cell: CellResult, record: dict[str, Any]) -> str:
    main = main_metric(cell.benchmark)
    value = record["metrics"].get(main)
    unscored = "nothing answered" if cell.missing == cell.n else "the right answers are not public"
    score = unscored if value is None else f"{main} {value:.2f} ({record['parser']})"
    others = [f"{name} {found[main]:.2f}" for name, found in record["other_parsers"].items() if found[main] != value]
    counts = [f"{record[name]} {name}" for name in ("failed", "unparsed", "missing") if record[name]]
    state = "" if record["complete"] else ", INCOMPLETE: not compared with anything published"
    return ", ".join([score, *others, f"n {record['n']}", *counts, record["scored_by"]]) + state
