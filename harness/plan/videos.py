"""Are the videos still those that were answered?"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.benchmarks.questions import Question
from harness.errors import UserError
from harness.store import Answer
from harness.video.digest import Digests

NAMED = 5
"""So many changed videos at most are named, with the command that drops their answers."""


def check_videos(results: Path, cells: Iterable[tuple[Path, Sequence[Question], Mapping[str, Answer]]]) -> None:
    """Every answer was given to the file that its question names now; an absent file changes nothing.

    Args:
        results: its `video_digests.json` remembers digests, so that only new and changed files are read.
        cells: the folder of each, its questions and its answers; taken one by one, so that they may come from a
            generator that holds one cell at a time.

    Raises:
        UserError: videos were replaced, or questions point at other files.
    """
    digests = Digests(results / "video_digests.json")
    found: dict[Path, str | None] = {}
    changed: dict[tuple[Path, str], str] = {}
    folders = []
    for folder, questions, answers in cells:
        folders.append(folder)
        for question in questions:
            answer = answers.get(question.question_id)
            if answer is None or not answer.ok or answer.video_digest is None:
                continue
            if question.video not in found:
                found[question.video] = digests.of(question.video)
            now = found[question.video]
            if now is not None and now != answer.video_digest:
                changed[question.video, answer.video_digest] = now
    digests.save()
    if not changed:
        return
    (path, before), now = next(iter(changed.items()))
    files = " ".join(shlex.quote(str(folder)) + "/answers*.jsonl" for folder in folders)
    drop = "".join(f' -e \'/"video_digest":"{old}"/d\'' for _, old in list(changed)[:NAMED])
    rest = f" (the first {NAMED}; then again)" if len(changed) > NAMED else ""
    raise UserError(
        f"{len(changed)} videos are other files than those that were answered, the first is {path}: {before} "
        f"(bytes-digest) was answered, {now} is there now. Put the old files back (data.root), or have their "
        f"questions answered anew: drop those answers{rest} and start the same command again:\n"
        f"  sed -i{drop} {files}"
    )
