"""Keeps an engine's workers at work: a dead one is started again and costs at most the video it had in hand."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field

from harness.errors import UserError
from harness.run.engines import Engine, Handle
from harness.run.status import Status, read_status, status_path
from harness.run.work import Order, share_of
from harness.run.worker import INTERRUPTED, STOPPED, worker_log
from harness.store import Answer, AnswerLog, is_needed, read_answers

log = logging.getLogger(__name__)

POLL_S = 0.2
PATIENCE_S = 20.0
"""How long an interrupted worker may take to end by itself."""
DEATHS_PER_VIDEO = 2
"""A video in whose work a worker died this often is stored as failed."""
DEATHS_AT_START = 2
"""A slot in which a share died this often before its first video is given up."""
RECORDER = "supervisor"
"""Name of the answers file that takes the failures of videos that killed their worker."""


@dataclass
class _Share:
    index: int
    attempt: int = -1
    deaths_at_start: int = 0


@dataclass
class Supervisor:
    """Carries out an order on an engine.

    Raises (from `run`):
        UserError: a worker had to stop the run (its message), or no worker can be kept alive.
        KeyboardInterrupt: passed on after the workers have ended.
    """

    engine: Engine
    order: Order
    deaths: Counter[str] = field(default_factory=Counter)  # video -> workers that died on it

    def run(self) -> None:
        """Start the workers and return when every share is done."""
        waiting = [_Share(i) for i in range(self.order.workers) if share_of(self.order, i)]
        free = list(range(min(self.engine.workers, len(waiting))))
        running: dict[int, tuple[_Share, Handle]] = {}  # slot -> what runs in it
        fruitless = 0  # deaths in a row without an answer between them
        try:
            while waiting or running:
                while waiting and free:
                    share, slot = waiting.pop(0), free.pop(0)
                    share.attempt += 1
                    running[slot] = share, self.engine.start(self.order, share.index, share.attempt, slot)
                time.sleep(POLL_S)
                for slot, (share, handle) in list(running.items()):
                    code = handle.poll()
                    if code is None:
                        continue
                    del running[slot]
                    status = read_status(status_path(self.order.logs, share.index, share.attempt))
                    if code == STOPPED:
                        raise UserError(status.error if status and status.error else self._see(share))
                    if code == 0:
                        free.append(slot)
                        continue
                    fruitless = 0 if status and status.counters.answers else fruitless + 1
                    if self._died(share, code, status):
                        free.append(slot)
                    waiting.append(share)
                    if fruitless >= max(self.order.run.max_consecutive_failures, 2 * self.engine.workers):
                        raise UserError(f"{fruitless} workers in a row died without an answer. {self._see(share)}")
                if waiting and not free and not running:
                    raise UserError(f"no worker could be started. {self._see(waiting[0])}")
        finally:
            self._end([handle for _, handle in running.values()])

    def _died(self, share: _Share, code: int, status: Status | None) -> bool:
        """Take note of a death; return whether the slot may be used again."""
        log.warning("worker %d ended with status %d at video %s", share.index, code, status and status.video)
        if code == INTERRUPTED:  # someone stopped this worker alone: nobody's fault
            return True
        if status is None or status.video is None:
            share.deaths_at_start += 1
            return share.deaths_at_start < DEATHS_AT_START
        self.deaths[status.video] += 1
        if self.deaths[status.video] >= DEATHS_PER_VIDEO:
            self._give_up(status.video, code)
        return True

    def _give_up(self, video: str, code: int) -> None:
        """Store what is still missing of a video as failed."""
        error = {
            "type": "WorkerDied",
            "message": f"{DEATHS_PER_VIDEO} workers died on this video, the last with status {code} (negative: a "
            "signal). Check the file (python -m harness verify) and host memory, then run again with run.retry=failed",
        }
        order = self.order
        for siblings in order.siblings:
            asks = [ask for work in siblings.videos if str(work.path) == video for ask in work.asks]
            for place, folder in enumerate(siblings.folders):
                answers = read_answers(folder)
                own = [ask.question for ask in asks if ask.cell == place]
                missing = [q for q in own if is_needed(answers.get(q.question_id), order.run.retry, order.start)]
                if missing:
                    with AnswerLog(folder, RECORDER) as record:
                        for q in missing:
                            record.append(Answer(q.question_id, q.video_id, "failed", error=error, start=order.start))

    def _see(self, share: _Share) -> str:
        where = worker_log(self.order.logs, share.index)
        return f"The reason is at the end of {where}; see also: python -m harness doctor"

    def _end(self, handles: list[Handle]) -> None:
        for handle in handles:
            handle.stop()
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and any(handle.poll() is None for handle in handles):
            time.sleep(0.05)
        for handle in handles:
            if handle.poll() is None:
                handle.kill()
