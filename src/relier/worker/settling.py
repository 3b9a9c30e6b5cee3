"""Commit how a task ended, let follow what follows from that, and end its claim.

From the commit on the task never runs again; what follows may be sent again and elsewhere, from the
outcome that the commit has saved.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

from celery import states
from celery.app.task import get_actual_ignore_result

from relier.errors import RelierError
from relier.phoenix.reaper import wake_all
from relier.protocol.outcome import Outcome, printable
from relier.store import running
from relier.store.broker import Broker
from relier.store.operations import Operation
from relier.store.running import Kept
from relier.worker import consequences, fusion, replay
from relier.worker.body import failed
from relier.worker.ended import Ended
from relier.worker.run import Run, persist
from relier.worker.trouble import may_pass

logger = logging.getLogger(__name__)

_PAUSES_S = (1, 2, 4, 8, 16, 32)
_LONGEST_PAUSE_S = 32


class Settling:
    """How the runs of one task are settled.

    Args:
        task: the task.
        broker: where its claims are.
    """

    def __init__(self, task: Any, broker: Broker) -> None:
        self._broker = broker
        self._fused = fusion.fused(task.backend, broker.address)

    def settle(self, run: Run, ended: Ended) -> Ended | None:
        """Commit an end and send what follows.

        Returns:
            The end that was committed, which is a failure where the result cannot be encoded; None
            when the claim was not ours any more.
        """
        try:
            operation, saved = self._commit_operation(run, ended)
        except Exception as error:  # noqa: BLE001 - a result that cannot be encoded fails its task
            ended = failed(run.task, error)
            operation, saved = self._commit_operation(run, ended)
        committed = persist(self._broker, operation, run) or (
            self._starts_again(run) and persist(self._broker, operation, run)
        )
        if not committed:
            return None
        if committed == running.MORE_PARKED:
            self._wake_the_rest(run)
        if saved is not None:
            self._send_and_ack(run, ended, saved, again=False)
        return ended

    def _wake_the_rest(self, run: Run) -> None:
        """Wake all that wait for this task's key; what is not woken now the sweep wakes later."""
        key = self._broker.keys.idempotency(run.key)
        with suppress(RelierError):
            wake_all(self._broker.store, self._broker, key)

    def replay(self, run: Run) -> Ended | None:
        """Send what follows from an outcome that another process committed.

        Returns:
            How it had ended; None when that was not all sent, and is left to another process.
        """
        if run.grip.replays > self._broker.settings.max_interruptions:
            letter = {"reason": "consequences", "name": run.identity.name}
            letter["error"] = f"what follows from it could not be sent {run.grip.replays} times"
            operation = running.ack_dead(self._broker.keys, run.claim, run.identity.task_id, letter)
            persist(self._broker, operation, run)
            return None
        try:
            saved = replay.decode(run.grip.outcome or b"")
            ended = replay.read(run.task, run.grip.outcome or b"")
        except Exception as error:  # noqa: BLE001 - of a newer relier, or of code that is not here
            self._say_not_sent(run, error)
            self._abandon(run, error)
            return None
        if not self._send_and_ack(run, ended, saved, again=True):
            return None
        logger.info(
            "%s[%s] had ended as %s when its process died; sent what follows from it",
            run.identity.name,
            run.identity.task_id,
            saved.state,
        )
        return ended

    def _starts_again(self, run: Run) -> bool:
        """Return whether the claim is still ours and the server knows again that it started.

        One that lost its last writes may have forgotten it. Where the claim is another's, or has
        ended, or its idempotency key is another's result by now, ``start`` says so.
        """
        assert run.beginning is not None
        started = persist(self._broker, running.start_forgotten(run.beginning), run)
        return started.verdict == "run" and bool(started.done) == bool(run.started.done)

    def _commit_operation(self, run: Run, ended: Ended) -> tuple[Operation[int], Outcome | None]:
        """Return what commits this end, and the outcome from which more follows, if any."""
        task, request, keys = run.task, run.request, self._broker.keys
        stores = self._stores(run, ended)
        kept = self._kept(run, ended)
        if self._nothing_follows(run, ended, stores):
            result = None
            if stores:
                result = fusion.stored_result(
                    task.backend, request, ended.state, ended.value, ended.traceback or None
                )
            return running.finish(keys, run.claim, request.id, ended.label, result, kept), None
        saved = replay.saved(task, run.outbox, request.id, ended, replaced=run.replaced)
        outcome = replay.encode(saved)
        goes_on = saved.next is not None or saved.continued
        operation = running.commit(
            keys, run.claim, request.id, ended.label, outcome, kept, goes_on=goes_on
        )
        return operation, saved

    def _kept(self, run: Run, ended: Ended) -> Kept | None:
        """Return what later calls with the same idempotency key are to get."""
        if not run.key or run.started.done or ended.state != states.SUCCESS:
            return None
        ttl_s = run.task.idempotency_ttl or self._broker.settings.idempotency_default_ttl_s
        return Kept(replay.encode_value(run.task.app, ended.value), int(ttl_s * 1000))

    def _stores(self, run: Run, ended: Ended) -> bool:
        """Return whether this end leaves a result in the backend."""
        ignored = get_actual_ignore_result(run.task, run.request)
        if ended.state == states.IGNORED:
            return False
        if ended.state == states.REJECTED and ended.value.requeue:
            return False
        if ended.state == states.SUCCESS:
            return not ignored
        return not ignored or bool(run.task.store_errors_even_if_ignored)

    def _nothing_follows(self, run: Run, ended: Ended, stores: bool) -> bool:
        request = run.request
        going_on = run.replaced or bool(run.outbox.messages or ended.letter)
        if going_on or ended.state in (states.RETRY, states.REJECTED):
            return False
        if stores and not self._fused:
            return False
        if ended.state == states.SUCCESS:
            return not (request.callbacks or request.chain or request.chord)
        if ended.state == states.FAILURE:
            return not (request.errbacks or request.chain or request.chord)
        return ended.state != states.REVOKED or not (request.chord or request.chain)

    def _send_and_ack(self, run: Run, ended: Ended, saved: Outcome, *, again: bool) -> bool:
        """Send what follows, then end the claim; False when that is left to another process.

        Trouble that passes is waited out here, for the claim is ours and all of it may be sent
        twice; what does not pass is handed to another process. The commit stands either way.
        """
        for pause_s in (*_PAUSES_S, None):
            try:
                self._send(run, ended, saved, again=again)
            except Exception as error:  # noqa: BLE001 - whatever a backend or a publish raises
                self._say_not_sent(run, error)
                if pause_s is None or not may_pass(error):
                    self._abandon(run, error)
                    return False
                again = True
                time.sleep(pause_s)
            else:
                break
        persist(self._broker, replay.ack(self._broker.keys, run.claim, run.identity, saved), run)
        return True

    def _say_not_sent(self, run: Run, error: Exception) -> None:
        logger.error(
            "%s[%s] is committed, but what follows from it could not be sent yet (%r); "
            "it will be sent again",
            run.identity.name,
            run.identity.task_id,
            error,
            exc_info=not may_pass(error),
        )

    def _abandon(self, run: Run, error: Exception) -> None:
        # Not at once: the next process would run into the same.
        time.sleep(min(2**run.grip.replays, _LONGEST_PAUSE_S))
        reason = printable(f"{type(error).__name__}: {error}")
        keys, task_id = self._broker.keys, run.identity.task_id
        persist(self._broker, running.abandon(keys, run.claim, task_id, reason), run)

    def _send(self, run: Run, ended: Ended, saved: Outcome, *, again: bool) -> None:
        task, request, stores = run.task, run.request, self._stores(run, ended)
        if again:
            request.children[:] = replay.children(task, saved)
        consequences.send_held_back(self._broker, replay.held_back(saved))
        if ended.state == states.SUCCESS:
            consequences.send_success(task, request, ended.value, run.parent, store_result=stores)
        elif ended.state == states.RETRY:
            if stores:
                error = getattr(ended.value, "exc", None)
                task.backend.mark_as_retry(request.id, error, ended.traceback, request=request)
        elif ended.state == states.REVOKED:
            reason = str(ended.value or "terminated")
            consequences.send_revoked(task, request, reason, run.parent, store_result=stores)
        elif ended.state == states.FAILURE or (
            ended.state == states.REJECTED and not saved.next and not ended.value.requeue
        ):
            consequences.send_failure(
                task,
                request,
                ended.value,
                ended.traceback,
                run.parent,
                store_result=stores,
                again=again,
            )
