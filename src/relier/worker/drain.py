"""Drain: a worker that is asked to stop claims no more, and accounts for every task that it holds.

At once, what has not started goes back to the head of its queue. What runs may end within the
grace. What then still runs is stopped and handed over, unblamed: under prefork its process is
killed; a thread cannot be, so under threads and solo the hand-over is the process's last act.

All of it is done by a thread of its own, for the main thread may be inside a task (solo), waiting
for a pool, or for Redis. Celery's own warm shutdown goes on beside it, and ends the worker as ever
once nothing runs any more.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, NoReturn

from celery.worker import state as worker_state

from relier.errors import RedisConnectionError
from relier.store import claiming, fleet
from relier.worker.account import Account
from relier.worker.handover import hand_over
from relier.worker.membership import Membership
from relier.worker.restart import Restart
from relier.worker.stopping import Bodies, has_hook
from relier.worker.timed import HOOK_GRACE_S

logger = logging.getLogger(__name__)

_TICK_S = 0.05
_AWAY_PAUSE_S = 0.2
_SHARE_OF_GRACE = 0.25
_MAIN_ENDS_WITHIN_S = 10.0
_MAIN_ENDS_WITHIN_AWAY_S = 2.0
_ANSWER_WITHIN_S = 1.0
"""How long any answer of Redis may take now: all of the drain is to fit into the grace."""


class Order(NamedTuple):
    """Why the worker is to stop, and how long its running tasks may take.

    Args:
        why: for the log.
        grace_s: seconds; None is the setting or, in a second order, what was given before.
        restart: whether the process is to begin anew then; the last order says.
    """

    why: str
    grace_s: float | None = None
    restart: bool = False


class Drain(threading.Thread):
    """Waits for an order to drain, and carries it out.

    Args:
        membership: what this process holds.
        bodies: what its pool can do to stop them.
        owns_process: whether the worker is all that this process is; then it may end it.
        restart: what begins the process anew.
    """

    def __init__(
        self, membership: Membership, bodies: Bodies, restart: Restart, *, owns_process: bool
    ) -> None:
        super().__init__(name="relier-drain", daemon=True)
        self._membership = membership
        self._bodies = bodies
        self._restart = restart
        self._owns_process = owns_process
        # Signal handlers put orders: its put() may be interrupted by another in the same thread.
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._heard = ""
        self._began_s = self._ends_at_s = 0.0
        self._pool_has_ended = False
        self._redis_is_away = False
        self._waits_for: set[str] = set()
        self._account = Account()
        self.asked = False

    # -- what others say

    def ask(self, order: Order) -> None:
        """Drain, or, if that is under way, be done within the new order's grace."""
        self.asked = True
        self._restart.want(order.restart)
        self._orders.put(order)

    def hear(self, order: str) -> None:
        """Take an order that a beat has brought, once."""
        if order != self._heard:
            self._heard = order
            _, grace_ms, *more = order.split("|")
            grace_s = int(grace_ms) / 1000 if grace_ms else None
            self.ask(Order("ordered from afar", grace_s, restart=claiming.RESTART in more))

    def finish(self) -> bool:
        """Say that the pool has ended, wait for the account, and return whether it holds all."""
        self._orders.put(None)
        if self.is_alive():
            self.join(max(self._ends_at_s - time.monotonic(), 0.0) + _MAIN_ENDS_WITHIN_S)
        if not self._owns_process:
            # The program may start another worker, which must not find itself told to stop.
            worker_state.should_stop = None
        return not self._account.sums.left

    # -- what it does about it

    def run(self) -> None:
        """Wait for an order; see every task to its end, and then the process to its."""
        order = self._orders.get()
        if order is None:
            return
        try:
            self._drain(order)
        except Exception:
            # The worker must end all the same; its claims are safe in Redis.
            logger.exception("the drain stumbled; what this worker holds is left to others")
        self._see_main_out()

    def _drain(self, order: Order) -> None:
        settings = self._membership.broker.settings
        grace_s = settings.graceful_shutdown_timeout_s if order.grace_s is None else order.grace_s
        self._began_s = time.monotonic()
        self._ends_at_s = self._began_s + grace_s
        self._membership.draining = True
        if self._bodies.can_be_stopped:
            self._hurry()  # where bodies run in threads they may dispatch, and wait as ever
        if worker_state.should_stop in (None, False):
            worker_state.should_stop = 0
        logger.info("drain: %s; what runs has %g s to end", order.why, grace_s)
        running = self._await_ends(self._stop_claiming())
        if any(map(has_hook, running)):
            running = self._run_hooks(running)
        if not running:
            self._close()
        elif self._bodies.can_be_stopped:
            self._hand_over(self._bodies.stop(running), running)
            self._close()
        elif not self._owns_process:
            for request in running:
                self._account.left(_named(request), "it runs on inside this program")
            self._close()
        else:
            # From here on no body can commit, and the process that runs it ends at once.
            self._hand_over(running, running)
            self._close()
            self._exit()

    def _stop_claiming(self) -> list[Any]:
        """Give back what has not started; return the requests that run."""
        membership, requests = self._membership, self._requests()
        held = dict(membership.held)
        while True:
            try:
                # What is still under way is younger than what was delivered: it goes back first.
                membership.new_epoch(held)
                unprotected = self._bodies.unprotected()
                waiting = [each for tag, each in held.items() if tag not in unprotected]
                for each in membership.put_back(waiting, "drain"):
                    request = requests.get(each.claim.tag)
                    self._account.given_back(_named(request) if request else each.who.task_id)
                queues = sorted(membership.queues)
                started = fleet.started_claims(
                    membership.broker.store, membership.worker_id, queues
                )
            except RedisConnectionError as error:
                self._say_away(error)
                requests |= self._requests()
                begun = [request for request in requests.values() if request.begun]
                if not (requests or held) or self._time_is_up(_AWAY_PAUSE_S, self._rest_s(begun)):
                    for request in requests.values():
                        if not request.begun:
                            self._account.left(_named(request), "Redis is away")
                    return begun
            else:
                self._redis_is_away = False
                requests |= self._requests()
                return [r for r in requests.values() if r.begun or r.claim in started]

    def _requests(self) -> dict[str, Any]:
        """Return the requests that have not reported their end, by tag."""
        worker = self._membership.worker_id
        found = {request.claim.tag: request for request in self._membership.living_requests()}
        return {
            tag: request
            for tag, request in found.items()
            if not request.acknowledged and request.claim.worker == worker
        }

    def _await_ends(self, running: list[Any]) -> list[Any]:
        """Let tasks end as long as there is time; return those that did not."""
        while True:
            running = self._without_ended(running)
            if not running or (self._pool_has_ended and self._bodies.can_be_stopped):
                return running
            if self._time_is_up(_TICK_S, self._rest_s(running)):
                if self._may_cut_off():
                    return self._without_ended(running)
                time.sleep(_TICK_S)

    def _hurry(self) -> None:
        """Let no answer of Redis be waited for beyond the grace, in a process that is to end."""
        if self._owns_process:
            self._membership.broker.store.hurry(_ANSWER_WITHIN_S)

    def _rest_s(self, running: list[Any]) -> float:
        """Return how long it takes to end what runs."""
        return self._bodies.end_takes_s + HOOK_GRACE_S * any(map(has_hook, running))

    def _say_away(self, error: RedisConnectionError) -> None:
        if not self._redis_is_away:
            logger.warning("drain: Redis is away (%s); trying on until the time is up", error)
        self._redis_is_away = True

    def _without_ended(self, running: list[Any]) -> list[Any]:
        for request in running:
            if request.acknowledged:
                self._account.completed(_named(request))
        return [request for request in running if not request.acknowledged]

    def _run_hooks(self, running: list[Any]) -> list[Any]:
        """Let hooks save what they can, unless somebody asks again; return what still runs."""
        have_ended = self._bodies.run_hooks(running)
        until_s = time.monotonic() + HOOK_GRACE_S
        while not have_ended() and time.monotonic() < until_s:
            try:
                self._pool_has_ended = self._orders.get(timeout=_TICK_S) is None
                break
            except Empty:
                continue
        return self._without_ended(running)

    def _may_cut_off(self) -> bool:
        """Return whether stopping what runs would harm nothing that is not ours to stop."""
        if self._bodies.can_be_stopped:
            return True
        if not self._owns_process:
            return self._pool_has_ended
        waited_for = self._waits_for
        self._waits_for = self._bodies.unprotected()
        if self._waits_for and not waited_for:
            logger.warning(
                "drain: time is up, but to end this process would cut off %d tasks that relier "
                "does not protect; waiting for them",
                len(self._waits_for),
            )
        # One that has ended just now has yet to say so.
        return not (waited_for or self._waits_for)

    def _time_is_up(self, wait_s: float, reserve_s: float = 0.0) -> bool:
        """Wait a moment, hear what is new, and return whether that was the last moment.

        Args:
            wait_s: how long to wait at most.
            reserve_s: what comes after takes so long; all of it is to end within the grace.
        """
        reserve_s = min(reserve_s, _SHARE_OF_GRACE * (self._ends_at_s - self._began_s))
        left_s = self._ends_at_s - reserve_s - time.monotonic()
        try:
            order = self._orders.get(timeout=max(min(wait_s, left_s), 0.0))
        except Empty:
            return left_s <= wait_s
        if order is None:
            self._pool_has_ended = True
            return False
        if order.grace_s is not None:
            self._ends_at_s = min(self._ends_at_s, time.monotonic() + order.grace_s)
        logger.info("drain: %s, too; %.1f s left", order.why, self._ends_at_s - time.monotonic())
        return False

    def _hand_over(self, stopped: list[Any], running: list[Any]) -> None:
        self._hurry()
        for request in running:
            if request not in stopped:
                self._account.left(_named(request), "its process could not be stopped")
        # Also who wants it now may have an answer of Redis waited for once.
        until_s = max(self._ends_at_s, time.monotonic() + _ANSWER_WITHIN_S)
        while True:
            try:
                where = hand_over(self._membership, stopped)
                break
            except RedisConnectionError as error:
                self._say_away(error)
                if time.monotonic() > until_s:
                    for request in stopped:
                        self._account.left(_named(request), "Redis is away")
                    return
                time.sleep(_TICK_S)
        self._redis_is_away = False
        for request, place in where.items():
            if place == "handed over":
                self._account.handed_over(_named(request))
            elif place == "to be concluded":
                self._account.completed(_named(request), "; another worker sends what follows")
            else:
                self._account.completed(_named(request))

    def _close(self) -> None:
        """Say what became of all."""
        membership, sums = self._membership, self._account.sums
        took_s = time.monotonic() - self._began_s
        logger.info("drain: done in %.1f s: %s", took_s, sums)
        for queue in [] if self._redis_is_away else sorted(membership.queues)[:1]:
            operation = claiming.drained(membership.broker.keys, membership.worker_id, queue, sums)
            try:
                membership.broker.store.run(operation)
            except RedisConnectionError as error:
                logger.warning("drain: could not write the account down: %s", error)

    # -- the end of the process

    def _see_main_out(self) -> None:
        """Wait until the main thread has ended the pool; it must not hang for ever."""
        # Without Redis it has nothing more to do, and each attempt would wait for an answer.
        within_s = _MAIN_ENDS_WITHIN_AWAY_S if self._redis_is_away else _MAIN_ENDS_WITHIN_S
        until_s = time.monotonic() + within_s
        while not self._pool_has_ended:
            try:
                self._pool_has_ended = self._orders.get(timeout=_TICK_S) is None
            except Empty:
                if not self._owns_process or self._bodies.unprotected():
                    until_s = time.monotonic() + within_s
                elif time.monotonic() > until_s:
                    logger.error("the worker's main thread does not end; ending the process")
                    self._exit()

    def _exit(self) -> NoReturn:
        code = 1 if self._account.sums.left else int(worker_state.should_stop or 0)
        if not self._account.sums.left:
            self._membership.leave()
        self._restart.begin_anew()
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)


def _named(request: Any) -> str:
    return f"{request.name}[{request.id}]"
