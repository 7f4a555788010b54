"""Calls that may hang, under a time limit.

A decoder can hang inside C code (a network file system, a damaged stream), where Python cannot interrupt it. The calls
therefore run in a thread of their own, and the consumer waits for it no longer than the limit. A thread that hangs
cannot be killed: it is abandoned as a daemon, holding its file and at most one frame window, until its call
returns or the process ends. A subprocess could be killed, but costs a start and a copy of all pixels per video, for
hangs that are rare; all three decoders release the interpreter lock while they decode, so the waiting side wakes up.
"""

import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


class TimeLimit:
    """One thread that runs calls one after the other; waiting for them may take `seconds` in all.

    Time that the consumer spends between the calls does not count. Not to be shared between threads.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds_left = seconds
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_serve, args=(self._calls, self._results), daemon=True)
        self._thread.start()

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs function(*args, **kwargs) in the thread and returns its result or raises its exception.

        Raises:
            TimeoutError: the limit is used up. The thread is abandoned; call nothing more.
        """
        self._calls.put(partial(function, *args, **kwargs))
        start = time.monotonic()
        try:
            result, error = self._results.get(timeout=max(0.0, self.seconds_left))
        except queue.Empty:
            self.seconds_left = 0.0
            raise TimeoutError from None
        self.seconds_left -= time.monotonic() - start
        if error is not None:
            raise error
        return cast(R, result)

    def close(self, last: Callable[[], Any] | None = None) -> None:
        """Lets the thread end after its current call and a last one, without waiting for them."""
        if last is not None:
            self._calls.put(last)
        self._calls.put(None)

    def __enter__(self) -> "TimeLimit":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(calls: queue.SimpleQueue[Any], results: queue.SimpleQueue[Any]) -> None:
    while (call := calls.get()) is not None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = (call(), None)
        except BaseException as error:  # handed to the consumer, whatever it is
            outcome = (None, error)
        results.put(outcome)
        # Nothing of the last call may stay alive while waiting for the next: windows are large.
        del call, outcome
