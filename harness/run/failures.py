"""What goes wrong with a video or a question: what is stored of it, and when a run has to stop."""

from __future__ import annotations

import gc
import logging
import sys
import traceback
from dataclasses import dataclass

from harness.errors import QuestionError, UserError, VideoError, printable
from harness.settings.cell import Cell

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """Why something was not answered. Plain text: a kept exception would keep the tensors of the failed call."""

    type: str
    message: str
    place: str | None = None  # what fails alike elsewhere; None for a video's own fault and for want of memory

    @property
    def out_of_memory(self) -> bool:
        """Whether device or host memory ran out."""
        return self.type == "OutOfMemory"

    @property
    def record(self) -> dict[str, str]:
        """As an answer stores it; control characters are written out, for it is shown on terminals."""
        return {"type": self.type, "message": printable(self.message)}


def failure_of(error: Exception, what: str, cell: Cell) -> Failure:
    """What to store for an exception.

    Args:
        error: raised for one video or one question.
        what: was being done, for the log.
        cell: in which it was done.

    Raises:
        UserError: `error` itself, when it is one that all other videos would meet too.
    """
    name = type(error).__name__
    if isinstance(error, VideoError | QuestionError):
        log.warning("%s: %s", what, error)
        return Failure(name, str(error), None if isinstance(error, VideoError) else name)
    if isinstance(error, UserError):
        raise error
    log.error("%s failed\n%s", what, "".join(traceback.format_exception(error)))
    first_line = (str(error).splitlines() or [repr(error)])[0]
    if is_out_of_memory(error):
        return Failure(
            "OutOfMemory",
            f"out of memory: {first_line} Lower one of video.max_frames={cell.video.max_frames}, "
            f"method.chunk_frames={cell.method.chunk_frames}, video.window={cell.video.window}; then run again "
            "with run.retry=failed",
        )
    frames = traceback.extract_tb(error.__traceback__)
    return Failure(name, first_line, f"{frames[-1].filename}:{frames[-1].lineno}" if frames else name)


NPU_MEMORY = "NPU out of memory"
"""What torch_npu says; in some releases as an error of no kind of its own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that device or host memory ran out."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and NPU_MEMORY in str(error)


def release_memory() -> None:
    """Give cached device memory back. The caller must have let go of the exception, or the model, first."""
    gc.collect()
    torch = sys.modules.get("torch")
    for name in ("cuda", "npu"):
        backend = getattr(torch, name, None)
        if backend is not None and backend.is_available():
            backend.empty_cache()


@dataclass
class Streak:
    """Counts videos in a row of which nothing was answered for the same reason, to stop a run that can only fail.

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
