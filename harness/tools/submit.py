"""The verb ``submit``: the leaderboard file of a benchmark from stored answers, validated."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.advice import harness
from harness.benchmarks.benchmark import Row, benchmark, benchmark_names, differences
from harness.benchmarks.questions import Answered, Question, load_asked, score_choice
from harness.errors import UserError
from harness.evidence.loading import cell_names
from harness.settings.matrix import build_cells, ids_under
from harness.settings.words import AXES
from harness.store import read_answers, read_manifest

if TYPE_CHECKING:
    from harness.settings.groups import Config, TaskConfig


def main(config: Config) -> int:
    """Write the leaderboard files of ``task`` into ``<results>/submissions/<cell>/``.

    Returns:
        0, or 1 where the files do not hold the published benchmark in full.

    Raises:
        UserError: the benchmark has no leaderboard file, no cell or several are stored, or answers are missing.
    """
    task = config.task
    spec = benchmark(task.data)
    if spec.board is None or spec.board.split != task.split:
        boards = {name: benchmark(name).board for name in benchmark_names()}
        known = ", ".join(f"{name} ({board.split})" for name, board in boards.items() if board)
        raise UserError(f"task={task.name} (split {task.split}) has no leaderboard file; those that have: {known}")
    if task.replicate:
        raise UserError(f"task.replicate={task.replicate}: a leaderboard wants the published order; task.replicate=0")
    words = [word for word in config.words if not word.startswith(("task=", "report."))]
    names = cell_names(config.results, config.report.cells, ids_under(config.words))
    if {re.split("[.=]", word.removeprefix("matrix."))[0] for word in words} & {*AXES, "video"}:
        asked = {cell.id for cell in build_cells(config, [])}
        names = [name for name in names if name in asked]
    cell = find_cell(Path(config.results), task, names, words)
    answers = stored_answers(cell, load_asked(task, Path(config.data.root)), task, words)
    scored = [score_choice(each.text, each.question, spec.parser(task.protocol)) for each in answers]
    scores = spec.metrics.scores([item for item in scored if item["answer"] is not None])
    folder = Path(config.results) / "submissions" / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in spec.functions.submission(answers, scores).items():
        (folder / name).write_text(_as_text(name, content), encoding="utf-8")
        print(f"{folder / name}: {len(answers)} answers")
    print(f"{sum(not answer.letter for answer in answers)} answers have no letter and count as wrong")
    incomplete = differences([spec.item(answer.row) for answer in answers], spec, task.split)
    for what, message in incomplete.items():
        print(f"not the published benchmark in full: {what}: {message}")
    print(f"send it {spec.board.where}")
    return 1 if incomplete else 0


def _as_text(name: str, content: Any) -> str:
    if name.endswith(".json"):
        return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in content)


def find_cell(results: Path, task: TaskConfig, names: Sequence[str], words: Sequence[str]) -> Path:
    """The folder of the one stored cell of `task`.

    Args:
        names: ids of stored cells.
        words: settings of the command line, for the command in a message.

    Raises:
        UserError: there is none, or more than one.
    """
    folders = [results / "runs" / name for name in names]
    tasks = {folder: read_manifest(folder).cell["task"] for folder in folders}
    cells = [folder for folder, record in tasks.items() if record["name"] == task.name and not record.get("replicate")]
    if not cells:
        raise UserError(
            f"{results / 'runs'} has no cell of task={task.name}; answer it first: "
            + harness("run", words, f"matrix.task=[{task.name}]")
        )
    if len(cells) > 1:
        listed = "\n  ".join(folder.name for folder in cells)
        raise UserError(f"task={task.name} has {len(cells)} cells; choose one with report.cells=[...]:\n  {listed}")
    return cells[0]


def stored_answers(
    cell: Path, questions: Sequence[tuple[Row, Question]], task: TaskConfig, words: Sequence[str]
) -> list[Answered]:
    """The stored answers of all `questions`; a stored failure is an empty answer.

    Raises:
        UserError: a question has no answer.
    """
    stored, parse = read_answers(cell), benchmark(task.data).parser(task.protocol)
    missing = [question.question_id for _, question in questions if question.question_id not in stored]
    if missing:
        raise UserError(
            f"{cell.name}: {len(missing)} of {len(questions)} questions have no answer, the first is {missing[0]}; "
            f"continue with: {harness('run', words, f'matrix.task=[{task.name}]')}"
        )
    answers = []
    for row, question in questions:
        text = stored[question.question_id].text
        answers.append(Answered(row, question, text, parse(text, question.options) or ""))
    return answers
