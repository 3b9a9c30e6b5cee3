"""Soft and hard timeouts of the tasks that run in this process.

An execution with timeouts has an alarm for what is due next; one without costs nothing. At its soft
timeout people are told and its hook runs beside it. At its hard timeout a coroutine is cancelled.
What then still runs is stopped with its process by the main process (see ``overdue``). Where there
is none, under threads and solo, a coroutine is left with its loop; what blocks its thread has its
claim taken away, so that its result says FAILURE and nothing that it does later counts.
"""

from __future__ import annotations

import logging
import os
import time

from billiard.process import current_process

from relier.protocol.identity import Claim
from relier.store.broker import Broker
from relier.worker.alarms import Alarms
from relier.worker.board import SLOTS, Board, Place
from relier.worker.overdue import Overdue
from relier.worker.summons import Summons
from relier.worker.timed import HOOK_GRACE_S, Timed
from relier.worker.timing import Timing

logger = logging.getLogger(__name__)


class Timekeeper:
    """What a process needs to hold its tasks to their timeouts.

    Args:
        broker: where claims are taken away.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.alarms = Alarms()
        self.overdue: Overdue | None = None
        self.summons: Summons | None = None
        self._running: set[Timed] = set()

    def __repr__(self) -> str:
        return f"<Timekeeper of {self.broker.address.public}>"

    def watch_pool(self) -> None:
        """Be ready to call and stop pool processes; for the main process before it forks them."""
        if self.overdue is None:
            self.overdue = Overdue(Board(), self.alarms)
            self.summons = Summons(self.run_hooks)

    def running(self) -> list[Timed]:
        """Return the executions in this process that have timeouts or a hook."""
        return list(self._running)

    def timed(self, timing: Timing, claim: Claim, task_id: str) -> Timed:
        """Return an execution that is about to begin."""
        if timing.hook is not None and self.summons is not None:
            self.summons.listen()
        timed = Timed(self, timing, claim, task_id, self._place())
        self._running.add(timed)
        return timed

    def forget(self, timed: Timed) -> None:
        """Let go of an execution that has ended."""
        self._running.discard(timed)

    def run_hooks(self) -> None:
        """Run the hook of everything that runs here, and wait until they have ended."""
        calls = [timed.run_hook() for timed in self.running()]
        until_s = time.monotonic() + HOOK_GRACE_S
        for call in calls:
            if call is not None:
                call.wait(max(until_s - time.monotonic(), 0.0))

    def _place(self) -> Place | None:
        """Return where this process tells the main process what it runs; None if it is that."""
        if self.overdue is None or self.overdue.board.owner == os.getpid():
            return None
        slot = getattr(current_process(), "index", None)
        if slot is None or slot >= SLOTS:
            logger.error("pool process %s has no place on the board: nobody can stop it", slot)
            return None
        return Place(self.overdue.board, slot)
