"""The loop: each video is decoded and encoded once, then all its questions are answered in all sibling cells.

Every answer is on the disk before the next question is asked. What can go wrong with one video or one question is
stored as its failed answer; what would go wrong with all of them stops the run.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError, VideoError
from harness.run.frames import Frames, StoredPlan
from harness.run.respond import Responder
from harness.run.status import Board
from harness.run.work import Ask, GroupWork, VideoWork
from harness.store import Answer, AnswerLog

log = logging.getLogger(__name__)

Parse = Callable[[str, dict[str, str]], str | None]


@dataclass(frozen=True)
class Failure:
    """Why something was not answered. Plain text: a kept exception would keep the tensors of the failed call."""

    type: str
    message: str
    place: str | None = None  # where it was raised; None for a video's own fault and for want of memory

    @property
    def out_of_memory(self) -> bool:
        """Whether device or host memory ran out."""
        return self.type == "OutOfMemory"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that device or host memory ran out."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, MemoryError)


def release_memory() -> None:
    """Give cached device memory back after a failure. The caller must have let go of the exception first."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass
class Streak:
    """Counts videos in a row that failed alike, to stop a run that can only fail.

    Videos that fail by themselves (VideoError) or for memory neither count nor break the row.
    """

    limit: int
    kind: tuple[str, str | None] | None = None  # exception type, and where it was raised
    length: int = 0

    def answered(self) -> None:
        """A question was answered: the run works."""
        self.kind, self.length = None, 0

    def failed(self, failure: Failure) -> None:
        """A video failed as a whole.

        Raises:
            UserError: for the `limit`th time in a row.
        """
        if failure.place is None:
            return
        kind = (failure.type, failure.place)
        self.length = self.length + 1 if kind == self.kind else 1
        self.kind = kind
        if self.length >= self.limit:
            raise UserError(
                f"{self.length} videos in a row failed with {failure.type}: {failure.message} (raised at "
                f"{failure.place}). The run is stopped; the traceback is in the log file. Once the cause is removed, "
                "start the same command with run.retry=failed; to go on all the same, raise "
                "run.max_consecutive_failures."
            )


class Loop:
    """Answers one group of sibling cells.

    Args:
        group: the siblings and what is missing of their videos.
        responder: the model.
        logs: each cell's open answers file, in the order of `group.cells`.
        frames: opens the videos, ahead of need.
        board: counters and state.
        parse: reply and options -> letter or None.
        streak: shared by all groups of a run.
        start: names this start of the run in its answers.
    """

    def __init__(
        self,
        group: GroupWork,
        responder: Responder,
        logs: Sequence[AnswerLog],
        frames: Frames,
        board: Board,
        parse: Parse,
        streak: Streak,
        start: str,
    ) -> None:
        self.group, self.responder, self.logs, self.frames = group, responder, logs, frames
        self.board, self.parse, self.streak, self.start = board, parse, streak, start
        self.window = group.cells[0].cell.video.window

    def run(self) -> None:
        """Answer everything.

        Raises:
            UserError: what stops a run: the store does not take answers, the model or a setting cannot work, or
                too many videos in a row failed alike. All answers given so far are stored.
            KeyboardInterrupt: passed on; all answers given so far are stored.
        """
        with contextlib.closing(self.frames.open([work.path for work in self.group.videos])) as videos:
            for work in self.group.videos:
                self.board.video(self.group.name, work.path)
                start = time.perf_counter()
                video = next(videos)
                self.board.counters.seconds_waiting += time.perf_counter() - start
                self._video(work, video)
                self.board.video_done()

    def _video(self, work: VideoWork, video: Any) -> None:
        start, waited = time.perf_counter(), self.board.counters.seconds_waiting
        known: dict[str, Any] = {}
        failure, features = None, None
        try:
            if isinstance(video, BaseException):
                raise video
            stored = video.plan if isinstance(video.plan, StoredPlan) else None
            plan = stored.plan if stored else video.plan
            known = {
                "sampling_fps": float(plan.sampling_fps),
                "frame_indices": [int(i) for i in plan.indices],
                "timestamps": [float(t) for t in plan.timestamps],
                "backend": video.backend,
            }
            features = stored.features if stored else self._encode(work.path, video)
            self.board.counters.videos_reused += stored is not None
        except Exception as error:
            failure = self._reason(error, f"encoding {work.path.name}")
        if failure is not None:
            release_memory()
            self._fail(work.asks, failure, known)
            self.streak.failed(failure)
            return
        waiting = self.board.counters.seconds_waiting - waited
        encoding = time.perf_counter() - start - waiting
        share = len(work.asks)  # each answer carries its part, so that a sum over answers is the time spent
        seconds = {"frames": waiting / share, "encode": encoding / share}
        self._ask_all(work, features, known, seconds)
        log.info(
            "%s: %s, %d frames, %d answers, %.2f s (%.2f s for frames, %.2f s encoding)",
            self.group.name, work.path.name, len(known["frame_indices"]), len(work.asks),
            time.perf_counter() - start, waiting, encoding,
        )  # fmt: skip

    def _encode(self, path: Path, video: Any) -> Any:
        counters = self.board.counters
        start, waited = time.perf_counter(), counters.seconds_waiting
        counters.videos_decoded += 1
        with contextlib.closing(self._timed(video.windows(self.window))) as windows:
            features = self.responder.encode(windows, len(video.plan.indices), float(video.plan.second_per_grid))
        counters.videos_encoded += 1
        counters.seconds_encoding += time.perf_counter() - start - (counters.seconds_waiting - waited)
        self.frames.keep(path, video, features)
        return features

    def _timed(self, windows: Generator[Any]) -> Iterator[Any]:
        """Pass windows on; count them and the time that the model waits for each."""
        counters = self.board.counters
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
        answered = 0
        for ask in work.asks:
            if ask.cell in exhausted:
                self._fail([ask], exhausted[ask.cell], known)
                continue
            answer, start = None, time.perf_counter()
            try:
                answer = self._answer(ask, features, known, seconds)
            except Exception as error:
                failure = self._reason(error, f"question {ask.question.question_id} in {self._folder(ask).name}", ask)
            self.board.counters.seconds_answering += time.perf_counter() - start
            if answer is not None:
                self._store(ask, answer)
                answered += 1
                continue
            release_memory()
            self._fail([ask], failure, known)
            if failure.out_of_memory:
                exhausted[ask.cell] = failure
        if answered:
            self.streak.answered()
        elif failure is not None:
            self.streak.failed(failure)

    def _answer(self, ask: Ask, features: Any, known: dict[str, Any], seconds: dict[str, float]) -> Answer:
        question = ask.question
        reply = self.responder.reply(features, question, self.group.cells[ask.cell].cell)
        return Answer(
            question.question_id,
            question.video_id,
            "ok",
            start=self.start,
            text=reply.text,
            n_prompt=reply.n_prompt,
            n_video=reply.n_video,
            cache_length=list(reply.cache_length),
            chunk_budget=reply.chunk_budget,
            n_new=reply.n_new,
            peak_memory=reply.peak_memory,
            seconds={name: round(value, 6) for name, value in {**seconds, **reply.seconds}.items()},
            **known,
        )

    def _reason(self, error: Exception, what: str, ask: Ask | None = None) -> Failure:
        """What to store for an exception.

        Raises:
            UserError: `error` itself, when it is one that all other videos would meet too.
        """
        if isinstance(error, VideoError):
            log.warning("%s: %s", what, error)
            return Failure(type(error).__name__, str(error))
        if isinstance(error, UserError):
            raise error
        log.error("%s failed\n%s", what, "".join(traceback.format_exception(error)))
        first_line = (str(error).splitlines() or [repr(error)])[0]
        if is_out_of_memory(error):
            cell = self.group.cells[ask.cell if ask else 0].cell
            return Failure(
                "OutOfMemory",
                f"out of memory: {first_line} Lower one of video.max_frames={cell.video.max_frames}, "
                f"method.chunk_frames={cell.method.chunk_frames}, video.window={cell.video.window}; then run again "
                "with run.retry=failed",
            )
        frames = traceback.extract_tb(error.__traceback__)
        return Failure(type(error).__name__, first_line, f"{frames[-1].filename}:{frames[-1].lineno}")

    def _fail(self, asks: Iterable[Ask], failure: Failure, known: dict[str, Any]) -> None:
        error = {"type": failure.type, "message": failure.message}
        for ask in asks:
            answer = Answer(
                ask.question.question_id, ask.question.video_id, "failed", error=error, start=self.start, **known
            )
            self._store(ask, answer)

    def _store(self, ask: Ask, answer: Answer) -> None:
        self.logs[ask.cell].append(answer)
        gold = ask.question.answer
        letter = self.parse(answer.text, dict(ask.question.options)) if answer.ok else None
        self.board.answered(answer.ok, None if gold is None else letter == gold)

    def _folder(self, ask: Ask) -> Path:
        return self.group.cells[ask.cell].folder
