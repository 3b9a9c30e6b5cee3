"""Celery's request in the main process, for tasks that run under a claim.

The main process never ends a claim that has started: the pool process does, or, when that is dead,
``reap_claim``. Here a claim is only handed over, and prefetch credit freed.
"""

from __future__ import annotations

import logging
import re
import signal
from typing import Any

from celery import signals
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker import request as celery_request
from celery.worker import state as worker_state

from relier.protocol import outcome as outcomes
from relier.protocol.identity import Claim
from relier.protocol.outcome import Outcome, printable
from relier.store import reaping, running
from relier.worker import expiry
from relier.worker.ended import NotRunError
from relier.worker.grip import ETA_KEY, REQUEST_KEY, Grip
from relier.worker.membership import Held, Membership
from relier.worker.overdue import Overdue, Watched
from relier.worker.timing import limits_of, overdue

logger = logging.getLogger(__name__)


class Request(celery_request.Request):
    """A request that carries its claim."""

    handed_over = False
    """Whether its process is stopped to hand it over; then nobody is to blame for its death."""

    _grip: Grip | None = None
    _membership: Membership
    _watchman: Overdue | None = None
    _stopped = False

    def __init__(self, message: Any, **kwargs: Any) -> None:
        held: Held | None = message.properties.pop(REQUEST_KEY, None)
        eta = message.properties.pop(ETA_KEY, None)
        super().__init__(message, **kwargs)
        if eta:
            self._request_dict["eta"] = eta
        if held is not None:
            self._membership = message.channel.membership
            self._tag = message.delivery_tag
            self._grip = Grip(held.claim, held.delivery_tag, held.outcome, held.replays)
            self._request_dict[REQUEST_KEY] = self._grip
            self._membership.requests[held.claim] = self

    @property
    def claim(self) -> Claim:
        """Return the claim under which a protected task runs."""
        assert self._grip is not None
        return self._grip.claim

    @property
    def begun(self) -> bool:
        """Return whether a process or thread of the pool has taken it up."""
        return self.time_start is not None

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Hear that a process took the task; if it has a hard timeout, watch that process."""
        super().on_accepted(pid, time_accepted)
        if self._grip is None or self._grip.outcome is not None:
            return
        hard_s = limits_of(self.task).hard_s
        watchman = self.app.relier.timekeeper.overdue
        if hard_s is not None and watchman is not None:
            self._watchman = watchman
            watched = Watched(pid, int(self._grip.claim.number), hard_s, self._stop)
            watchman.watch(watched, time_accepted)

    def _stop(self) -> None:
        """Note that the process dies of the hard timeout, just before it does."""
        self._stopped = True

    def acknowledge(self) -> None:
        """Free the credit; the claim is the pool process's to end."""
        if self._grip is not None:
            self._let_go(self._grip)
        super().acknowledge()

    def reject(self, requeue: bool = False) -> None:
        """Free the credit; an unstarted message that is to be requeued goes back to its queue."""
        if self._grip is not None and not requeue:
            self._let_go(self._grip)
        super().reject(requeue=requeue)

    def _let_go(self, grip: Grip) -> None:
        self._membership.free(self._tag)
        if self._watchman is not None:
            self._watchman.forget(int(grip.claim.number))

    def revoked(self) -> bool:
        """Return whether the task is to be dropped here and now: never, under a claim.

        The process that starts it commits the revocation in place of its body, so that what follows
        from that is not lost with this one. A replay is past being revoked.
        """
        if self._grip is None:
            return bool(super().revoked())
        if self._grip.outcome is None and not self._grip.revoked:
            super().revoked()
        return False

    def maybe_expire(self) -> Any:
        """Judge by the message's own time only where no record has it."""
        if self._grip is not None and expiry.is_kept(self._request_dict):
            return None
        return super().maybe_expire()

    def end_by_order(self) -> bool:
        """Commit that somebody stopped the task; False when it has just ended, or was stopped."""
        if self._already_revoked:
            return False
        self._announce_revoked("terminated", True, signal.SIGKILL, False)
        return bool(self._already_revoked)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if self._grip is None:
            super()._announce_revoked(reason, terminated, signum, expired)
            return
        if terminated:
            # A worker writes the state when it sends what follows; here only people are told. One
            # that had committed, or had not started, is dealt with as its process dies.
            if self._condemn("revoked", Outcome(state="REVOKED")) is False:
                return
            celery_request.task_ready(self)
            self.send_event("task-revoked", terminated=True, signum=signum, expired=expired)
            self.acknowledge()
            self._already_revoked = True
            signals.task_revoked.send(
                self.task, request=self._context, terminated=True, signum=signum, expired=expired
            )
            return
        self._grip = self._request_dict[REQUEST_KEY] = self._grip._replace(revoked=reason)
        self.send_event("task-revoked", terminated=False, signum=None, expired=expired)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Hear of an error; one that did not come from the tracer means that the process died."""
        error = getattr(exc_info.exception, "exc", None) or exc_info.exception
        if self._grip is not None and isinstance(error, NotRunError):
            self._hear_revoked(self._grip, str(error))
            return
        if self._grip is None or return_ok:
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
            return
        worker_state.task_ready(self)
        try:
            if self.handed_over:
                logger.debug("%s[%s] was stopped to be handed over", self.name, self.id)
            elif self._stopped:
                self._timed_out(limits_of(self.task).hard_s or 0.0, "hard_timeout")
            elif isinstance(error, TimeLimitExceeded):
                self._timed_out(float(error.args[0]), "time_limit")
            elif not (worker_state.should_terminate or self._already_revoked):
                self._process_died(_cause(error))
        finally:
            self.acknowledge()

    def _hear_revoked(self, grip: Grip, reason: str) -> None:
        """Hear that it was not run: it is revoked, or had expired by the server's clock."""
        worker_state.task_ready(self)
        self.acknowledge()
        if not grip.revoked:
            expired = reason == "expired"
            self.send_event("task-revoked", terminated=False, signum=None, expired=expired)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Hear of a time limit; a hard one was dealt with as the process was stopped."""
        if self._grip is None or soft:
            super().on_timeout(soft, timeout)

    def _timed_out(self, hard_s: float, option: str) -> None:
        condemned = self._condemn("hard timeout", overdue(self.name, hard_s, option))
        if condemned is not False:
            logger.error(
                "%s[%s] was stopped at its hard timeout (%g s)", self.name, self.id, hard_s
            )
        else:
            # It had committed, or not started: its process is stopped all the same.
            self._process_died("hard timeout")

    def _condemn(self, reason: str, outcome: Outcome) -> bool | None:
        """Commit the outcome; False if there is nothing to condemn, None if Redis is away.

        Then it is owed, and must stay alone: who gave the claim back meanwhile would revive it.
        """
        assert self._grip is not None
        operation = running.condemn(
            self._membership.broker.keys,
            self._grip.claim,
            self.id,
            reason,
            outcomes.encode(outcome),
            outcome.state,
        )
        condemned: bool | None = self._membership.debts.owe(operation)
        return condemned

    def _process_died(self, reason: str) -> None:
        assert self._grip is not None
        broker = self._membership.broker
        reaped = self._membership.debts.owe(
            reaping.reap_claim(broker.keys, self._grip.claim, printable(reason), broker.reap_rules)
        )
        if reaped and reaped.verdict in _REPORT:
            logger.warning(
                "the pool process of %s[%s] is gone (%s): %s",
                self.name,
                self.id,
                reason,
                _REPORT[reaped.verdict].format(returns=reaped.returns),
            )


def _cause(error: BaseException) -> str:
    """Return how a pool process ended, as Celery's pool tells it."""
    signum, status = (
        re.search(pattern, str(error)) for pattern in (r"signal (\d+)", r"exitcode (-?\d+)")
    )
    if isinstance(error, WorkerLostError) and signum:
        return f"process died (signal {signum[1]})"
    if isinstance(error, WorkerLostError) and status:
        return f"process died (exit status {status[1]})"
    return f"{type(error).__name__}: {error}"


_REPORT = {
    "unstarted": "it had not started and goes back to its queue, unblamed",
    "requeued": "it goes back to its queue (return {returns})",
    "scheduled": "it comes back later (return {returns})",
    "exhausted": "it killed its process too often and becomes a dead letter",
    "replay": "it had committed; what follows from it will be sent by another process",
}
