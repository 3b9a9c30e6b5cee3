"""The main process stops pool processes whose task is past its hard timeout.

It needs nothing of the process that is stopped, which may be stuck without the interpreter's lock;
and nothing of its own event loop, which may be busy, or gone while the pool drains.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from relier.worker.alarms import Alarms
from relier.worker.board import Board

logger = logging.getLogger(__name__)

_BUSY_PAUSE_S = 0.005


class Watched(NamedTuple):
    """A task that a pool process has accepted.

    Args:
        pid: the process.
        claim: the number of its claim.
        hard_s: seconds its body may run.
        condemn: called just before its process is stopped.
    """

    pid: int
    claim: int
    hard_s: float
    condemn: Callable[[], None]


class Overdue:
    """Watches what the pool's processes run.

    Args:
        board: where they write it down.
        alarms: of the main process.
    """

    def __init__(self, board: Board, alarms: Alarms) -> None:
        self.board = board
        self._alarms = alarms
        self._watched: dict[int, Watched] = {}

    def watch(self, task: Watched, accepted_s: float) -> None:
        """Stop the task's process when its body runs for too long.

        Args:
            task: what to watch.
            accepted_s: when its process took it, on the monotonic clock; its body begins later.
        """
        self._watched[task.claim] = task
        self._look_at(accepted_s + task.hard_s, task)

    def forget(self, claim: int) -> None:
        """Look no more after a task; its process has reported, or is gone."""
        if self._watched.pop(claim, None) is not None:
            self._alarms.drop(claim)

    def _look_at(self, at_s: float, task: Watched) -> None:
        self._alarms.set(task.claim, at_s, partial(self._look, task))
        if task.claim not in self._watched:
            self._alarms.drop(task.claim)  # forgotten meanwhile

    def _look(self, task: Watched) -> None:
        now_s = time.monotonic()
        slot = self.board.find(task.pid, task.claim)
        if slot is None:
            # Its body has not begun, or has ended and is being committed.
            self._look_at(now_s + task.hard_s, task)
            return
        try:
            with self.board.held(slot) as entry:
                if (entry.pid, entry.claim) != (task.pid, task.claim):
                    again_s = now_s + task.hard_s
                elif entry.stop_at_s > now_s:
                    again_s = entry.stop_at_s
                else:
                    self._stop(task)
                    return
        except BlockingIOError:
            again_s = now_s + _BUSY_PAUSE_S
        self._look_at(again_s, task)

    def _stop(self, task: Watched) -> None:
        """Kill the process. The lock on its slot is ours: its body cannot end any more."""
        task.condemn()
        try:
            os.kill(task.pid, signal.SIGKILL)
        except ProcessLookupError:
            logger.debug("process %s had ended before it could be stopped", task.pid)
