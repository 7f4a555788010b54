"""Appending answers, each on the disk before the next is asked."""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.errors import UserError
from harness.store.answers import Answer, parse_answers
from harness.store.records import StoreError, hold, sync_folder

_WORKER = re.compile(r"[A-Za-z0-9_-]+")


class AnswerLog:
    """Append-only writer of one answers file; it holds the file's lock until closed.

    `worker` names the file `answers.<worker>.jsonl`. Opening repairs a torn last line left by a killed process, and
    that alone.

    Raises StoreError when another process writes the same file, when the file is replaced or changed while it is
    written, or when the disk does not take an answer: the answers before it are safe, and starting the run again goes
    on behind them. Raises UserError on a damaged file.
    """

    def __init__(self, cell_dir: Path | str, worker: str | None = None, wait_s: float = 0.0) -> None:
        if worker is not None and not _WORKER.fullmatch(worker):
            raise UserError(f"worker name {worker!r} is not usable in a file name: letters, digits, '_' and '-' only")
        folder = Path(cell_dir)
        self.path = folder / ("answers.jsonl" if worker is None else f"answers.{worker}.jsonl")
        self._lock = hold(folder / f".{self.path.name}.lock", wait_s)
        self._descriptor = -1
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._end = self._repair()
            sync_folder(folder)
        except OSError as error:
            self.close()
            raise self._refused(error) from error
        except BaseException:
            self.close()
            raise

    def append(self, answer: Answer) -> None:
        """Write one answer; when this returns, it is on the disk."""
        if self._descriptor < 0:
            raise ValueError(f"{self.path} is closed")
        line = answer.to_line()
        try:
            self._write(line)
            os.fsync(self._descriptor)
        except OSError as error:
            self._drop_tail()
            raise self._refused(error) from error
        except BaseException:  # Ctrl-C between two writes: leave whole lines only
            self._drop_tail()
            raise
        self._end += len(line)
        self._check_untouched()

    def close(self) -> None:
        """Release the file; closing twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._lock.__exit__(None, None, None)

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # a nearly full disk takes a part and refuses the rest
            view = view[os.write(self._descriptor, view) :]

    def _drop_tail(self) -> None:
        """Cut back to the last whole answer and close: nothing may be appended behind a torn line."""
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError:
            pass  # the torn line stays; readers pass over it and the next start repairs it
        finally:
            self.close()

    def _check_untouched(self) -> None:
        """Raise StoreError when the path names another file by now (an editor replaces), or something else wrote."""
        held = os.fstat(self._descriptor)
        try:
            there = os.stat(self.path)
            same = (there.st_dev, there.st_ino, there.st_size) == (held.st_dev, held.st_ino, self._end)
        except FileNotFoundError:
            same = False
        if not same:
            self.close()
            raise StoreError(
                f"{self.path} was replaced, removed or changed by another program while it was written. Edit answers "
                "only while no run writes them; start the same command again: it answers what is missing."
            )

    def _repair(self) -> int:
        """Drop a torn last line, complete one that lacks only its newline; return the end of the file."""
        data = self.path.read_bytes()
        end = max((end for _, end in parse_answers(self.path, data)), default=0)
        if end == len(data) + 1:  # whole answer, newline lost
            self._write(b"\n")
        elif end < len(data):
            os.ftruncate(self._descriptor, end)
        if end != len(data):
            os.fsync(self._descriptor)
        return end

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot append to {self.path}: {error.strerror or error}. Answers before this one are safe. Free space "
            f"there (df -h {self.path.parent}), then start the same command again: it answers only what is missing."
        )
