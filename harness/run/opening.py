"""Opening the folders of cells: nobody else writes them, and what they hold belongs to what is about to be asked."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.run.environment import git_state, versions
from harness.run.work import OpenCell
from harness.store import (
    Manifest,
    QuestionRecord,
    hold,
    open_cell,
    read_answers,
    read_questions,
    write_questions,
)
from harness.video.digest import Digests

if TYPE_CHECKING:
    from harness.benchmarks.questions import Question
    from harness.config import Config
    from harness.plan.cell import Cell

NAMED = 5
"""So many changed videos at most are named, with the command that drops their answers."""


def open_folder(
    cell: Cell,
    folder: Path,
    questions: Sequence[Question],
    config: Config,
    locks: contextlib.ExitStack,
    *,
    keep_others: bool = False,
) -> OpenCell:
    """Take a cell's folder for this process, write its manifest and questions.

    Args:
        cell: what is answered in it.
        folder: of its records; made where it is absent.
        questions: what is asked.
        config: for the manifest.
        locks: holds the folder until it is closed.
        keep_others: recorded questions that are not asked this time stay recorded.

    Raises:
        UserError: the folder is in use, holds something foreign, or a question has changed since it was answered.
    """
    locks.enter_context(hold(folder / ".lock"))
    open_cell(folder, make_manifest(cell, config))
    answers = read_answers(folder)
    recorded = (folder / "questions.jsonl").is_file()
    held = {r.question_id: r for r in read_questions(folder)} if recorded and (answers or keep_others) else {}
    records = {
        q.question_id: QuestionRecord(
            q.question_id, q.video_id, dict(q.options), q.answer, dict(q.tags), prompt_digest(q)
        )
        for q in questions
    }
    for name, record in records.items():
        if name in answers and name in held and held[name].prompt_digest != record.prompt_digest:
            raise UserError(
                f"question {name} of {folder.name} reads differently from when it was answered: "
                f"its annotations or prompt have changed. Put the data back, or move the old answers away "
                f"(mv {folder} {folder}.old) and answer anew."
            )
    others = [record for name, record in held.items() if name not in records] if keep_others else []
    write_questions(folder, [*others, *records.values()])
    return OpenCell(cell, folder, questions, answers)


def make_manifest(cell: Cell, config: Config) -> Manifest:
    """The manifest of a cell that starts now."""
    return Manifest(
        cell_id=cell.id,
        digest=cell.digest,
        cell=cell.record(),
        versions=versions(),
        git=git_state(),
        runtime={"overrides": list(config.overrides), "run": vars(config.run), "engine": vars(config.engine)},
    )


def prompt_digest(question: Question) -> str:
    """Digest of what is asked: prompt and options. A changed annotation file shows here."""
    text = repr((question.prompt, sorted(question.options.items())))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def check_videos(results: Path, cells: Sequence[OpenCell]) -> None:
    """Every answer was given to the file that its question names now; an absent file changes nothing.

    Args:
        results: its `video_digests.json` remembers digests, so that only new and changed files are read.
        cells: with their answers.

    Raises:
        UserError: videos were replaced, or questions point at other files.
    """
    digests = Digests(results / "video_digests.json")
    changed: dict[tuple[Path, str], str] = {}
    for cell in cells:
        for question in cell.questions:
            answer = cell.answers.get(question.question_id)
            if answer is None or not answer.ok or answer.video_digest is None:
                continue
            now = digests.of(question.video)
            if now is not None and now != answer.video_digest:
                changed[question.video, answer.video_digest] = now
    digests.save()
    if not changed:
        return
    (path, before), now = next(iter(changed.items()))
    files = " ".join(shlex.quote(str(cell.folder)) + "/answers*.jsonl" for cell in cells)
    drop = "".join(f' -e \'/"video_digest":"{old}"/d\'' for _, old in list(changed)[:NAMED])
    rest = f" (the first {NAMED}; then again)" if len(changed) > NAMED else ""
    raise UserError(
        f"{len(changed)} videos are other files than those that were answered, the first is {path}: {before} "
        f"(bytes-digest) was answered, {now} is there now. Put the old files back (data.root), or have their "
        f"questions answered anew: drop those answers{rest} and start the same command again:\n"
        f"  sed -i{drop} {files}"
    )
