"""The verb ``submit``: the leaderboard's file of a benchmark from stored answers, in its official form, validated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.advice import harness
from harness.benchmarks.benchmark import Benchmark, Row, benchmark, benchmark_names
from harness.benchmarks.counts import differences
from harness.benchmarks.questions import Answered, Question, load_asked
from harness.benchmarks.scoring import score_choice
from harness.errors import UserError
from harness.evidence.loading import cell_names
from harness.settings.matrix import ids_under
from harness.store import read_answers, read_manifest

if TYPE_CHECKING:
    from harness.settings.groups import Config, TaskConfig


def main(config: Config) -> int:
    """Write the leaderboard files of ``task`` into ``<results>/submissions/<cell>/``.

    Returns:
        0, or 1 where the files are written but are not those of the published benchmark in full.

    Raises:
        UserError: the benchmark has no board, no cell or several are stored, or answers are missing.
    """
    task = config.task
    asked = benchmark(task.data)
    if asked.board is None or asked.board.split != task.split:
        boards = {name: benchmark(name).board for name in benchmark_names()}
        known = ", ".join(f"{name} ({board.split})" for name, board in boards.items() if board)
        raise UserError(f"task={task.name} (split {task.split}) has no leaderboard file; those that have: {known}")
    if task.replicate:
        raise UserError(f"task.replicate={task.replicate}: a leaderboard wants the published order; task.replicate=0")
    words = [word for word in config.words if not word.startswith(("task=", "report."))]
    names = cell_names(config.results, config.report.cells, ids_under(config.words))
    cell = find_cell(Path(config.results), task, names, words)
    answered = given_answers(cell, load_asked(task, Path(config.data.root)), task, asked, words)
    scored = [score_choice(each.text, each.question, asked.parser(task.protocol)) for each in answered]
    scores = asked.metrics.scores([item for item in scored if item["answer"] is not None])
    folder = Path(config.results) / "submissions" / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in asked.functions.submission(answered, scores).items():
        (folder / name).write_text(_as_text(name, content), encoding="utf-8")
        print(f"{folder / name}: {len(answered)} answers")
    print(f"{sum(not each.letter for each in answered)} answers have no letter and count as wrong")
    differing = differences([asked.item(each.row) for each in answered], asked, task.split)
    for what, message in differing.items():
        print(f"not the published benchmark in full: {what}: {message}")
    print(f"send it {asked.board.where}")
    return 1 if differing else 0


def _as_text(name: str, content: Any) -> str:
    if name.endswith(".json"):
        return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in content)


def find_cell(results: Path, task: TaskConfig, names: Sequence[str], overrides: Sequence[str]) -> Path:
    """The folder of the one stored cell of `task`.

    Args:
        names: ids of stored cells.
        overrides: of the command line, for the advice in a message.

    Raises:
        UserError: there is none, or more than one.
    """
    folders = [results / "runs" / name for name in names]
    asked = {folder: read_manifest(folder).cell["task"] for folder in folders}
    cells = [folder for folder, of in asked.items() if of["name"] == task.name and not of.get("replicate")]
    if not cells:
        raise UserError(
            f"{results / 'runs'} has no cell of task={task.name}; answer it first: "
            + harness("run", overrides, f"matrix.task=[{task.name}]")
        )
    if len(cells) > 1:
        listed = "\n  ".join(folder.name for folder in cells)
        raise UserError(f"task={task.name} has {len(cells)} cells; choose one with report.cells=[...]:\n  {listed}")
    return cells[0]


def given_answers(
    cell: Path,
    questions: Sequence[tuple[Row, Question]],
    task: TaskConfig,
    asked: Benchmark,
    overrides: Sequence[str],
) -> list[Answered]:
    """The stored answers of all `questions`; a stored failure is an empty answer.

    Raises:
        UserError: a question has no answer.
    """
    stored, parse = read_answers(cell), asked.parser(task.protocol)
    missing = [question.question_id for _, question in questions if question.question_id not in stored]
    if missing:
        raise UserError(
            f"{cell.name}: {len(missing)} of {len(questions)} questions have no answer, the first is {missing[0]}; "
            f"go on with: {harness('run', overrides, f'matrix.task=[{task.name}]')}"
        )
    given = []
    for row, question in questions:
        text = stored[question.question_id].text
        given.append(Answered(row, question, text, parse(text, question.options) or ""))
    return given
