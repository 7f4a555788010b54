"""The loop: each video is decoded and encoded once, then all its questions are answered in all sibling cells.

Every answer is on the disk before the next question is asked. What can go wrong with one video or one question is
stored as its failed answer; what would go wrong with all of them stops the run.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Iterable, Sequence
from typing import Any

from harness.digest import file_digest
from harness.errors import VideoError
from harness.run.answer import Session, make_answer
from harness.run.failures import Failure, Streak, failure_of, release_memory
from harness.run.frames import Frames, OpenVideo
from harness.run.status import StatusFile
from harness.run.work import Siblings, VideoWork, WorkItem
from harness.store import Answer, AnswerLog, FrameRecords

log = logging.getLogger(__name__)


class Loop:
    """Answers one group of sibling cells.

    Args:
        siblings: the cells and what is missing of their videos.
        adapter: the model.
        logs: each cell's open answers file, in the order of `siblings.cells`.
        frames: opens the videos, ahead of need.
        status: counters and state.
        streak: shared by all that a worker answers.
        start: names this start of the run in its answers.
    """

    def __init__(
        self,
        siblings: Siblings,
        adapter: Any,
        logs: Sequence[AnswerLog],
        frames: Frames,
        status: StatusFile,
        streak: Streak,
        start: str,
    ) -> None:
        self.siblings, self.logs, self.frames = siblings, logs, frames
        self.status, self.streak, self.start = status, streak, start
        self.session = Session(adapter, siblings.cells)
        self.records = FrameRecords.beside(siblings.folders[0])

    def run(self) -> None:
        """Answer everything.

        Raises:
            UserError: what stops a run: the store does not take answers, the model or a setting cannot work, or
                too many videos in a row failed alike. All answers given so far are stored.
            KeyboardInterrupt: passed on; all answers given so far are stored.
        """
        with contextlib.closing(self.frames.open([work.path for work in self.siblings.videos])) as videos:
            for work in self.siblings.videos:
                self.status.begin(self.siblings.name, work.path)
                start = time.perf_counter()
                opened = next(videos)
                self.status.counters.seconds_waiting += time.perf_counter() - start
                self._video(work, opened)
                self.status.end()

    def _video(self, work: VideoWork, opened: OpenVideo | Exception) -> None:
        counters = self.status.counters
        start, waited = time.perf_counter(), counters.seconds_waiting
        known: dict[str, Any] = {}
        n_frames, features, failure = 0, None, None
        try:
            if isinstance(opened, Exception):
                raise opened
            n_frames = len(opened.seen.indices)
            self.records.keep(opened.seen)  # before any answer that refers to it
            known = opened.facts()
            features = opened.features if opened.features is not None else self._encode(opened)
            counters.videos_reused += opened.features is not None
        except Exception as error:
            failure = failure_of(error, f"encoding {work.path.name}", self.siblings.cells[0])
        if failure is not None:
            self._fail(work.asks, failure, known)
            self.streak.failed(failure)
            return
        waiting = counters.seconds_waiting - waited
        encoding = time.perf_counter() - start - waiting
        share = len(work.asks)  # each answer carries its part, so that a sum over answers is the time spent
        self._ask_all(work, features, known, {"frames": waiting / share, "encode": encoding / share})
        log.info(
            "%s: %s, %d frames, %d answers, %.2f s (%.2f s for frames, %.2f s encoding)",
            self.siblings.name, work.path.name, n_frames, share,
            time.perf_counter() - start, waiting, encoding,
        )  # fmt: skip

    def _encode(self, opened: OpenVideo) -> Any:
        counters = self.status.counters
        start, waited = time.perf_counter(), counters.seconds_waiting
        counters.videos_decoded += 1
        with contextlib.closing(self._timed(opened.windows(self.siblings.cells[0].video.window))) as windows:
            features = self.session.encode(opened.plan, windows)
        if file_digest(opened.path) != opened.digest:
            raise VideoError(f"{opened.path} was replaced while it was read; start again with run.retry=failed")
        counters.videos_encoded += 1
        counters.seconds_encoding += time.perf_counter() - start - (counters.seconds_waiting - waited)
        self.frames.keep(opened, features)
        return features

    def _timed(self, windows: Generator[Any]) -> Generator[Any]:
        """Pass windows on; count them and the time that the model waits for each."""
        counters = self.status.counters
        with contextlib.closing(windows):
            while True:
                start = time.perf_counter()
                window = next(windows, None)
                counters.seconds_waiting += time.perf_counter() - start
                if window is None:
                    return
                counters.encoder_windows += 1
                counters.frames += len(window)
                yield window

    def _ask_all(self, work: VideoWork, features: Any, known: dict[str, Any], seconds: dict[str, float]) -> None:
        exhausted: dict[int, Failure] = {}  # cell -> why it has no room for this video
        failure: Failure | None = None
        answered = False
        timestamps = self.records.find(known["frames"]).timestamps
        following = [ask.question.question_id for ask in work.asks[1:]] + [None]
        for ask, next_question in zip(work.asks, following, strict=True):
            repeats = ask.question.question_id == next_question
            if ask.cell in exhausted:
                self._fail([ask], exhausted[ask.cell], known)
                continue
            cell, answer, start = self.siblings.cells[ask.cell], None, time.perf_counter()
            try:
                answer = make_answer(
                    self.session, features, ask.question, cell, known, seconds, self.start,
                    repeats=repeats, timestamps=timestamps,
                )  # fmt: skip
            except Exception as error:
                failure = failure_of(error, f"question {ask.question.question_id} in {cell.id}", cell)
            self.status.counters.seconds_answering += time.perf_counter() - start
            if answer is not None:
                self._store(ask, answer)
                answered = True
            elif failure is not None:
                self._fail([ask], failure, known)
                if failure.out_of_memory:
                    exhausted[ask.cell] = failure
        if answered:
            self.streak.answered()
        elif failure is not None:
            self.streak.failed(failure)

    def _fail(self, asks: Iterable[WorkItem], failure: Failure, known: dict[str, Any]) -> None:
        if failure.out_of_memory:
            release_memory()
        for ask in asks:
            asked: dict[str, Any] = {"prompt_digest": ask.question.digest, "error": failure.record, "start": self.start}
            self._store(ask, Answer(ask.question.question_id, ask.question.video_id, "failed", **asked, **known))

    def _store(self, ask: WorkItem, answer: Answer) -> None:
        self.logs[ask.cell].append(answer)
        self.status.answered(self.siblings.cells[ask.cell].id, answer)
