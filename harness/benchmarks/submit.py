"""The verb ``submit``: the leaderboard's file of a benchmark from stored answers, in its official form, validated."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.benchmarks.facts import load_facts
from harness.benchmarks.metrics import metrics
from harness.benchmarks.parse import PARSERS, parser_name
from harness.benchmarks.questions import functions, load_rows
from harness.benchmarks.scoring import score_choice
from harness.errors import UserError
from harness.fetch.verify import check_counts

if TYPE_CHECKING:
    from harness.config import Config, TaskConfig

Row = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """One answer: the raw text, and the letter in it ("" where there is none: wrong on every board)."""

    text: str
    letter: str


@dataclass(frozen=True)
class Board:
    """A leaderboard: file names to what makes their content, and where it goes."""

    files: dict[str, Callable[[list[Row], Mapping[str, Given], ModuleType], Any]]
    where: str


def videomme(rows: list[Row], given: Mapping[str, Given], module: ModuleType) -> list[dict[str, Any]]:
    """One entry per video with its questions, in the annotation's order."""
    videos: dict[str, dict[str, Any]] = {}
    for row in rows:
        entry = {key: row[key] for key in ("video_id", "duration", "domain", "sub_category")}
        questions = videos.setdefault(row["video_id"], {**entry, "questions": []})["questions"]
        asked = {key: row[key] for key in ("question_id", "task_type", "question", "options", "answer")}
        questions.append({**asked, "response": given[row["question_id"]].letter})
    return list(videos.values())


def mlvu_test(rows: list[Row], given: Mapping[str, Given], module: ModuleType) -> list[dict[str, str]]:
    """One entry per question; ``question_type`` is the annotation's own, not a display name."""
    return [
        {
            "question_id": row["question_id"],
            "question_type": row["question_type"],
            "option": given[row["question_id"]].letter,
        }
        for row in rows
    ]


def longvideobench_test(rows: list[Row], given: Mapping[str, Given], module: ModuleType) -> dict[str, str]:
    """The board parses raw texts itself."""
    return {row["id"]: given[row["id"]].text for row in rows}


def lvbench_answers(rows: list[Row], given: Mapping[str, Given], module: ModuleType) -> dict[str, str]:
    """Every uid is there: the official script leaves absent ones out of the denominator."""
    return {str(row["uid"]): given[str(row["uid"])].letter for row in rows}


LVBENCH_KEYS = {
    "KIR": "type_key_information_retrieval",
    "EU": "type_event_understanding",
    "Sum": "type_summarization",
    "ER": "type_entity_recognition",
    "Rea": "type_reasoning",
    "TG": "type_temporal_grounding",
    "Overall": "overall",
}


def lvbench_result(rows: list[Row], given: Mapping[str, Given], module: ModuleType) -> dict[str, float]:
    """Scores as fractions."""
    items = [
        score_choice(
            given[module.question_id(row)].letter,
            question_id=module.question_id(row),
            video_id=module.video_id(row),
            options=module.options(row),
            answer=module.doc_to_target(row),
            tags=module.tags(row),
        )
        for row in rows
    ]
    scores = metrics("lvbench", items)
    return {key: scores[name] / 100 for key, name in LVBENCH_KEYS.items() if name in scores}


def vnbench(rows: list[Row], given: Mapping[str, Given], module: ModuleType) -> list[dict[str, Any]]:
    """One line per try, as the official ``eval.py`` reads them."""
    return [
        {
            "question_id": module.question_id(row),
            "pred": given[module.question_id(row)].letter,
            "gt": module.doc_to_target(row),
            "type": row["type"],
            "try": row["try"],
            "prompt": module.doc_to_text(row),
        }
        for row in rows
    ]


BOARDS = {
    ("videomme", "test"): Board({"videomme_submission.json": videomme}, "by mail to bradyfu24@gmail.com"),
    ("mlvu", "test"): Board({"mlvu_test_submission.json": mlvu_test}, "to the online evaluator of MLVU test"),
    ("longvideobench", "test"): Board(
        {"longvideobench_test_for_submission.json": longvideobench_test}, "to the board on the hub, LongVideoBench"
    ),
    ("lvbench", "test"): Board(
        {"lvbench_answers.json": lvbench_answers, "result.json": lvbench_result}, "result.json to the board on the hub"
    ),
    ("vnbench", "test"): Board({"vnbench_answers.jsonl": vnbench}, "to the official eval.py"),
}


def main(config: Config) -> int:
    """Write the leaderboard files of ``task`` into ``<results>/submissions/<cell>/``.

    Returns:
        0, or 1 where the files are written but are not those of the published benchmark in full.

    Raises:
        UserError: the benchmark has no board, no cell or several are stored, or answers are missing.
    """
    task = config.task
    board = BOARDS.get((task.data, task.split))
    if board is None:
        known = ", ".join(f"{data} ({split})" for data, split in BOARDS)
        raise UserError(f"task={task.name} (split {task.split}) has no leaderboard file; those that have: {known}")
    cell = find_cell(Path(config.results), task, config.report.cells)
    module, rows = functions(task.data), load_rows(task, Path(config.data.root))
    given = given_answers(cell, rows, task, module)
    folder = Path(config.results) / "submissions" / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in board.files.items():
        content = make(rows, given, module)
        lines = [content] if name.endswith(".json") else content
        text = "\n".join(
            json.dumps(line, ensure_ascii=False, indent=1 if name.endswith(".json") else None) for line in lines
        )
        (folder / name).write_text(text + "\n", encoding="utf-8")
        print(f"{folder / name}: {len(rows)} answers")
    unparsed = sum(not answer.letter for answer in given.values())
    print(f"{unparsed} answers have no letter and count as wrong")
    differences = check_counts(rows, load_facts(task.data).counts[task.split], module)
    for difference in differences:
        print(f"not the published benchmark in full: {difference['what']}: {difference['message']}")
    print(f"send it {board.where}")
    return 1 if differences else 0


def find_cell(results: Path, task: TaskConfig, patterns: list[str]) -> Path:
    """The folder of the one stored cell of `task`, among those that match `patterns` where there are any.

    Raises:
        UserError: there is none, or more than one.
    """
    from harness.store import read_manifest

    folders = [path.parent for path in sorted((results / "runs").glob("*/manifest.json"))]
    if patterns:
        folders = [folder for folder in folders if any(fnmatch(folder.name, pattern) for pattern in patterns)]
    cells = [folder for folder in folders if read_manifest(folder).cell["task"]["name"] == task.name]
    if not cells:
        raise UserError(
            f"{results / 'runs'} has no cell of task={task.name}; answer it first: "
            f"python -m harness run matrix.task=[{task.name}]"
        )
    if len(cells) > 1:
        listed = "\n  ".join(folder.name for folder in cells)
        raise UserError(f"task={task.name} has {len(cells)} cells; choose one with report.cells=[...]:\n  {listed}")
    return cells[0]


def given_answers(cell: Path, rows: list[Row], task: TaskConfig, module: ModuleType) -> dict[str, Given]:
    """The stored answers of all `rows`; a stored failure is an empty answer.

    Raises:
        UserError: a question has no answer.
    """
    from harness.store import read_answers

    stored = read_answers(cell)
    parse = PARSERS[parser_name(task.data, task.protocol)]
    missing = [module.question_id(row) for row in rows if module.question_id(row) not in stored]
    if missing:
        raise UserError(
            f"{cell.name}: {len(missing)} of {len(rows)} questions have no answer, the first is {missing[0]}; "
            f"go on with: python -m harness run matrix.task=[{task.name}]"
        )
    given = {}
    for row in rows:
        answer = stored[module.question_id(row)]
        given[answer.question_id] = Given(answer.text, parse(answer.text, module.options(row)) or "")
    return given
